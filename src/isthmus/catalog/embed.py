"""Images to vectors: in batches, with what could not be read told and not dropped, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from isthmus.data.images import content_hash, load_image, show_name
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.plan import Plan, peak_memory

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Picture = str | Path | bytes | Image.Image
BATCH = 64


class Embedder(Protocol):
    """What the catalog needs of a model; `isthmus.Model` is one."""

    @property
    def dim(self) -> int: ...
    @property
    def domains(self) -> tuple[str, str]: ...
    @property
    def fingerprint(self) -> str: ...
    def encode(
        self,
        images: Sequence[Picture],
        *,
        domain: str,
        batch_size: int = ...,
        workers: int = ...,
        centring: bool | None = ...,
        on_bad: Literal["raise", "skip"] = ...,
    ) -> Vectors: ...


def check_domain(domain: str, domains: tuple[str, str]) -> None:
    """Raise where the model has no such domain."""
    if domain not in domains:
        raise IsthmusError(f"The model has no domain '{domain}'; its domains are {' and '.join(domains)}.")


def embed(
    model: Embedder,
    images: Sequence[Picture],
    *,
    domain: str,
    centring: bool | None = None,
    workers: int = 2,
    on_bad: Literal["raise", "skip"] = "raise",
) -> tuple[Vectors, dict[int, str]]:
    """Embed images of one domain.

    Args:
        model: what encodes.
        images: paths, bytes or Pillow images.
        domain: one of the model's domains.
        centring: as in `Model.encode`.
        workers: threads that decode.
        on_bad: `"raise"` at an image that can't be used, or `"skip"`.

    Returns:
        float32 (n, dim), unit length, rows of bad images NaN; and position -> reason for the bad ones.

    Raises:
        IsthmusError: an unknown domain, or a bad image where `on_bad="raise"`.
    """
    check_domain(domain, model.domains)
    if not images:
        return np.empty((0, model.dim), np.float32), {}
    vectors = model.encode(images, domain=domain, batch_size=BATCH, workers=workers, centring=centring, on_bad=on_bad)
    vectors = np.array(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        vectors = (vectors / lengths[:, None]).astype(np.float32)
    bad: dict[int, str] = {}
    for position in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
        vectors[position] = np.nan
        bad[position] = _reason(images[position])
    if bad and on_bad == "raise":
        raise IsthmusError(next(iter(bad.values())))
    return vectors, bad


def _reason(image: Picture) -> str:
    try:
        load_image(image)
    except IsthmusError as error:
        return str(error)
    name = show_name(image) if isinstance(image, (str, Path)) else "the image"
    return f"The model gives no usable vector for {name} (not finite, or zero); the model may be damaged."


def plan_embedding(
    model: Embedder,
    rows: Sequence[Row],
    *,
    already: int = 0,
    index_above: int = 50_000,
    workers: int = 2,
    seconds: float = 8.0,
) -> Plan:
    """Estimate `add` from a probe on a sample of the images that have to be embedded.

    Args:
        model: what encodes.
        rows: the images to embed; a sample spread over them is decoded, hashed and encoded, and bad ones skipped.
        already: items that are in the catalog.
        index_above: number of items above which the approximate index is built.
        workers: threads that decode.
        seconds: about how long the probe may take.
    """
    total = len(rows)
    if not total:
        return Plan("index", 0, "images", 0.0, peak_memory(), 0, "nothing to embed")
    # The first batch pays for things that are paid once: threads, kernels, the disk's cache.
    sizes, first = _probe(model, rows, min(total, BATCH), workers)
    count = int(min(total, max(BATCH, seconds / max(first, 1e-6))))
    count = min(count, 16 * BATCH) // BATCH * BATCH or total
    if count > BATCH or total <= BATCH:
        sizes, each = _probe(model, rows, count, workers)
    else:
        each = first
    index = 0.0
    everything = total + already
    raw = everything * model.dim * 4
    if everything > index_above:
        index = everything * model.dim * 7e-7  # HNSW on two cores, measured at 256 and 512 dimensions
    stored = int(total * (model.dim * 4 + 350) + (0.4 * raw if index else 0))
    memory = peak_memory() + 4096 * (model.dim * 8 + 4000) + (2 * raw if index else 0)
    return Plan(
        what="index",
        units=total,
        unit="images",
        seconds=each * total + index,
        memory=int(memory),
        disk=stored,
        probe=f"{count} images of {sizes / max(1, count) / 1000:.0f} kB, {1 / each:.1f} images/s",
    )


def _probe(model: Embedder, rows: Sequence[Row], count: int, workers: int) -> tuple[int, float]:
    """Bytes read and seconds an image, of `count` images spread over `rows`."""
    chosen = [rows[position * len(rows) // count] for position in range(count)]
    start = time.perf_counter()
    size = 0
    for row in chosen:
        try:
            content_hash(row.path)
            size += Path(row.path).stat().st_size
        except (IsthmusError, OSError):
            continue
    for domain in dict.fromkeys(row.domain for row in chosen):
        paths = [row.path for row in chosen if row.domain == domain]
        embed(model, paths, domain=domain, workers=workers, on_bad="skip")
    return size, max(1e-9, time.perf_counter() - start) / count
