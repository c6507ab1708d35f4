"""Settings of classifiers, the teachers of data-free retrieval, and their presets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from isthmus.config.sections import Section


class ClassifierConfig(Section):
    """What a classifier learns; its backbone, sizes and rates are those of `model`, `augment` and `train`."""

    target: Literal["label", "domain"] = Field(
        "label", description="classes, or the two domains themselves: a modality classifier"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="it makes features of a class alike, which a student would learn more from"
    )


# For some hundred images on a processor: from pretrained weights, with the changes that leave a class what it is.
_DEFAULT: dict[str, Any] = {
    "augment": {"crop": 0.4, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    "train": {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.05, "epochs": 15, "warmup_epochs": 1},
}
CLASSIFIER_PRESETS: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "tiny": {**_DEFAULT, "model": {"image_size": 64}, "train": {**_DEFAULT["train"], "epochs": 10}},
    # The public code: a ResNet-34 with ImageNet weights, whole images squashed to 224 px and not changed at all, the
    # last of 200 epochs. Its CIFAR normalisation is left out: the backbone's own is used everywhere.
    "paper": {
        "model": {"backbone": "resnet34.tv_in1k", "image_size": 224},
        "augment": {"resize": 224, "flip": False},
        "train": {
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "schedule": "constant",
            "batch_size": 16,
            "epochs": 200,
            "select": "last",
        },
    },
}
