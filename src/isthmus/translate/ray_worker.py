"""What a node of a Ray cluster does: one translator, built once, for batch after batch."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus import __version__
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash
from isthmus.translate.base import TRANSLATORS, Samples, Translator, TranslatorChoice, choose
from isthmus.translate.pool import run_here
from isthmus.translate.presence import stay_at_work
from isthmus.translate.record import SETTINGS
from isthmus.translate.work import Item, Job

BATCH, DONE, ERROR = "batch", "done", "error"  # columns
PATIENCE = 15.0  # seconds: a network file system may show a new folder so late
TRIES = 5  # a batch that ended its worker so often is the reason for it


@dataclass(frozen=True)
class Errand:
    """What a worker has to know.

    Attributes:
        job: what all batches have in common; its folder is absolute.
        place: "module:class" of the translator, which the driver's table may be alone to know.
        version: the driver's version of Isthmus.
        marker: a folder in the run's folder that the driver has just made; it holds a note of each block in hand.
        sources: a few source images that the driver sees.
    """

    job: Job
    place: str
    version: str
    marker: str
    sources: tuple[str, ...]

    def prepare(self) -> Translator:
        """The translator, once this node has turned out to be fit for the work.

        Raises:
            IsthmusError: another version of Isthmus, or a folder that this node doesn't see.
        """
        check_version(self.version)
        deadline = time.monotonic() + PATIENCE
        while not (self.job.out / self.marker).is_dir():
            if time.monotonic() > deadline:
                raise IsthmusError(
                    f"Node {here()} of the Ray cluster doesn't see the folder {self.job.out} that the driver writes "
                    "to: put --out on a file system that all nodes share, at the same path."
                )
            time.sleep(0.2)
        check_sources(self.sources)
        TRANSLATORS[self.job.choice.name] = self.place
        stay_at_work(self.job.out / SETTINGS)
        return self.job.choice.build()

    @contextlib.contextmanager
    def in_hand(self, batches: Sequence[Sequence[Item]]) -> Iterator[None]:
        """Keep a note of how often `batches` were begun while they are in hand: Ray begins them anew for ever.

        Raises:
            IsthmusError: they ended their worker each time.
        """
        first = batches[0][0].id
        note = self.job.out / self.marker / f"{stable_hash(first):x}"
        with note.open("ab") as file:
            file.write(b".")
            begun = file.tell()
        try:
            if begun > TRIES:
                raise IsthmusError(
                    f"The images from {first} on ended their Ray worker {TRIES} times, most likely for lack of memory: "
                    "run the same command again with fewer --workers; finished images are kept."
                )
            yield
        finally:
            note.unlink(missing_ok=True)


class RayWorker:
    """An actor of Ray Data's pool.

    Errors travel as values: raised here, Ray would take them for failures of its own and wrap them.
    """

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.translator: Translator | None = None

    def __call__(self, block: Mapping[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        """One row for each batch of `block`: what became of it, or the error that stopped it."""
        try:
            if self.translator is None:
                self.translator = self.errand.prepare()
            batches = [unpack(text) for text in block[BATCH]]
            with self.errand.in_hand(batches):
                for done in run_here(batches, self.errand.job, self.translator):
                    yield {DONE: [pickle.dumps(done)], ERROR: [b""]}
        except Exception as error:
            yield {DONE: [b""], ERROR: [packed(error)]}


def choose_there(
    place: str, version: str, name: str, settings: Mapping[str, Any], samples: Samples
) -> TranslatorChoice | bytes:
    """`choose` on a node, or the error that stopped it."""
    try:
        if version != __version__:
            raise IsthmusError(f"Node {here()} has Isthmus {__version__}, the driver {version}: install the same.")
        TRANSLATORS[name] = place
        return choose(name, settings, samples)
    except Exception as error:
        return packed(error)


def check_version(version: str) -> None:
    """Raise where this node has another version of Isthmus than the driver."""
    if version != __version__:
        raise IsthmusError(
            f"Node {here()} of the Ray cluster has Isthmus {__version__}, the driver {version}: "
            "install the same version on all nodes."
        )


def check_sources(paths: Iterable[str]) -> None:
    """Raise where this node doesn't see images that the driver sees."""
    for path in paths:
        if not Path(path).is_file():
            raise IsthmusError(
                f"Node {here()} of the Ray cluster doesn't see the image {path}: put the source images on a file "
                "system that all nodes share, at the same path."
            )


def pack(batch: Sequence[Item]) -> str:
    """A batch as text; file names need not be valid Unicode.

    Example:
        >>> unpack(pack([Item("photo/1", "/1.png", None)]))
        (Item(id='photo/1', path='/1.png', label=None),)
    """
    return json.dumps([[item.id, item.path, item.label] for item in batch])


def unpack(text: str) -> tuple[Item, ...]:
    """The batch that `pack` wrote."""
    return tuple(Item(id, path, label) for id, path, label in json.loads(text))


def packed(error: Exception) -> bytes:
    """An exception as bytes; one that can't be pickled becomes its text."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return data


def here() -> str:
    """This machine's name."""
    return socket.gethostname()
