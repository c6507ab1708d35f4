"""What a node of a Ray cluster does: read, hash and embed block after block of images, with a model loaded once."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isthmus.catalog.embed import Embedder, Vectors, embed
from isthmus.catalog.reading import read
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash
from isthmus.translate.ray_worker import check_sources, check_version, here, packed

BLOCK, NUMBER, DONE, ERROR = "block", "number", "done", "error"  # columns
TRIES = 5  # a block that ended its worker so often is the reason for it
Marks = np.ndarray[Any, np.dtype[np.int64]]


class Image(NamedTuple):
    """An image as it travels to a worker."""

    id: str
    path: str
    label: str | None


class Block(NamedTuple):
    """Images of one domain that a worker takes at once."""

    number: int
    domain: str
    images: tuple[Image, ...]


class Found(NamedTuple):
    """What a worker found of an image, as in `isthmus.catalog.reading.Seen`."""

    content: str
    size: int
    mtime: int
    fault: str
    made: Vectors | str | None


class Answer(NamedTuple):
    """What became of a block: of each image in its order, and how many went through the model."""

    found: list[Found]
    embedded: int


class Notes:
    """An actor that counts how often each block was begun: Ray begins one anew for ever when its worker dies."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Count a start; returns how many there were."""
        self.begun[number] = self.begun.get(number, 0) + 1
        return self.begun[number]

    def end(self, number: int) -> None:
        """Forget a block that is done."""
        self.begun.pop(number, None)


@dataclass(frozen=True)
class Errand:
    """What a worker has to know.

    Attributes:
        version: the driver's version of Isthmus.
        model: absolute path of the model or run folder.
        fingerprint: of the model, as the catalog has it.
        centring: the catalog's.
        cpus: threads that read and decode.
        gpus: of a worker; more than 0 puts the model on one.
        sources: a few images that the driver sees.
        known: reference to the sorted `mark`s of what the catalog has, so that it is not embedded again.
        notes: the `Notes`.
        precision: that the model computes in.
    """

    version: str
    model: str
    fingerprint: str
    centring: bool | None
    cpus: int
    gpus: float
    sources: tuple[str, ...]
    known: Any = None
    notes: Any = None
    precision: str = "float32"

    def prepare(self) -> tuple[Embedder, Marks]:
        """The model and the marks, once this node has turned out to be fit for the work.

        Raises:
            IsthmusError: another version of Isthmus, a model or image that this node doesn't see, or no GPU.
        """
        from isthmus.models.encoder import Model
        from isthmus.models.precision import set_precision

        check_version(self.version)
        check_sources(self.sources)
        if not Path(self.model).is_dir():
            raise IsthmusError(
                f"Node {here()} of the Ray cluster doesn't see the model {self.model}: put it on a file system that "
                "all nodes share, at the same path."
            )
        model = Model.load(self.model)
        if model.fingerprint != self.fingerprint:
            raise IsthmusError(
                f"The model {self.model} is {model.fingerprint} on node {here()} of the Ray cluster, and the catalog's "
                f"is {self.fingerprint}: put the same model on all nodes."
            )
        set_precision(model, self.precision)
        if self.gpus:
            _to_gpu(model)
        if self.known is None:
            return model, np.empty(0, np.int64)
        import ray

        return model, ray.get(self.known)

    @contextlib.contextmanager
    def in_hand(self, block: Block) -> Iterator[None]:
        """Count how often `block` was begun.

        Raises:
            IsthmusError: it ended its worker each time.
        """
        if self.notes is None:
            yield
            return
        import ray

        if ray.get(self.notes.begin.remote(block.number)) > TRIES:
            raise IsthmusError(
                f"The images from {block.images[0].id} on ended their Ray worker {TRIES} times, most likely for lack "
                "of memory: run the same command again with fewer --ray-actors; finished images are kept."
            )
        try:
            yield
        finally:
            self.notes.end.remote(block.number)


class EmbedWorker:
    """An actor of Ray Data's pool.

    Errors travel as values: raised here, Ray would take them for failures of its own and wrap them.
    """

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.ready: tuple[Embedder, Marks] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """One row for each block: its number, and its answer or the error that stopped it, pickled."""
        for text in batch[BLOCK]:
            block = unpack(str(text))
            done = fault = b""
            try:
                if self.ready is None:
                    self.ready = self.errand.prepare()
                with self.errand.in_hand(block):
                    done = pickle.dumps(self.work(block, *self.ready))
            except Exception as error:
                fault = packed(error)
            yield {NUMBER: [block.number], DONE: [done], ERROR: [fault]}

    def work(self, block: Block, model: Embedder, known: Marks) -> Answer:
        """Read and hash the block's images, and embed those of each new content once."""
        from isthmus.data.loading import prefetch

        errand = self.errand
        rows = [Row(image.id, image.path, block.domain, label=image.label) for image in block.images]
        seen = list(prefetch(rows, read, errand.cpus, ahead=4 * errand.cpus))
        first: dict[str, str] = {}
        for one in seen:
            if not one.fault and not _among(known, mark(one.content, block.domain)):
                first.setdefault(one.content, one.row.path)
        vectors, bad = embed(
            model, list(first.values()), domain=block.domain, centring=errand.centring, workers=errand.cpus,
            on_bad="skip",
        )  # fmt: skip
        made = {content: bad.get(place, vectors[place]) for place, content in enumerate(first)}
        found = [Found(one.content, one.size, one.mtime, one.fault, made.get(one.content)) for one in seen]
        return Answer(found, len(first) - len(bad))


def mark(content: str, domain: str) -> int:
    """A content of a domain in 8 bytes; what has the mark of another is left to the driver, which compares in full."""
    return stable_hash(content, domain)


def pack(block: Block) -> str:
    """A block as text; file names need not be valid Unicode.

    Example:
        >>> unpack(pack(Block(0, "photo", (Image("photo/1", "/1.png", None),)))).images[0].path
        '/1.png'
    """
    return json.dumps(block)


def unpack(text: str) -> Block:
    """The block that `pack` wrote."""
    number, domain, images = json.loads(text)
    return Block(number, domain, tuple(Image(*image) for image in images))


def marks(contents: Sequence[tuple[str, str]]) -> Marks:
    """The sorted marks of (content, domain) pairs."""
    return np.sort(np.fromiter((mark(*one) for one in contents), np.int64, len(contents)))


def _among(known: Marks, one: int) -> bool:
    place = int(np.searchsorted(known, one))
    return place < len(known) and int(known[place]) == one


def _to_gpu(model: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        raise IsthmusError(
            f"Node {here()} of the Ray cluster gave a worker a GPU that its torch can't use: install torch for CUDA on "
            "all nodes, or embed on CPUs with --ray-gpus 0."
        )
    # TensorFloat-32 keeps 10 bits of a factor: vectors would agree with a CPU's to 1e-3 only.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model.encoder.to("cuda")
