"""What the tests of classifiers share: tiny networks, their files, and settings that train one in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from training_zoo import BATCH_NORM, INK, PAINT, world

from isthmus.config import RunConfig
from isthmus.models.classifier import Classifier

CLASSES = ("ant", "bee", "cat")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIDE = 32


class Small(nn.Module):
    """A network with batch norm that says how it sees: logits and features."""

    def __init__(self, classes: int = len(CLASSES), *, both: bool = True) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)
        self.both = both
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, images: Tensor) -> Any:
        features = torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3))
        return (self.fc(features), features) if self.both else self.fc(features)


def small(seed: int = 0, **more: Any) -> Small:
    """One of fixed weights, in evaluation mode."""
    torch.manual_seed(seed)
    return Small(**more).eval()


def tiny(classes: tuple[str, ...] = CLASSES, backbone: str = BATCH_NORM, seed: int = 0, **more: Any) -> Classifier:
    """A timm classifier of random weights, whose norms and head have something to say."""
    torch.manual_seed(seed)
    classifier = Classifier.create(backbone, classes, SIDE, weights="random", **more)
    for norm in classifier.norms():
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    nn.init.normal_(classifier.network.head.weight)  # type: ignore[union-attr, arg-type]
    nn.init.normal_(classifier.network.head.bias)  # type: ignore[union-attr, arg-type]
    return classifier


def timm_model(name: str, **options: Any) -> Any:
    """timm's own, in evaluation mode."""
    import timm

    return timm.create_model(name, **options).eval()


def seen(images: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    """What a network of `SIDE` pixels is shown of images in [0, 1], by torchvision."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    resized = transforms.resize(images, [SIDE, SIDE], InterpolationMode.BILINEAR, antialias=True)
    return transforms.normalize(resized, list(mean), list(std))


def describe(folder: Path, name: str = "teacher.yaml", **said: Any) -> Path:
    """A description; None leaves a line out."""
    folder.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {"classes": list(CLASSES), "image_size": SIDE, "mean": list(MEAN), "std": list(STD)}
    lines = {key: value for key, value in (usual | said).items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(lines), encoding="utf-8")
    return folder / name


def weights(folder: Path, classifier: Classifier | None = None, **changes: Tensor | None) -> Path:
    """The timm weights of a tiny classifier, with tensors replaced or (None) left out; dots are double underscores."""
    network: Any = (classifier or tiny()).network
    state = {key: value.clone().contiguous() for key, value in network.backbone.state_dict().items()}
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def given(folder: Path, **said: Any) -> Path:
    """A description of timm weights that load."""
    if "weights" not in said:
        weights(folder)
    return describe(folder, **({"backbone": BATCH_NORM, "weights": "weights.safetensors"} | said))


def export(network: nn.Module, path: Path, *, batch: bool = True, side: int = SIDE) -> Path:
    """`torch.export.save`, for any number of images unless `batch` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = ({0: torch.export.Dim("batch")},) if batch else None
    program = torch.export.export(network, (torch.rand(2, 3, side, side),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def drawn(folder: Path, count: int = 12, **more: Any) -> Path:
    """Two domains of drawn figures in three classes: `ink/` and `paint/`."""
    return world(folder, count, classes=3, **more)


def settings(folder: Path, *sides: str, preset: str = "default", **changes: Any) -> RunConfig:
    """Settings that train a tiny classifier on `drawn(folder)`; `sides` are the domains, both if none is named."""
    domains = {"data.query": INK, "data.gallery": PAINT}
    base: dict[str, Any] = {
        "method": "classifier",
        **{
            key: {"name": name, "train": str(folder / name)}
            for key, name in domains.items()
            if name in (sides or domains.values())
        },
        "data.workers": 0,
        "data.holdout": 0.25,
        "model.backbone": BATCH_NORM,
        "model.weights": "random",
        "model.image_size": SIDE,
        "train.batch_size": 4,
        "train.epochs": 2,
        "train.steps_per_epoch": 2,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
    }
    return RunConfig.build(preset, base | {name.replace("__", "."): value for name, value in changes.items()})
