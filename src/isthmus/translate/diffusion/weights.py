"""Where a model's files are, whether they are all there, and which ones they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import fingerprint, read_json
from isthmus.translate.diffusion.explain import explain_loading, need_diffusers
from isthmus.translate.diffusion.settings import DiffusionSettings

INDEX = "model_index.json"
WEIGHTS = (".safetensors", ".bin")
TEXTS = (".json", ".txt", ".model")
WHOLE = 1 << 20  # bytes up to which a file is hashed whole
PART = 1 << 18  # bytes hashed at the start, the middle and the end of a larger one


def looks_like_path(name: str) -> bool:
    """Whether `name` can only be a path: a hub id is `owner/name`.

    Example:
        >>> looks_like_path("./sd"), looks_like_path("owner/name"), looks_like_path("a/b/c")
        (True, False, True)
    """
    return name.startswith((".", "~", "/")) or name.count("/") != 1 or "\\" in name


def locate_model(settings: DiffusionSettings) -> Path:
    """The folder with the model's files; those of a hub id are downloaded first.

    Raises:
        IsthmusError: no such folder, not in diffusers' layout, incomplete, or the hub can't be reached.
    """
    need_diffusers()
    name = settings.model
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_model(folder, settings.variant, settings.safety_checker)
        return folder
    if folder.exists():
        raise IsthmusError(
            f"model={name} is a single file: give a folder in diffusers' layout (with {INDEX}), "
            "as DiffusionPipeline.from_single_file(...).save_pretrained(FOLDER) writes it."
        )
    if looks_like_path(name):
        raise IsthmusError(f"There is no model folder {name}: check the setting model, or give a hub id (owner/name).")
    from diffusers import DiffusionPipeline

    with explain_loading(f"model {name!r}"):
        # Without trust_remote_code a repository's own Python files are neither fetched nor run.
        found = DiffusionPipeline.download(
            name, revision=settings.revision, variant=settings.variant, local_files_only=settings.local_files_only
        )
    check_model(Path(found), settings.variant, settings.safety_checker)
    return Path(found)


def model_index(folder: Path) -> dict[str, Any]:
    """The description of a pipeline: its class and parts; a folder without one is an `IsthmusError`."""
    if not (folder / INDEX).is_file():
        raise IsthmusError(
            f"The model folder {folder} holds no {INDEX}: give a folder as diffusers' save_pretrained writes it."
        )
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise IsthmusError(f"{folder / INDEX} describes no diffusers pipeline: give another model folder.")
    return index


def parts_of(folder: Path) -> dict[str, str]:
    """name -> class of the parts that the pipeline has."""
    found = {}
    for name, value in model_index(folder).items():
        if isinstance(value, list) and len(value) == 2 and value[0] is not None:
            found[name] = str(value[1])
    return found


def part_config(folder: Path, part: str) -> Mapping[str, Any]:
    """`config.json` of a part; empty where there is none."""
    path = folder / part / "config.json"
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def check_model(folder: Path, variant: str | None, safety_checker: bool = True) -> None:
    """Refuse a folder that lacks a part or its weights: found now, not minutes into loading."""
    parts = parts_of(folder)
    if variant is not None and not any(_of_variant(folder / name, variant) for name in parts):
        raise IsthmusError(f"The model folder {folder} has no weights of variant {variant}: leave that setting out.")
    for name in parts:
        if name == "safety_checker" and not safety_checker:
            continue
        part = folder / name
        if not part.is_dir():
            raise IsthmusError(f"The model folder {folder} is incomplete: it has no folder {name}; copy it whole.")
        if (part / "config.json").is_file() and not any(_weights(part, variant)):
            raise IsthmusError(f"The model folder {folder} is incomplete: {name} has no weights; copy it whole.")


def _weights(folder: Path, variant: str | None) -> list[Path]:
    """The weight files that diffusers will read: safetensors where there are any, of the variant where one is named."""
    named = _of_variant(folder, variant) if variant is not None else []
    for suffix in WEIGHTS:
        if found := [path for path in named if path.suffix == suffix]:
            return found
        # A plain name has no dot before the suffix: another one is a variant.
        if found := sorted(path for path in folder.glob(f"*{suffix}") if "." not in path.name.removesuffix(suffix)):
            return found
    return []


def _of_variant(folder: Path, variant: str) -> list[Path]:
    """Weight files such as model.fp16.safetensors and model.fp16-00001-of-00002.safetensors."""
    return sorted(path for path in folder.glob(f"*.{variant}*") if path.suffix in WEIGHTS)


def model_identity(folder: Path, variant: str | None = None) -> str:
    """A hash of the files that decide a model's pictures: configs whole, weights by size, start, middle and end.

    It depends on neither the folder's place nor files that are not read, so that it is the same on every machine.
    """
    files = [folder / INDEX]
    for name in sorted(parts_of(folder)):
        files += sorted(path for path in (folder / name).glob("*") if path.suffix in TEXTS and path.is_file())
        files += _weights(folder / name, variant)
    return files_identity(files, folder)


def files_identity(files: Iterable[Path], root: Path) -> str:
    """A hash of the files' names below `root` and contents (see `model_identity`)."""
    return fingerprint({path.relative_to(root).as_posix(): _hash(path) for path in files})


def _hash(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            for start in (0, size // 2, size - PART):
                file.seek(start)
                digest.update(file.read(PART))
    return digest.hexdigest()
