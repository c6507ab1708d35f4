"""The model that training makes and everything else uses: a folder with weights, preprocessing, domains and means."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.config.sizes import Sides, compact
from isthmus.data.images import ImageError, load_image
from isthmus.data.loading import prefetch
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.io import atomic_folder, canonical_json, explain_os_errors, read_json
from isthmus.models.backbones import preprocessing_of, read_weights
from isthmus.models.card import refuse_translator
from isthmus.models.hub import local
from isthmus.models.modules import Encoder, Towers, active_domain, build_encoder
from isthmus.models.precision import Precision, set_precision
from isthmus.models.similarity import similarity
from isthmus.ops import normalise
from isthmus.process import keep_memory
from isthmus.progress import track

BESIDE = ("domains.json", "calibration.json")
FORMAT = 1
Source = str | Path | Image.Image | bytes


_LATER: tuple[tuple[str, Any], ...] = (
    ("softmax", False), ("beliefs", 0), ("belief_share", 0.0), ("stages", 0), ("stages_share", 0.0), ("stager", False),
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """What is needed to build the network again without its weights.

    Attributes:
        image_size: a side or (height, width).
        softmax: whether the projection ends in one: its outputs are class probabilities.
        beliefs: how many class probabilities a vector holds besides (`JoinedHead`), `belief_share` their weight.
        stages: how many of the network's last stages the embedding holds besides, `stages_share` their weight in it.
        stager: whether these come from a network of their own.
    """

    backbone: str
    dim: int
    image_size: Sides
    domain_norm: bool = False
    neck: bool = False
    towers: bool = False
    drop_stages: int = 0
    grid: int = 1
    softmax: bool = False
    beliefs: int = 0
    belief_share: float = 0.0
    stages: int = 0
    stages_share: float = 0.0
    stager: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", compact(self.image_size))

    @property
    def begin(self) -> int:
        """Where the embedding begins in a vector: behind the probabilities and their two further places."""
        return self.beliefs + 2 if self.beliefs else 0

    def description(self) -> dict[str, Any]:
        """As `config.json` has it: what came later is written only where it is used, so fingerprints stay."""
        values = asdict(self)
        for name, usual in (("neck", False), ("towers", False), ("drop_stages", 0), ("grid", 1), *_LATER):
            if values[name] == usual:
                values.pop(name)
        return values


@dataclass
class Model:
    """An encoder for two domains, with its preprocessing and each domain's training mean.

    Attributes:
        architecture: what the network is built from.
        encoder: the network, one for both domains or a tower for each.
        preprocessing: how an image becomes its input.
        domains: names of the query domain and the gallery domain.
        means: (2, dim), the mean embedding of each domain's training images; zeros where unknown.
        centring: whether `encode` subtracts the mean by default.
        provenance: method, settings, data and scores, as training left them.
        precision: that `encode` computes in. bfloat16 is much quicker where the processor has it (GPUs, newer CPUs),
            and moves cosines by some thousandths; what is stored is float32 in either.
        beside: small files of its folder that belong to it and are kept as they are: how its domains are told apart,
            from which score on a hit is a match.
    """

    architecture: Architecture
    encoder: Encoder | Towers
    preprocessing: Preprocessing
    domains: tuple[str, str]
    means: Tensor
    centring: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    precision: Precision = field(default="float32", compare=False)

    @classmethod
    def create(
        cls,
        architecture: Architecture,
        domains: tuple[str, str],
        *,
        weights: str = "pretrained",
        resize: Sides | None = None,
        centring: bool = True,
        filters: tuple[str, str] = ("none", "none"),
    ) -> Model:
        """A model around a fresh backbone; `weights` as in `create_backbone`, `filters` as in `Preprocessing`."""
        encoder = build_encoder(weights=weights, **asdict(architecture))
        preprocessing = preprocessing_of(encoder.backbone, architecture.image_size, resize, filters)
        return cls(architecture, encoder, preprocessing, domains, torch.zeros(2, encoder.dim), centring)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.encoder.dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @property
    def main(self) -> torch.nn.Module:
        """The network whose speed is the run's: images to vectors."""
        return self.encoder

    def modules(self) -> dict[str, torch.nn.Module]:
        """What is trained, by the name of its optimiser."""
        return {"encoder": self.encoder}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any weight, mean or preprocessing setting."""
        digest = hashlib.sha256(canonical_json(self._description()).encode())
        for name, value in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def domain_index(self, domain: str) -> int:
        """0 for the query domain, 1 for the gallery domain; anything else is an error that names both."""
        if domain not in self.domains:
            raise IsthmusError(f"The model has no domain '{domain}'; its domains are {' and '.join(self.domains)}.")
        return self.domains.index(domain)

    @torch.inference_mode()
    def embed(self, views: Tensor, domain: int, *, autocast: bool = False) -> Tensor:
        """Unit vectors float32 (n, dim) of filtered views uint8 (n, 3, height, width), not centred."""
        self.encoder.eval()
        images = self.preprocessing.normalise(views.to(self.device)).contiguous(memory_format=torch.channels_last)
        with active_domain(self.encoder, domain), torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return self.encoder(images)  # type: ignore[no-any-return]

    def centre(self, vectors: Tensor, domain: int) -> Tensor:
        """Subtract the domain's mean from unit vectors (n, dim) and make them unit again."""
        return normalise(vectors - self.means[domain].to(vectors))

    @overload
    def encode(
        self, images: Source | Sequence[Source], *, domain: str, batch_size: int = ..., workers: int = ...,
        centring: bool | None = ..., progress: bool = ..., on_bad: Literal["raise", "skip"] = ...,
        convert_to_tensor: Literal[False] = ...,
    ) -> np.ndarray[Any, np.dtype[np.float32]]: ...  # fmt: skip
    @overload
    def encode(
        self, images: Source | Sequence[Source], *, domain: str, batch_size: int = ..., workers: int = ...,
        centring: bool | None = ..., progress: bool = ..., on_bad: Literal["raise", "skip"] = ...,
        convert_to_tensor: Literal[True],
    ) -> Tensor: ...  # fmt: skip
    def encode(
        self,
        images: Source | Sequence[Source],
        *,
        domain: str,
        batch_size: int = 64,
        workers: int = 2,
        centring: bool | None = None,
        progress: bool = False,
        on_bad: Literal["raise", "skip"] = "raise",
        convert_to_tensor: bool = False,
    ) -> np.ndarray[Any, np.dtype[np.float32]] | Tensor:
        """Embed images of one domain.

        Args:
            images: paths, bytes or PIL images; or one alone.
            domain: one of `domains`.
            batch_size: images a forward pass.
            workers: decoding threads.
            centring: subtract the domain's training mean; the model's own setting if None.
            progress: show progress on standard error.
            on_bad: `"raise"` at an unreadable image, or `"skip"`: its row is NaN.
            convert_to_tensor: give a torch tensor (on the CPU) instead of an array.

        Returns:
            float32 (n, dim) of unit length, in the order of `images`; (dim,) for one image alone.

        Raises:
            IsthmusError: unknown domain, or an unreadable image.

        Example:
            >>> model = isthmus.load("runs/pacs")                                           # doctest: +SKIP
            >>> model.encode(["cat.png"], domain="sketch").shape                            # doctest: +SKIP
            (1, 512)
            >>> model.encode("cat.png", domain="sketch").shape                              # doctest: +SKIP
            (512,)
        """
        if isinstance(images, str | Path | bytes | Image.Image):
            alone = self.encode(
                [images], domain=domain, workers=0, centring=centring, progress=progress, on_bad=on_bad,
                convert_to_tensor=True,
            )[0]  # fmt: skip
            return alone if convert_to_tensor else alone.numpy()
        index = self.domain_index(domain)
        vectors = torch.full((len(images), self.dim), float("nan"))

        def read(part: range) -> tuple[list[int], Tensor]:
            kept, views = [], []
            for position in part:
                with contextlib.suppress(ImageError) if on_bad == "skip" else contextlib.nullcontext():
                    image = load_image(images[position], min_side=self.preprocessing.min_side)
                    views.append(self.preprocessing(image, index))
                    kept.append(position)
            return kept, torch.stack(views) if views else self.preprocessing.blank(0)

        parts = [range(start, min(len(images), start + batch_size)) for start in range(0, len(images), batch_size)]
        batches: Iterable[tuple[list[int], Tensor]] = prefetch(parts, read, workers, ahead=workers + 1)
        if progress:
            batches = track(batches, len(images), "embedding", per_item=batch_size)
        for kept, views in batches:
            if kept:
                vectors[kept] = self.embed(views, index, autocast=self.precision == "bfloat16").cpu()
        if self.centring if centring is None else centring:
            vectors = self.centre(vectors, index)
        return vectors if convert_to_tensor else vectors.numpy()

    similarity = staticmethod(similarity)

    def save(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and `README.md`; the old folder stays until the new is whole."""
        from safetensors.torch import save

        from isthmus.models.card import model_card

        with atomic_folder(folder) as scratch, explain_os_errors(folder):
            config = {
                **self._description(),
                **self._more(),
                "fingerprint": self.fingerprint,
                "provenance": self.provenance,
            }
            (scratch / "config.json").write_text(_pretty(config), encoding="utf-8")
            # Not save_file: what it raises on a full disk says neither which file nor, to a program, why.
            tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self._tensors().items()}
            (scratch / "model.safetensors").write_bytes(save(tensors))
            (scratch / "README.md").write_text(model_card(config), encoding="utf-8")
            for name, content in self.beside.items():
                (scratch / name).write_bytes(content)
            self._save_more(scratch)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model folder, a run folder that holds one, an exported folder, or `hf://owner/name[@revision]`."""
        keep_memory()
        path = local(path)
        folder = Path(path)
        if (folder / "model" / "config.json").is_file():
            folder = folder / "model"
        if not (folder / "config.json").is_file():
            raise IsthmusError(f"{path} is no model: there is no config.json in it; name a run or a model folder.")
        config = read_json(folder / "config.json")
        refuse_translator(config, path)
        if isinstance(config, dict) and config.get("kind") == "export":
            from isthmus.models.exported import load_export

            return load_export(folder, config)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise IsthmusError(f"{folder}/config.json is not of a model that this version reads (format {FORMAT}).")
        try:
            architecture = Architecture(**_tuples(config["architecture"]))
            preprocessing = Preprocessing(**_tuples(config["preprocessing"]))
            domains = (str(config["domains"][0]), str(config["domains"][1]))
            centring, provenance = bool(config["centring"]), dict(config.get("provenance", {}))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise IsthmusError(f"{folder}/config.json is incomplete ({error}); make the model anew.") from error
        encoder = build_encoder(weights="random", **asdict(architecture))
        tensors = read_weights(folder / "model.safetensors")
        means = tensors.pop("means", torch.empty(0))
        try:
            encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in tensors.items()})
            if means.shape != (2, encoder.dim):
                raise RuntimeError(f"means of shape {tuple(means.shape)}")
        except RuntimeError as error:
            raise IsthmusError(f"{folder}/model.safetensors does not fit its config.json; fetch both again.") from error
        encoder.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        beside = {name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()}
        return cls(architecture, encoder, preprocessing, domains, means, centring, provenance, beside)

    def _more(self) -> dict[str, Any]:
        """What a kind of model adds to `config.json`."""
        return {}

    def _save_more(self, scratch: Path) -> None:
        """What a kind of model keeps beside the encoder."""

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "architecture": self.architecture.description(),
            "preprocessing": self.preprocessing.description(),
            "domains": list(self.domains),
            "centring": self.centring,
        }

    def _tensors(self) -> dict[str, Tensor]:
        return {**{f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}, "means": self.means}


def load(path: str | Path, *, precision: Precision = "float32") -> Model:
    """Load a trained model from a run folder, a model folder, an exported folder or the Hugging Face hub.

    Args:
        path: the folder, or `hf://owner/name[@revision]`.
        precision: that `encode` computes in, float32 or bfloat16; see `Model`.

    Raises:
        IsthmusError: there is no model, it is damaged, or no such precision.

    Example:
        >>> model = isthmus.load("runs/pacs", precision="bfloat16")                         # doctest: +SKIP
    """
    model = Model.load(path)
    set_precision(model, precision)
    return model


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _pretty(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
