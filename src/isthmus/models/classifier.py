"""Classifiers: images to class scores and what their last layer sees. They teach in data-free training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.config.sizes import Sides, sides
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.io import atomic_folder, atomic_write_json, atomic_write_text, canonical_json, explain_os_errors
from isthmus.models.backbones import create_backbone, preprocessing_of
from isthmus.models.classifier_network import Answers, TimmNetwork, as_timm_says, build_network

__all__ = ["Answers", "Classifier"]

FORMAT = 1
KIND = "classifier"
Kind = Literal["label", "modality"]


@dataclass
class Classifier:
    """A network that names what it sees, with everything needed to ask it.

    Attributes:
        network: normalised images (n, 3, h, w) -> `Answers`.
        classes: unique names, in the order of the logits.
        preprocessing: size, mean and standard deviation of the input.
        backbone: timm's name; None: the network is a program (torch.export or TorchScript).
        kind: `"label"`, or `"modality"`: its classes are domains.
        domains: what it was trained on; empty: unknown.
        where: where it was read, for messages.
        provenance: what is known of its training, `accuracy` on validation images where measured.

    Example:
        >>> teacher = Classifier.load("runs/photo-classifier")                              # doctest: +SKIP
        >>> logits, features = teacher.answer(torch.rand(8, 3, 64, 64))                     # doctest: +SKIP
    """

    network: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    backbone: str | None = None
    kind: Kind = "label"
    domains: tuple[str, ...] = ()
    where: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise IsthmusError(f"{self._name} has the class '{twice[0]}' twice; give each a name of its own.")
        if not all(name.strip() for name in self.classes):
            raise IsthmusError(f"{self._name} has a class without a name; name each.")
        if len(self.classes) < 2:
            raise IsthmusError(f"{self._name} knows {len(self.classes)} class; a classifier needs 2 at least.")

    @classmethod
    def create(
        cls,
        backbone: str,
        classes: tuple[str, ...],
        image_size: Sides,
        *,
        weights: str = "pretrained",
        resize: Sides | None = None,
        kind: Kind = "label",
        domains: tuple[str, ...] = (),
    ) -> Classifier:
        """A classifier with a fresh head around a backbone; `weights` as in `create_backbone`, with its errors."""
        body = create_backbone(backbone, weights, image_size)
        network = build_network(backbone, len(classes), image_size)
        left = network.backbone.load_state_dict(body.state_dict(), strict=False).missing_keys
        if any(not name.startswith(f"{network.head_name}.") for name in left):
            raise IsthmusError(f"The backbone '{backbone}' has more than one layer in its head; choose another.")
        # timm's own start, made for 1000 classes, is far too sure of itself with a few: some dozen steps go into that.
        nn.init.normal_(network.head.weight, std=0.01)
        if network.head.bias is not None:
            nn.init.zeros_(network.head.bias)
        preprocessing = preprocessing_of(network.backbone, image_size, resize)
        return cls(network, classes, preprocessing, backbone, kind, domains)

    @classmethod
    def load(cls, path: str | Path, *, trust: bool = False) -> Classifier:
        """Read a run, a model folder, or a YAML description beside weights or a program; frozen, in evaluation mode.

        Args:
            path: a run of `isthmus train --method classifier`, its `model` folder, a folder in timm's own layout with
                `label_names`, or a description (docs/teachers.md).
            trust: run TorchScript, and programs of more than PyTorch's own operators; they may do anything.

        Raises:
            IsthmusError: it is none of these, its files are missing or don't fit each other, or it answers NaN.
        """
        from isthmus.models.classifier_files import load_classifier

        return load_classifier(path, trust=trust)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = next(iter(self.network.state_dict().values()), None)
        return torch.device("cpu") if tensors is None else tensors.device

    @property
    def main(self) -> nn.Module:
        """The network whose speed is the run's: images to logits."""
        return self._timm("trained").backbone

    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the name of its optimiser."""
        return {"classifier": self.network}

    def to(self, device: torch.device | str) -> Classifier:
        """Move the weights; returns itself."""
        self.network.to(device)
        return self

    def answer(self, images: Tensor) -> Answers:
        """Logits and features of images, differentiable with respect to them; the network in evaluation mode.

        Args:
            images: float (n, 3, h, w) in [0, 1], on the classifier's device, of any size: resized (bilinear,
                antialiased) to its own where that differs, then normalised by its own mean and standard deviation.

        Raises:
            ValueError: another shape or type.

        Example:
            >>> logits, features = teacher.answer(images)                                   # doctest: +SKIP
            >>> logits.shape, features.shape                                                # doctest: +SKIP
            (torch.Size([8, 7]), torch.Size([8, 1280]))
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images are float (n, 3, h, w) in [0, 1], not {images.dtype} {tuple(images.shape)}")
        size = sides(self.preprocessing.size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        inputs = (images - mean) / std
        if self.backbone is not None:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        answers: Answers = self.network.eval()(inputs)
        return answers

    def head(self) -> tuple[Tensor, Tensor]:
        """Weights (c, d) and bias (c,) of the final linear layer, detached; row k belongs to `classes[k]`.

        Raises:
            IsthmusError: it is a program whose description names no `head`.
        """
        if isinstance(self.network, TimmNetwork):
            weight, bias = self.network.head.weight, self.network.head.bias
        else:
            found = self.network.linear()  # type: ignore[operator]
            if found is None:
                raise IsthmusError(
                    f"{self._name} is a program without a named final linear layer; name it in its description, as "
                    "in  head: fc"
                )
            weight, bias = found
        bias = torch.zeros(len(weight), device=weight.device) if bias is None else bias
        return weight.detach().float(), bias.detach().float()

    def norms(self) -> list[_BatchNorm]:
        """Its batch norms with running statistics, in the order of the network; none of a program."""
        if not isinstance(self.network, TimmNetwork):
            return []
        return [m for m in self.network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]

    def backbone_state(self) -> dict[str, Tensor]:
        """The weights without the head, for `load_state_dict` of a `create_backbone(self.backbone, ...)`.

        Raises:
            IsthmusError: it is a program.
        """
        network = self._timm("taken apart for its weights")
        prefix = f"{network.head_name}."
        return {k: v.detach().clone() for k, v in network.backbone.state_dict().items() if not k.startswith(prefix)}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any weight, class name or preprocessing setting."""
        digest = hashlib.sha256(canonical_json(self._description()).encode())
        digest.update(str(getattr(self.network, "digest", "")).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` in timm's own names and `README.md`, whole or not at all.

        The folder is also one that timm reads: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

        Raises:
            IsthmusError: it is a program, or the folder can't be written.
        """
        from safetensors.torch import save

        from isthmus.models.card import classifier_card

        network = self._timm("saved")
        with atomic_folder(folder) as scratch, explain_os_errors(folder):
            config = {**self._description(), "fingerprint": self.fingerprint, "provenance": self.provenance}
            atomic_write_json(scratch / "config.json", config)
            state = {k: v.detach().cpu().contiguous().clone() for k, v in network.backbone.state_dict().items()}
            (scratch / "model.safetensors").write_bytes(save(state))
            atomic_write_text(scratch / "README.md", classifier_card(config))

    @property
    def _name(self) -> str:
        return f"The classifier {self.where}" if self.where else "The classifier"

    def _timm(self, wanted: str) -> TimmNetwork:
        if not isinstance(self.network, TimmNetwork):
            raise IsthmusError(
                f"{self._name} is a program, which can't be {wanted}; give a timm backbone with its weights instead."
            )
        return self.network

    def _description(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            "format": FORMAT,
            "kind": KIND,
            "predicts": self.kind,
            "backbone": self.backbone,
            "classes": list(self.classes),
            "domains": list(self.domains),
            "preprocessing": self.preprocessing.description(),
        }
        if isinstance(self.network, TimmNetwork):
            described |= {
                "head": self.network.head_name,
                **as_timm_says(str(self.backbone), self.network, self.classes, self.preprocessing),
            }
        return described
