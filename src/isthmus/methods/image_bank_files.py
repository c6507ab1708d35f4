"""Generated images as a file beside a finished run, for other students to learn from."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes
from isthmus.methods.image_bank import ImageBank
from isthmus.models.teachers import Teachers

FILE = "bank.safetensors"
FORMAT = "isthmus-bank-1"


def save_bank(bank: ImageBank, teachers: Teachers, folder: Path) -> None:
    """Write the bank's images and the classes that they were made as, all or nothing.

    Args:
        bank: of the run.
        teachers: their common label space is what the codes mean.
        folder: of the run.
    """
    state = bank.state()
    said = {"format": FORMAT, "classes": list(teachers.classes), "domains": list(teachers.names)}
    tensors = {"images": state["images"].contiguous(), "codes": state["codes"].contiguous()}
    atomic_write_bytes(folder / FILE, serialise(tensors, metadata={"isthmus": json.dumps(said)}))


def load_bank(run: str, teachers: Teachers) -> ImageBank:
    """The images that a finished run left.

    Args:
        run: its folder, or the file.
        teachers: of the run that is to learn from them: classes are matched by name.

    Returns:
        A bank with room for no more; classes that these teachers don't know have the code -1.

    Raises:
        IsthmusError: there is no such file, or it is none, or its domains are others.
    """
    path = Path(run) / FILE if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise IsthmusError(
            f"data_free.bank = {run}: there is no {path.name} there; name a finished run with "
            "data_free.images=generators or inverted."
        )
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get("isthmus", "{}"))
            images, codes = (file.get_tensor(name) for name in ("images", "codes"))
    except (SafetensorError, OSError, ValueError) as error:
        raise IsthmusError(f"data_free.bank = {run}: {path} holds no generated images ({error}).") from None
    if said.get("format") != FORMAT:
        raise IsthmusError(f"data_free.bank = {run}: {path} was not written by this version of Isthmus.")
    if tuple(said["domains"]) != teachers.names:
        raise IsthmusError(
            f"data_free.bank = {run} holds images of {' and '.join(said['domains'])}, not of "
            f"{' and '.join(teachers.names)}; set data_free.names alike."
        )
    places = {name: code for code, name in enumerate(teachers.classes)}
    table = torch.tensor([places.get(name, -1) for name in said["classes"]] + [-1])
    if not images.shape[1]:
        raise IsthmusError(f"data_free.bank = {run}: {path} is empty.")
    return ImageBank.of(images, table[codes])
