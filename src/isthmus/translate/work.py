"""One batch of a translation: read, translate, write. Runs in the main process or in workers, with the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.data.files import ImageError, content_hash
from isthmus.data.images import load_image
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, fingerprint, stable_hash
from isthmus.translate.base import NoPicture, Translator, TranslatorChoice, translator_class
from isthmus.translate.gate import passed
from isthmus.translate.gate_retry import first_attempts, given_up
from isthmus.translate.outputs import failure_path, image_path, read_provenance, write_counterpart

ATTEMPTS = 3  # with another seed each, where a translator gives no picture or a blank one
ATTEMPT = "attempt"  # which one gave the picture, in its provenance; 0 goes without saying


@dataclass(frozen=True)
class Item:
    """A source image: its id, file and category."""

    id: str
    path: str
    label: str | None


@dataclass(frozen=True)
class Job:
    """What every batch of a run has in common.

    Attributes:
        choice: the translator.
        out: folder of the run.
        target: domain that the counterparts belong to.
        seed: the run's seed.
        skip_bad: note an image that can't be read, and go on.
    """

    choice: TranslatorChoice
    out: Path
    target: str
    seed: int
    skip_bad: bool

    def image_seed(self, id: str, attempt: int = 0) -> int:
        """The seed of an image: neither batch, order nor machine changes it."""
        return stable_hash(self.seed, id) if attempt == 0 else stable_hash(self.seed, id, attempt)

    def provenance(self, item: Item, batch: Sequence[Item]) -> dict[str, Any]:
        """What the counterpart's file will say; a resumed run keeps a file only when it says the same."""
        kind = translator_class(self.choice.name)
        said: dict[str, Any] = {
            "source": item.id,
            "source_sha256": content_hash(item.path),
            "seed": self.image_seed(item.id),
            "translator": self.choice.name,
            "version": kind.version,
            "settings": self.choice.fingerprint,
            "target": self.target,
        }
        if not kind.independent:
            said["batch"] = fingerprint([other.id for other in batch])
        if self.choice.names_label:
            said["label"] = item.label
        return said


@dataclass(frozen=True)
class Done:
    """What became of a batch: how many were written, were there already, and failed (id, path, reason)."""

    written: int
    kept: int
    failed: tuple[tuple[str, str, str], ...]
    bytes: int

    @property
    def total(self) -> int:
        """How many images the batch has."""
        return self.written + self.kept + len(self.failed)


@dataclass(frozen=True)
class Loaded:
    """A batch that has been read: images of what is to be done, and what needs no doing.

    `first` is the attempt an image begins with (0, or later ones when it was asked for again), `failed` what can't be
    read, `given_up` what failed in an earlier run.
    """

    items: tuple[Item, ...]
    images: tuple[Image.Image, ...]
    provenance: tuple[dict[str, Any], ...]
    wanted: tuple[bool, ...]
    first: tuple[int, ...]
    kept: int
    failed: tuple[tuple[str, str, str], ...]
    given_up: tuple[tuple[str, str, str], ...]


def load_batch(batch: Sequence[Item], job: Job) -> Loaded:
    """Find what is missing in `batch` and read it.

    Where pictures depend on their batch, the whole batch is read as soon as one is missing, and an unreadable image is
    replaced by a blank one: the others' pictures stay the same when it is mended later.
    """
    independent = translator_class(job.choice.name).independent
    asked = first_attempts(job.out)
    found = [_find(item, batch, job, asked.get(item.id, 0)) for item in batch]
    failed = [(item.id, item.path, one.error) for item, one in zip(batch, found, strict=True) if one.error]
    hopeless = [(item.id, item.path, one.hopeless) for item, one in zip(batch, found, strict=True) if one.hopeless]
    todo: list[tuple[Item, Image.Image, dict[str, Any], bool, int]] = []
    for item, one in zip(batch, found, strict=True) if any(one.wanted for one in found) else ():
        if independent and not one.wanted:
            continue
        image, wanted = Image.new("RGB", (256, 256), "white"), one.wanted
        try:
            image = load_image(item.path)
        except (ImageError, OSError) as error:
            if wanted and not job.skip_bad:
                raise IsthmusError(str(error)) from error
            if wanted:
                failed.append((item.id, item.path, str(error)))
            wanted = False
        todo.append((item, image, one.note, wanted, asked.get(item.id, 0)))
    return Loaded(
        tuple(item for item, *_ in todo), tuple(image for _, image, *_ in todo), tuple(note for *_, note, _, _ in todo),
        tuple(wanted for *_, wanted, _ in todo), tuple(first for *_, first in todo),
        sum(one.kept for one in found), tuple(failed), tuple(hopeless),
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """What is there of an image: its provenance, whether a counterpart is kept, why none can be or will be made."""

    note: dict[str, Any]
    kept: bool = False
    hopeless: str = ""
    error: str = ""

    @property
    def wanted(self) -> bool:
        return not (self.kept or self.hopeless or self.error)


def _find(item: Item, batch: Sequence[Item], job: Job, first: int) -> _Found:
    known = read_provenance(image_path(job.out, item.id)) or {}
    try:
        note = job.provenance(item, batch)
    except (ImageError, OSError) as error:
        if not job.skip_bad:
            raise IsthmusError(str(error)) from error
        # A source that is gone, or its disk with it, is no reason to throw the counterpart away.
        ours = (known.get("source"), known.get("settings")) == (item.id, job.choice.fingerprint)
        return _Found({}, kept=True) if ours else _Found({}, error=str(error))
    if {key: known.get(key) for key in note} == note and known.get(ATTEMPT, 0) >= first:
        return _Found(note, kept=True)
    return _Found(note, hopeless=given_up(job.out, item.id, note, first))


def translate_batch(loaded: Loaded, job: Job, translator: Translator) -> list[Image.Image | NoPicture | None]:
    """One picture for each image of the batch; where none came, or a blank one, further attempts with other seeds."""
    pictures: list[Image.Image | NoPicture | None] = [None] * len(loaded.items)

    def attempt(asked: Sequence[int], kept: Sequence[int], numbers: Sequence[int]) -> None:
        items = [loaded.items[i] for i in asked]
        seeds = [job.image_seed(item.id, number) for item, number in zip(items, numbers, strict=True)]
        made = translator.translate([loaded.images[i] for i in asked], seeds, [item.label for item in items])
        for i, picture, number in zip(asked, made, numbers, strict=True):
            if i in kept:
                pictures[i] = passed(picture, loaded.images[i])
                if isinstance(picture, Image.Image):
                    picture.info[ATTEMPT] = number  # for the provenance, on whatever way the picture reaches its file

    for step in range(ATTEMPTS):
        again = [i for i, picture in enumerate(pictures) if loaded.wanted[i] and not isinstance(picture, Image.Image)]
        fresh = [i for i in again if loaded.first[i] + step == 0]
        if fresh:
            everyone = range(len(loaded.items))
            attempt(everyone, fresh, [0] * len(everyone))
        # One by one: which others fail, or were written before a run was killed, must not change a picture.
        for i in again:
            if loaded.first[i] + step > 0:
                attempt([i], [i], [loaded.first[i] + step])
    return pictures


def write_batch(loaded: Loaded, pictures: Sequence[Image.Image | NoPicture | None], job: Job) -> Done:
    """Write what was made and note what failed."""
    written = size = 0
    failed = list(loaded.failed)
    for id, path, reason in loaded.failed:
        _note_failure(job, id, path, reason)
    for place, (item, picture, note) in enumerate(zip(loaded.items, pictures, loaded.provenance, strict=True)):
        if not loaded.wanted[place]:
            continue
        if isinstance(picture, Image.Image):
            number = picture.info.get(ATTEMPT, 0)
            size += write_counterpart(job.out, item.id, picture, {**note, **({ATTEMPT: number} if number else {})})
            written += 1
            continue
        attempts = loaded.first[place] + ATTEMPTS
        why = f": {picture.reason}" if isinstance(picture, NoPicture) else ""
        reason = f"{job.choice.name} gave no picture in {attempts} attempts{why}"
        _note_failure(job, item.id, item.path, reason, attempts=attempts, tried=note)
        failed.append((item.id, item.path, reason))
    return Done(written, loaded.kept, (*failed, *loaded.given_up), size)


def _note_failure(job: Job, id: str, path: str, reason: str, **more: Any) -> None:
    image_path(job.out, id).unlink(missing_ok=True)  # of an earlier content of the source
    atomic_write_json(failure_path(job.out, id), {"id": id, "path": path, "reason": reason, **more})


def run_batch(batch: Sequence[Item], job: Job, translator: Translator) -> Done:
    """Read, translate and write one batch."""
    loaded = load_batch(batch, job)
    return write_batch(loaded, translate_batch(loaded, job, translator), job)
