"""An IP-Adapter's files: found, read without running code, and checked against the model before they are put in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import fingerprint
from isthmus.translate.diffusion.explain import explain_loading, first_line
from isthmus.translate.diffusion.weights import TEXTS, WEIGHTS, files_identity, looks_like_path


@dataclass(frozen=True)
class Adapter:
    """Where an adapter is: the file with its weights and the folder of the CLIP image encoder it was trained with."""

    file: Path
    encoder: Path

    @property
    def identity(self) -> str:
        """A hash of the weights of both."""
        files = [path for path in self.encoder.iterdir() if path.suffix in (*WEIGHTS, *TEXTS)]
        return fingerprint([files_identity([self.file], self.file.parent), files_identity(files, self.encoder)])


def locate_adapter(
    name: str, subfolder: str, weights: str, encoder: str, *, revision: str | None = None, local: bool = False
) -> Adapter:
    """The files of an adapter.

    Args:
        name: a file, a folder or a hub id.
        subfolder, weights: the file within a folder or hub repository.
        encoder: the image encoder's folder: a path, or beside the file, or (with a "/") within the repository.
        revision: of a hub id.
        local: don't ask the hub.

    Raises:
        IsthmusError: something is not there.
    """
    root = Path(name).expanduser()
    if root.is_file():
        return Adapter(root, _encoder(encoder, root.parent, root.parent, name))
    if not root.is_dir():
        if looks_like_path(name):
            raise IsthmusError(
                f"There is no IP-Adapter {name}: check the setting adapter, or give a hub id (owner/name)."
            )
        root = _download(name, subfolder, weights, encoder, revision, local)
    # A folder may be the repository, or the subfolder itself.
    places = [folder for folder in (root / subfolder, root) if (folder / weights).is_file()]
    if not places:
        found = sorted(path.relative_to(root).as_posix() for end in WEIGHTS for path in root.rglob(f"*adapter*{end}"))
        raise IsthmusError(
            f"{name} has no file {subfolder}/{weights}: set adapter_weights (and adapter_subfolder); "
            f"there are: {', '.join(found[:8]) or 'none'}."
        )
    return Adapter(places[0] / weights, _encoder(encoder, places[0], root, name))


def _encoder(encoder: str, beside: Path, root: Path, name: str) -> Path:
    for folder in (beside / encoder, root / encoder, Path(encoder).expanduser()):
        if (folder / "config.json").is_file():
            return folder
    raise IsthmusError(
        f"{name} has no image encoder in {encoder}: set image_encoder to the folder of the CLIP image encoder "
        "that the adapter was trained with."
    )


def _download(name: str, subfolder: str, weights: str, encoder: str, revision: str | None, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    folder = encoder if "/" in encoder else f"{subfolder}/{encoder}"
    wanted = [f"{subfolder}/{weights}", f"{folder}/*.json"]
    with explain_loading(f"IP-Adapter {name!r}"):
        for suffix in WEIGHTS:  # safetensors; the other kind only where there is none
            patterns = [*wanted, f"{folder}/*{suffix}"]
            root = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local))
            if any((root / folder).glob(f"*{suffix}")):
                break
    return root


def read_adapter(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors of an adapter: {"image_proj": {...}, "ip_adapter": {"1.to_k_ip.weight": (inner, width), ...}}.

    Raises:
        IsthmusError: no adapter's file, or one for faces, which needs more than an image.
    """
    try:
        state = _tensors(file)
    except Exception as error:
        raise IsthmusError(f"{file} can't be read as weights: {first_line(error)}") from error
    parts = {part: state.get(part) for part in ("image_proj", "ip_adapter")}
    if not all(isinstance(tensors, dict) and tensors for tensors in parts.values()):
        raise IsthmusError(f"{file} is no IP-Adapter (it lacks image_proj and ip_adapter): check adapter_weights.")
    found = {part: dict(tensors or {}) for part, tensors in parts.items()}
    if any("lora" in key for key in found["ip_adapter"]):
        raise IsthmusError(f"{file} is a FaceID adapter, which needs face embeddings: take a plain IP-Adapter.")
    return found


def _tensors(file: Path) -> dict[str, Any]:
    if file.suffix != ".safetensors":
        import torch

        found = torch.load(file, map_location="cpu", weights_only=True)
        return found if isinstance(found, dict) else {}
    from safetensors.torch import load_file

    state: dict[str, Any] = {}
    for key, tensor in load_file(file).items():
        part, _, rest = key.partition(".")
        state.setdefault(part, {})[rest] = tensor
    return state


def check_adapter(state: dict[str, dict[str, Any]], unet: Any, encoder: Any, file: Path) -> None:
    """Refuse an adapter that was made for another model or another image encoder.

    Args:
        state: see `read_adapter`.
        unet: of the model.
        encoder: CLIP image encoder.
        file: named in the errors.
    """
    weights = state["ip_adapter"]
    # The numbers follow the attention processors: self-attention has the even ones.
    layers = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    width = unet.config.cross_attention_dim
    known = unet.state_dict()
    for place, layer in enumerate(layers):
        key = f"{2 * place + 1}.to_k_ip.weight"
        inner = known[layer.replace(".processor", ".to_k.weight")].shape[0]
        shape = tuple(weights[key].shape) if key in weights else None
        if shape != (inner, width) or len(weights) != 2 * len(layers):
            raise IsthmusError(
                f"{file} is an IP-Adapter for another model: {len(weights) // 2} layers, {key} {shape}, where this "
                f"model has {len(layers)} and {(inner, width)}; take the adapter for this model (SD 1.5 or SDXL)."
            )
    projection = state["image_proj"]
    for key, size in (
        ("proj.weight", encoder.config.projection_dim),
        ("proj_in.weight", encoder.config.hidden_size),
        ("proj.0.weight", encoder.config.hidden_size),
    ):
        if key in projection and projection[key].shape[1] != size:
            raise IsthmusError(
                f"{file} was trained with another image encoder (width {projection[key].shape[1]}, here {size}): "
                "set image_encoder to that one's folder."
            )
