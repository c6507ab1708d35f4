"""Networks given as programs: files of torch.export, looked through before they are opened, and trusted TorchScript."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import IsthmusError
from isthmus.models.classifier_network import Answers

# What a program of torch.export may call; anything else that can be reached from `torch` could be anything at all.
_CALLS = re.compile(r"torch\.ops\.aten\.(?!__)\w+\.(?!__)\w+|torch\.sym_\w+")
_OPERATOR = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
# Sizes, written as sympy writes them. They are evaluated when the file is read.
_SIZES = re.compile(
    r"(?:Symbol\('[suzfi]+\d+'(?:, \w+=(?:True|False))*\)|[suzfi]+\d+|\d+|[\s+*/(),<>=-]"
    r"|Integer|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|Eq|Ne|Le|Lt|Ge|Gt)*"
)
_NAME = re.compile(r"[\w.\[\]]*")
_OBJECTS = ("as_custom_obj", "as_operator", "as_graph", "default_factory_module")


class ProgramNetwork(nn.Module):
    """A program as a network; normalised images (n, 3, h, w) become `Answers`.

    Args:
        program: returns logits, or logits and features.
        outputs: what it returns, `["logits"]` or `["logits", "features"]`.
        head: name of the final linear layer in its state dict, where known.
        digest: of the file, for the fingerprint.
    """

    def __init__(self, program: nn.Module, outputs: tuple[str, ...], head: str | None, digest: str) -> None:
        super().__init__()
        self.program = program
        self.outputs, self.head, self.digest = outputs, head, digest

    def train(self, mode: bool = True) -> ProgramNetwork:
        """Note the mode alone: a program of torch.export has one for good, and raises where it is told another."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Answers:
        """(n, 3, h, w) normalised -> `Answers`, float32; features (n, 0) where the program doesn't return them."""
        made = self.program(images)
        parts = [made] if isinstance(made, Tensor) else list(made)
        if len(parts) != len(self.outputs) or not all(isinstance(part, Tensor) for part in parts):
            raise ValueError(f"it returns {len(parts)} values, but outputs = [{', '.join(self.outputs)}]")
        found = dict(zip(self.outputs, parts, strict=True))
        logits = found["logits"].float()
        return Answers(logits, found["features"].float() if "features" in found else logits.new_empty(len(logits), 0))

    def linear(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias of the named head; None where none is named."""
        if self.head is None:
            return None
        state = self.program.state_dict()
        if f"{self.head}.weight" not in state:
            layers = sorted(key.removesuffix(".weight") for key, value in state.items() if is_linear(key, value))
            known = f"its layers of that kind: {', '.join(layers[-8:])}" if layers else "it has no layer of that kind"
            raise IsthmusError(f"The program has no final linear layer '{self.head}' ({known}); mend head.")
        return state[f"{self.head}.weight"], state.get(f"{self.head}.bias")


def is_linear(key: str, value: Tensor) -> bool:
    """Whether a tensor of a state dict looks like the weight of a linear layer."""
    return key.endswith(".weight") and value.ndim == 2


def load_exported(path: Path, outputs: tuple[str, ...], head: str | None, *, trust: bool) -> ProgramNetwork:
    """A program that `torch.export.save` wrote.

    Args:
        path: the `.pt2` file.
        outputs, head: as in `ProgramNetwork`.
        trust: open it without a look at what it calls.

    Raises:
        IsthmusError: it can't be read, or without `trust` calls more than PyTorch's tensor operators.
    """
    if not trust:
        _look_through(path)
    try:
        with contextlib.nullcontext() if trust else _tensors_only():
            program = torch.export.load(path).module()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise IsthmusError(
            f"The program {path} can't be read ({reason}); write it with torch.export.save of this version of PyTorch "
            f"({torch.__version__.partition('+')[0]})."
        ) from error
    return ProgramNetwork(program, outputs, head, _digest(path))


def load_script(path: Path, outputs: tuple[str, ...], head: str | None, *, trust: bool) -> ProgramNetwork:
    """A TorchScript file; without `trust` an error, for it may do anything."""
    if not trust:
        raise IsthmusError(
            f"{path} is TorchScript, which may do anything on this machine: allow it with --trust if you trust its "
            "maker, or give a program of torch.export or a timm backbone with its weights."
        )
    try:
        program = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise IsthmusError(f"The TorchScript {path} can't be read ({reason}); save it anew.") from error
    return ProgramNetwork(program, outputs, head, _digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Within the block torch unpickles tensors only: its reader of programs falls back to any object otherwise."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _look_through(path: Path) -> None:
    """Refuse a program that names anything but tensor operators: names in the file become calls when it runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            texts = [json.loads(archive.read(name)) for name in names if name.endswith(".json")]
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise IsthmusError(
            f"The program {path} can't be read ({error}); write it with torch.export.save(program, 'FILE.pt2')."
        ) from error
    code = next((name for name in names if "aotinductor" in name or name.endswith((".so", ".o", ".dll", ".py"))), None)
    strange = f"holds compiled code ({code})" if code else next((s for text in texts for s in _strange(text)), None)
    if not texts:
        strange = "holds no program of torch.export"
    if strange:
        raise IsthmusError(
            f"The program {path} {strange}: only PyTorch's tensor operators are run unseen; allow it with --trust if "
            "you trust its maker."
        )


def _strange(value: Any) -> Iterator[str]:
    """What in a program's description may do more than compute with tensors."""
    if isinstance(value, list):
        for part in value:
            yield from _strange(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in _OBJECTS:
                yield f"holds objects ({key})"
            elif key == "target" and isinstance(part, str) and "inputs" in value:
                if not _CALLS.fullmatch(part) and not _OPERATOR.fullmatch(part):
                    yield f"calls {part}"
            elif key == "expr_str" and not _SIZES.fullmatch(str(part)):
                yield f"computes a size as {str(part)[:40]!r}"
            elif key in ("name", "parameter_name", "buffer_name") and not _NAME.fullmatch(str(part or "")):
                yield f"has the name {str(part)[:40]!r}"
            elif isinstance(part, str) and "default_factory" in part:
                yield "holds objects (default_factory)"
            else:
                yield from _strange(part)
