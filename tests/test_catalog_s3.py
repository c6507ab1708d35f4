"""The catalog on object storage, against a local server of the S3 API."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from catalog_tools import FakeModel, Other, photos, picture
from cli_zoo import call
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
from serve_zoo import TOKEN, WRITES, error_of, item_id, png, query_of, served
from werkzeug.serving import WSGIRequestHandler

from isthmus import Catalog, IsthmusError
from isthmus.catalog import storage
from isthmus.catalog.reembed import reembed
from isthmus.catalog.storage import read_options

COUNT = 12
QUERY = np.ones(FakeModel.dim)
KEYS = {"aws_access_key_id": "somebody", "aws_secret_access_key": "knows", "aws_region": "us-east-1"}


class Store:
    """A server with the bucket `shop`; notes the requests and can be told to forget a promise of S3's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.options = {**KEYS, "aws_endpoint": url, "allow_http": "true"}
        self.client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
        )
        self.client.create_bucket(Bucket="shop")
        self.forgetful = False
        self.requests: list[str] = []
        self.lock = threading.Lock()

    def keys(self, prefix: str) -> list[str]:
        return [one["Key"] for one in self.client.list_objects_v2(Bucket="shop", Prefix=prefix).get("Contents", [])]

    def create(self, name: str, count: int = 0, folder: Path | None = None) -> tuple[str, Catalog]:
        place = f"s3://shop/{name}"
        with pytest.MonkeyPatch.context() as patch:
            if folder is not None:  # once is enough, in the tests that need no items
                patch.setattr("isthmus.catalog.table.require_safe_commits", lambda *_: None)
            catalog = Catalog.create(place, FakeModel(), storage_options=self.options)
        if folder is not None:
            metadata = {f"photo/{number:03}.png": {"price": number} for number in range(count)}
            catalog.add(photos(folder / "photos", count), metadata=metadata, workers=0)
        return place, catalog

    def open(self, place: str, model: Any = None) -> Catalog:
        return Catalog.open(place, model or FakeModel(), storage_options=self.options)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        server.start()
        made = Store("http://{}:{}".format(*server.get_host_and_port()))
        patch.setattr(WSGIRequestHandler, "log_request", lambda handler, *_: made.requests.append(handler.requestline))
        put = S3Response.put_object

        def one_at_a_time(response: Any) -> Any:
            with made.lock:  # S3 compares and writes in one step; the test server's threads don't
                if made.forgetful:
                    kept = {name: value for name, value in response.headers.items() if name.lower() != "if-none-match"}
                    response.headers = kept
                return put(response)

        patch.setattr(S3Response, "put_object", one_at_a_time)
        yield made
        server.stop()


def test_all_verbs_do_what_they_do_on_a_disk_and_others_see_it(tmp_path: Path, store: Store) -> None:
    folder = photos(tmp_path / "photos", COUNT)
    for path in folder.iterdir():  # younger files are read again, and how young they are is another thing on either
        os.utime(path, (1_700_000_000, 1_700_000_000))
    place, there = store.create("life")
    catalogs = [there, Catalog.create(tmp_path / "catalog", FakeModel())]
    reader = store.open(place)

    def on_both(work: Callable[[Catalog], Any]) -> Any:
        remote, local = (work(catalog) for catalog in catalogs)
        if hasattr(remote, "to_dict"):
            remote, local = ({**one.to_dict(), "seconds": 0} for one in (remote, local))
        assert remote == local
        return remote

    def check() -> None:
        listed = [sorted(one.rows(), key=lambda row: row["id"]) for one in (catalogs[1], reader)]
        assert listed[0] == listed[1]
        found = [one.search(QUERY, k=30, where="price >= 5") for one in (catalogs[1], reader)]
        assert found[0] == found[1] and len(found[0]) == sum((row["price"] or 0) >= 5 for row in listed[0])

    values = {f"photo/{number:03}.png": {"price": number, "brand": "Acme"} for number in range(COUNT - 1)}
    assert on_both(lambda one: one.add(folder, metadata=values, workers=0))["added"] == COUNT
    check()
    assert on_both(lambda one: one.update({"photo/003.png": {"price": 33}})) == 1
    assert on_both(lambda one: one.delete(["photo/001.png", "nobody"])) == 1
    assert on_both(lambda one: one.delete(where="price = 7")) == 1
    check()
    number = there.info()["version"]
    (folder / "002.png").rename(folder / "moved.png")
    (folder / "004.png").unlink()
    picture(folder / "new.png", 500)
    done = on_both(lambda one: one.sync(folder, workers=0))
    # 001 and 007 were deleted from the catalog only, so they come back.
    assert (done["added"], done["moved"], done["removed"]) == (3, 1, 1)
    check()
    assert on_both(lambda one: one.verify(files=True))["sound"]
    # One whose image is gone, and the moved one's old id.
    assert on_both(lambda one: [version.what for version in one.versions()])[0] == "2 deleted"
    on_both(lambda one: one.rollback(number))
    assert there.items.kinds() == {"price": "number", "brand": "text"} and len(reader) == COUNT - 2
    on_both(lambda one: one.rollback(number + 2))
    assert len(reader) == COUNT
    assert on_both(lambda one: one.compact())["files_after"] == 1
    check()
    files = len(store.keys("life/items.lance/data/"))
    assert there.compact(alone=True).versions_after > 1  # none is a week old
    assert len(store.keys("life/items.lance/data/")) == files

    before = reader.search(QUERY, k=5)
    assert reembed(place, Other(), storage_options=store.options, workers=0).switched
    assert reader.superseded and reader.search(QUERY, k=5) == before
    with pytest.raises(IsthmusError, match="another model"):
        reader.delete(["photo/003.png"])
    assert len(Catalog.open(place, Other(), storage_options=store.options)) == COUNT
    assert not [key for key in store.keys("life/") if "trial" in key or "reembedding" in key]


def test_another_process_sees_what_was_acknowledged_and_is_seen(tmp_path: Path, store: Store) -> None:
    place, catalog = store.create("processes", 4, tmp_path)
    code = (
        "import json, sys\nfrom isthmus import Catalog\n"
        "catalog = Catalog.open(sys.argv[1], storage_options=json.loads(sys.argv[2]))\n"
        "for line in sys.stdin:\n"
        "    print(len(catalog), catalog.delete([line.strip()]), flush=True)\n"
    )
    command = [sys.executable, "-c", code, place, json.dumps(store.options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None

        def delete(id: str) -> str:
            print(id, file=other.stdin, flush=True)
            return other.stdout.readline().strip()  # type: ignore[union-attr]

        assert delete("photo/000.png") == "4 1" and len(catalog) == 3
        assert catalog.delete(["photo/001.png"]) == 1
        assert delete("photo/001.png") == "2 0" and delete("photo/002.png") == "2 1"
        assert [hit.id for hit in catalog.search(QUERY, k=5)] == ["photo/003.png"]


def test_two_writers_at_once_lose_nothing(tmp_path: Path, store: Store) -> None:
    place, reader = store.create("writers", COUNT, tmp_path)
    writers, acknowledged, faults = [store.open(place) for _ in range(2)], [], []  # type: ignore[var-annotated]
    together = threading.Barrier(2)

    def until_done(work: Callable[[], Any]) -> None:
        for _ in range(30):
            try:
                work()
                return
            except IsthmusError as error:
                assert "at the same time; run the same again" in str(error)
        raise AssertionError("refused 30 times")

    def write(number: int) -> None:
        try:
            together.wait(30)
            for step in range(2):
                id = f"photo/{6 * number + step:03}.png"
                new = photos(tmp_path / f"more{number}", 1, start=100 + 10 * number + step)
                until_done(lambda new=new: writers[number].add(new, workers=0))  # type: ignore[misc]
                until_done(lambda id=id: writers[number].update({id: {"price": 1000 + number}}))  # type: ignore[misc]
                gone = f"photo/{6 * number + step + 3:03}.png"
                until_done(lambda gone=gone: writers[number].delete([gone]))  # type: ignore[misc]
                acknowledged.append((f"photo/{100 + 10 * number + step}.png", id, 1000 + number, gone))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len(acknowledged) == 4
    rows = {row["id"]: row for row in reader.rows()}
    for new, changed, price, gone in acknowledged:
        assert any(new.endswith(id.rpartition("/")[2]) for id in rows) and gone not in rows
        assert rows[changed]["price"] == price
    assert len(rows) == COUNT and reader.verify().sound


def test_a_store_that_loses_changes_is_refused(store: Store) -> None:
    store.forgetful = True
    try:
        with pytest.raises(IsthmusError, match=r"would lose changes.*\(If-None-Match\); use a store") as caught:
            store.create("forgetful")
    finally:
        store.forgetful = False
    assert "s3://shop/forgetful" in str(caught.value) and store.keys("forgetful/") == []
    assert not Catalog.exists("s3://shop/forgetful", storage_options=store.options)


def test_a_place_that_is_taken_or_empty(store: Store) -> None:
    place, _ = store.create("taken")
    with pytest.raises(IsthmusError, match="There is a catalog at s3://shop/taken already"):
        store.create("taken")
    with pytest.raises(IsthmusError, match=r"no catalog at s3://shop/nothing; check the address, or make one"):
        store.open("s3://shop/nothing")
    assert Catalog.exists(place, storage_options=store.options)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Knows nobody."""

    def do_GET(self) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


REQUEST = (
    'Invalid input, Failed to connect to namespace: IO { source: Generic { store: "S3", source: ListRequest { source: '
    "RetryError(RetryErrorImpl { method: GET, uri: Some(http://minio:9000/shop?list-type=2), retries: 0, inner: "
)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('Status { status: 403, body: Some("<Error><Code>SignatureDoesNotMatch</Code>")', "refuses the credentials"),
        ('Status { status: 403, body: Some("<Error><Code>AccessDenied</Code>")', "AccessDenied"),
        ("Status { status: 403, body: None", "AccessDenied"),
        ('Status { status: 400, body: Some("<Error><Code>AuthorizationHeaderMalformed</Code>")', "set AWS_REGION"),
        ('Status { status: 501, body: Some("<h1>no</h1>")', "at minio:9000 answered 501; check the address"),
        ('Status { status: 503, body: Some("<Code>SlowDown</Code>")', "answered 503 SlowDown"),
        ("Http(HttpError { kind: Unknown, source: reqwest::Error { kind: Builder, source: BadScheme", "AWS_ALLOW_HTTP"),
        ('HttpError { Connect, "dns error", Custom { error: "Name or service not known" }', "minio:9000 (Name or serv"),
    ],
)
def test_each_fault_of_a_store_has_its_sentence(fault: str, said: str) -> None:
    sentence = storage.storage_sentence(REQUEST + fault, "s3://shop/catalog")
    assert sentence is not None and said in sentence and "s3://shop/catalog" in sentence and "{" not in sentence


def test_what_is_no_fault_of_the_store_is_left_to_others() -> None:
    for text in ("Not found: catalog/items.lance/data/a.lance, status: 404, <Code>NoSuchKey</Code>", "Commit conflict"):
        assert storage.storage_sentence(text, "s3://shop/catalog") is None


def told(place: str, options: dict[str, str], said: str, seconds: float = 20) -> None:
    """Making a catalog fails with this sentence, which names the place, in this time."""
    start = time.monotonic()
    with pytest.raises(IsthmusError, match=said) as caught:
        Catalog.create(place, FakeModel(), storage_options=options)
    text = str(caught.value)
    assert time.monotonic() - start < seconds
    assert place in text and len(text) < 350 and "\n" not in text and "RetryError" not in text and "knows" not in text


def test_a_wrong_address_or_key_is_one_sentence_soon(store: Store, refusing: str) -> None:
    place, options = "s3://shop/catalog", store.options
    keyless = {name: value for name, value in options.items() if "key" not in name}
    with socket.socket() as silent, ThreadPoolExecutor(8) as pool:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        at = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cases: list[tuple[str, dict[str, str], str]] = [
            ("s3://nowhere/catalog", options, r"no bucket for .* at 127\.0\.0\.1:\d+ \(NoSuchBucket\); make it"),
            (place, {**options, "aws_endpoint": "http://127.0.0.1:1"}, r"reached at 127\.0\.0\.1:1 \(.*refused\)"),
            # With the real patience the same takes half a minute.
            (
                place,
                {**options, "aws_endpoint": at, "timeout": "200ms"},
                r"can't be reached at .* \(no answer in time\)",
            ),
            (place, {**options, "aws_endpoint": refusing}, r"refuses the credentials \(InvalidAccessKeyId\); set AWS_"),
            (place, {**options, "timeout": "soon"}, r"setting of the storage .* is wrong \(failed to parse .soon."),
            (place, keyless, "wants credentials, and none were found; set AWS_ACCESS_KEY_ID"),
            ("s3:///catalog", options, "names no bucket; write s3://bucket/catalog"),
            ("s9://shop/catalog", options, "no storage of the kind"),
        ]
        list(pool.map(lambda case: told(*case), cases))
    for address in (store.url[7:], "ftp://x"):
        with pytest.raises(IsthmusError, match=rf"address \(aws_endpoint\) is '{address}'; write it like https"):
            Catalog.open(place, storage_options={**options, "aws_endpoint": address})
    with pytest.raises(IsthmusError, match="s3:/shop/catalog is no address; write s3://shop/catalog"):
        Catalog.open("s3:/shop/catalog")
    assert storage.for_first_contact(None) == storage.FIRST
    assert storage.for_first_contact({"timeout": "60s"})["timeout"] == "60s"


def test_a_lost_object_is_damage_and_told(tmp_path: Path, store: Store) -> None:
    place, catalog = store.create("damaged", 3, tmp_path)
    [key] = store.keys("damaged/items.lance/data/")
    store.client.delete_object(Bucket="shop", Key=key)
    with pytest.raises(IsthmusError, match="s3://shop/damaged is damaged"):
        store.open(place).search(QUERY)
    [problem] = store.open(place).verify().problems
    assert "is damaged" in problem
    assert catalog.info()["items"] == 3


def test_a_search_looks_for_a_newer_version_once(tmp_path: Path, store: Store) -> None:
    place, writer = store.create("looks", COUNT, tmp_path)
    reader = store.open(place)

    def lists(work: Callable[[], Any]) -> int:
        store.requests.clear()
        work()
        return sum("list-type=2" in request for request in store.requests)

    reader.search(QUERY, where="price > 3")
    assert lists(lambda: reader.search(QUERY, k=3, where="price > 3")) == 1
    assert lists(lambda: reader.search(id="photo/004.png", k=3)) == 1
    with reader.steady():
        assert len(reader) == COUNT
        writer.delete(["photo/004.png"])
        assert len(reader) == COUNT == len(reader.search(QUERY, k=COUNT))
    assert len(reader) == COUNT - 1


def test_the_verbs_take_the_environment_and_settings(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import isthmus.catalog.owner as owner
    import isthmus.catalog.store as opened

    for module in (owner, opened):
        monkeypatch.setattr(module, "load_model", lambda model: (FakeModel(), str(model)))
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    place, folder = "s3://shop/verbs", photos(tmp_path / "photos", 4)
    given = ["--storage", f"aws_endpoint={store.url}", "--storage", "allow_http=true"]
    shown = call("index", "run", folder, "--out", place, *given, "--json")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["added"] == 4, shown.stderr
    found = call("search", place, folder / "002.png", "--domain", "photo", "--model", "run", "-k", 1, "--json", *given)
    assert json.loads(found.stdout)[0]["hits"][0]["id"] == "photo/002.png", found.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    shown = call("index", "run", photos(folder, 2, start=10), "--out", place, "--sync", "--json")
    assert json.loads(shown.stdout)["items"] == 6, shown.stderr
    assert json.loads(call("catalog", "delete", place, "photo/010.png", "--json").stdout)["items"] == 5
    assert json.loads(call("catalog", "info", place, "--json").stdout)["items"] == 5
    assert json.loads(call("catalog", "rollback", place, 2, "--json").stdout)["items"] == 4
    assert call("catalog", "verify", place).exit_code == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    shown = call("catalog", "versions", place)
    assert shown.exit_code == 2 and "can't be reached at 127.0.0.1:1" in shown.stderr
    assert call("catalog", "versions", place, *given).exit_code == 0  # what is said by hand counts more
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    assert "(AWS_ENDPOINT_URL) is 'minio:9000'" in call("catalog", "info", place).stderr


def test_settings_of_storage_on_the_command_line() -> None:
    assert read_options(None) is None and read_options([]) is None
    assert read_options(["AWS_Region = eu-1", "timeout=9s"]) == {"aws_region": "eu-1", "timeout": "9s"}
    with pytest.raises(IsthmusError, match="wants KEY=VALUE") as caught:
        read_options(["AKIA0123456789"])
    assert "AKIA" not in str(caught.value)
    with pytest.raises(IsthmusError, match="no setting 'aws_endpont'; usual ones are aws_endpoint"):
        read_options(["aws_endpont=http://127.0.0.1:9000"])
    with pytest.raises(IsthmusError, match="Others on this machine would see 'aws_secret_access_key'") as caught:
        read_options(["aws_secret_access_key=knows"])
    assert "knows" not in str(caught.value)


def test_two_services_over_one_catalog(tmp_path: Path, store: Store) -> None:
    place, catalog = store.create("services", 6, tmp_path)
    uploads, drawn = tmp_path / "uploads", query_of(catalog, 3)
    with (
        served(store.open(place), token=TOKEN, uploads=uploads) as one,
        served(store.open(place), token=TOKEN) as two,
    ):

        def found(client: Any, k: int = 1) -> list[str]:
            data = {"options": json.dumps({"k": k, "domain": "photo"})}
            answer = client.post("/api/search/image", files={"image": ("a.png", png(drawn))}, data=data)
            return [hit["id"] for hit in answer.json()["hits"]]

        assert found(one) == found(two) == [item_id(3)]
        assert one.delete("/api/items", params={"id": item_id(3)}, headers=WRITES).json()["deleted"] == 1
        assert found(two) != [item_id(3)]
        files, data = {"image": ("a.png", png(drawn))}, {"item": json.dumps({"id": "back"})}
        reason = error_of(two.post("/api/items", files=files, data=data, headers=WRITES), 403, "forbidden")
        assert "started with one (uploads)" in reason
        assert one.post("/api/items", files=files, data=data, headers=WRITES).status_code == 201
        assert found(two) == ["back"] and any(uploads.rglob("*.png"))
        change = {"id": item_id(2), "metadata": {"price": 99}}
        assert two.patch("/api/items", json=change, headers=WRITES).status_code == 200
        assert one.get("/api/items", params={"id": item_id(2)}).json()["metadata"]["price"] == 99
        # The photos are files that each machine has to see; one that does not says so, and goes on searching.
        (tmp_path / "photos").rename(tmp_path / "elsewhere")
        error_of(two.get("/api/items/thumbnail", params={"id": item_id(2), "size": 96}), 410, "image_gone")
        assert len(found(two, 6)) == 6
        assert two.get("/api/items/thumbnail", params={"id": "back", "size": 96}).status_code == 200
