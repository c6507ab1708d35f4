"""Object storage: its address and options, a first contact of bounded time, its faults as sentences, and the one thing
that a store must be able to do: refuse to overwrite a version that another writer has just made.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.errors import IsthmusError

# A wrong address or a silent server is told within half a minute, and not after minutes of retries: LanceDB asks eight
# times for a list that fails, whatever it is told, so one try in each is enough. What a person sets counts more.
FIRST = {"connect_timeout": "3s", "timeout": "3s", "client_max_retries": "0"}
ENDPOINTS = ("aws_endpoint", "aws_endpoint_url", "endpoint", "endpoint_url", "aws_endpoint_url_s3")
WRITERS = 4  # of the trial: with two, one may be done before the other begins
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
# What a store can be told on the command line; LanceDB passes over any other name without a word.
_KNOWN = frozenset([
    "aws_endpoint", "aws_endpoint_url", "aws_region", "aws_virtual_hosted_style_request", "aws_unsigned_payload",
    "aws_skip_signature", "aws_s3_express", "aws_request_payer", "aws_disable_tagging", "aws_checksum_algorithm",
    "aws_server_side_encryption", "aws_sse_kms_key_id", "aws_sse_bucket_key_enabled", "allow_http",
    "allow_invalid_certificates", "connect_timeout", "timeout", "user_agent", "proxy_url", "proxy_ca_certificate",
    "proxy_excludes", "client_max_retries", "client_retry_timeout", "download_retry_count",
])  # fmt: skip
_SECRET = re.compile("secret|access_key|token|password|customer_key|sas|credential")


def is_remote(path: str) -> bool:
    """Whether a catalog's place is a URI (object storage) and no local folder."""
    return "://" in path


def read_options(items: Iterable[str] | None) -> dict[str, str] | None:
    """`KEY=VALUE` settings of object storage, from the command line; None where there are none.

    Raises:
        IsthmusError: an item is no `KEY=VALUE`, there is no such setting, or it is a secret: what stands on a command
            line is seen by everybody on the machine.

    Example:
        >>> read_options(["aws_endpoint=http://127.0.0.1:9000", "allow_http=true"])
        {'aws_endpoint': 'http://127.0.0.1:9000', 'allow_http': 'true'}
    """
    options: dict[str, str] = {}
    for item in items or ():
        key, mark, value = item.partition("=")
        name = key.strip().lower()
        if not mark or not name or not value.strip():
            # Not repeated: it may be a key without its name.
            raise IsthmusError("--storage wants KEY=VALUE, for example  --storage aws_endpoint=https://minio.example")
        if _SECRET.search(name):
            raise IsthmusError(
                f"Others on this machine would see '{name[:80]}' on the command line; {CREDENTIALS} in the environment."
            )
        if name not in _KNOWN and not name.startswith(("google_", "azure_")):
            raise IsthmusError(
                f"Object storage has no setting '{name[:80]}'; usual ones are aws_endpoint, aws_region, allow_http and "
                "timeout."
            )
        options[name] = value.strip()
    return options or None


def check_address(place: str, options: Mapping[str, str] | None) -> None:
    """Raise where an address can't be one, before LanceDB is asked: of such an endpoint it would panic."""
    scheme, _, rest = place.partition("://")
    if scheme != "file" and (not rest or rest.startswith("/")):
        raise IsthmusError(f"{place} names no bucket; write {scheme or 's3'}://bucket/catalog")
    endpoint, said = _endpoint(options)
    if scheme.startswith("s3") and endpoint and not re.match(r"https?://[^/\s]+", endpoint):
        raise IsthmusError(f"The storage's address ({said}) is '{endpoint}'; write it like https://minio.example:9000")


def for_first_contact(options: Mapping[str, str] | None) -> dict[str, str]:
    """Options with which a store that does not answer is given up soon."""
    return {**FIRST, **(options or {})}


def storage_sentence(text: str, place: str) -> str | None:
    """What LanceDB says of a fault of the storage, as one sentence; None where it is about something else."""
    code = _found(r"<Code>(\w+)</Code>", text)
    status = _found(r"\bstatus: (\d{3})\b", text)
    store = f"The storage of the catalog {place}"
    at = _found(r"\bhttps?://([^/?\s)\"\\]+)", text)
    where = f" at {at}" if at else ""
    if code == "NoSuchBucket":
        return f"There is no bucket for the catalog {place}{where} (NoSuchBucket); make it, or check the address."
    if "Failed to get AWS credentials" in text or "no providers in chain" in text:
        return f"{store} wants credentials, and none were found; {CREDENTIALS}."
    if code in ("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return f"{store} refuses the credentials ({code}); {CREDENTIALS} anew."
    if code == "AccessDenied" or status in ("401", "403"):
        return f"{store} allows this to nobody with these credentials (AccessDenied); check them and their rights."
    if code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"):
        return f"{store} is in another region ({code}); set AWS_REGION to the bucket's."
    if "BadScheme" in text:
        return f"{store}{where} is not encrypted (http); say that it may be: AWS_ALLOW_HTTP=true"
    if "HttpError" in text or "dispatch failure" in text:
        reason = _found(r'message: "([^"]+)"', text) or _found(r'error: "([^"]+)"', text)
        reason = reason or ("no answer in time" if "imed" in text else "no connection")
        return f"{store} can't be reached{where} ({reason}); check address and network."
    if "No object store provider" in text:
        return f"There is no storage of the kind of {place}; write s3://bucket/catalog or a folder."
    if "failed to parse" in text and "Config error" in text:
        reason = _found(r"(failed to parse .{1,100}?)(?:,|$)", text)
        return f"A setting of {store[0].lower()}{store[1:]} is wrong ({reason}); correct it (--storage or AWS_...)."
    if status is not None and (status >= "429" or "connect to namespace" in text):
        return f"{store}{where} answered {status}{f' {code}' if code else ''}; check the address, or try again later."
    return None


def require_safe_commits(place: str, options: Mapping[str, str] | None) -> None:
    """Refuse a store on which two writers at once lose a change and are both told that it is stored.

    A commit is a put that must fail where the object exists (`If-None-Match: *`). Stores that don't know the header
    overwrite without a word. LanceDB does not show it to us, so it is tried: four writers add a row each, at the same
    time, to a table that is removed again, and all rows that were acknowledged must be there. It is a trial and no
    proof, but a store that ignores the header has lost all rows but one in each that we have seen.

    Raises:
        IsthmusError: a row is gone.
    """
    import lancedb
    import pyarrow as pa

    name, shape = f"trial-{uuid.uuid4().hex}", pa.schema([("writer", pa.int64())])
    connection = lancedb.connect(place, storage_options=dict(options) if options else None)
    connection.create_table(name, schema=shape)
    try:
        tables = [connection.open_table(name) for _ in range(WRITERS)]
        together, acknowledged = threading.Barrier(WRITERS), list[int]()

        def write(number: int) -> None:
            together.wait(60)
            try:
                tables[number].add(pa.table({"writer": [number]}, schema=shape))
            except (RuntimeError, ValueError, OSError):
                return  # refused: told to the writer, so nothing is lost
            acknowledged.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        there: Any = connection.open_table(name).to_arrow().column("writer").to_pylist()
    finally:
        connection.drop_table(name, ignore_missing=True)
    if lost := set(acknowledged) - set(there):
        raise IsthmusError(
            f"The storage of {place} would lose changes: of {len(acknowledged)} rows that {WRITERS} writers stored at "
            f"the same time {len(lost)} are gone. It does not honour conditional writes (If-None-Match); use a store "
            "that does, such as AWS S3, MinIO or Cloudflare R2."
        )


def _endpoint(options: Mapping[str, str] | None) -> tuple[str, str]:
    """The endpoint in force and where it was said; empty for that of AWS."""
    lower = {name.lower(): value for name, value in (options or {}).items()}
    for name in ENDPOINTS:
        if name in lower:
            return lower[name], name
    for name in ENDPOINTS:
        if name.startswith("aws_") and os.environ.get(name.upper()):
            return os.environ[name.upper()], name.upper()
    return "", ""


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return None if match is None else match[1]
