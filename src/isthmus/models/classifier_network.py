"""Networks of classifiers: timm models with their final linear layer, and what they answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isthmus.config.sizes import Sides, sides
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.models.backbones import build_timm, require_backbone


class Answers(NamedTuple):
    """What a classifier says of n images.

    Attributes:
        logits: (n, c) float32.
        features: (n, d) float32, what the final linear layer sees; d = 0 where a given program doesn't return them.
    """

    logits: Tensor
    features: Tensor


class TimmNetwork(nn.Module):
    """A timm model with its final linear layer; normalised images (n, 3, h, w) become `Answers`.

    Raises:
        IsthmusError: what ends the model is not one linear layer.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        last = backbone.get_classifier()  # type: ignore[operator]
        names = [name for name, part in backbone.named_modules() if part is last]
        if not isinstance(last, nn.Linear) or not names:
            raise IsthmusError(
                f"The final layer of {type(backbone).__name__} is no single linear layer "
                f"({type(last).__name__}); choose another model.backbone, such as a ResNet, a MobileNet or a ViT."
            )
        #: name of the final linear layer in the backbone
        self.head_name = names[0]

    @property
    def head(self) -> nn.Linear:
        """The final linear layer."""
        last = self.backbone.get_submodule(self.head_name)
        assert isinstance(last, nn.Linear)
        return last

    def forward(self, images: Tensor) -> Answers:
        """(n, 3, h, w) normalised -> `Answers`, float32."""
        backbone: Any = self.backbone
        features: Tensor = backbone.forward_head(backbone.forward_features(images), pre_logits=True)
        return Answers(self.head(features).float(), features.float())


def build_network(backbone: str, classes: int, image_size: Sides) -> TimmNetwork:
    """A timm model of random weights with a head of that many classes.

    Raises:
        IsthmusError: there is no such model, or its logits are more than a linear layer on its features.
    """
    require_backbone(backbone)
    try:
        network = TimmNetwork(build_timm(backbone, classes, image_size)).eval()
        image = torch.rand(1, 3, *sides(image_size), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            own, ours = network.backbone(image), network(image).logits
    except IsthmusError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise IsthmusError(
            f"The backbone '{backbone}' can't be built for {classes} classes at this image_size ({reason}); choose "
            "another of either."
        ) from error
    if not torch.allclose(own, ours, rtol=1e-3, atol=1e-4):
        raise IsthmusError(
            f"The logits of '{backbone}' are more than a linear layer on its features; choose another model.backbone."
        )
    return network


def as_timm_says(backbone: str, network: TimmNetwork, classes: tuple[str, ...], looks: Preprocessing) -> dict[str, Any]:
    """What timm's own reader of model folders looks for."""
    own: Any = network.backbone.pretrained_cfg
    size = list(sides(looks.size))
    return {
        "architecture": backbone,
        "num_classes": len(classes),
        "label_names": list(classes),
        **({"model_args": {"img_size": size}} if own.get("fixed_input_size") else {}),
        "pretrained_cfg": {
            "input_size": [3, *size],
            "fixed_input_size": bool(own.get("fixed_input_size")),
            "interpolation": looks.interpolation,
            "crop_pct": size[0] / sides(looks.resize)[0],
            "mean": list(looks.mean),
            "std": list(looks.std),
            "num_classes": len(classes),
            "first_conv": own.get("first_conv"),
            "classifier": network.head_name,
        },
    }
