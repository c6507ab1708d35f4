"""A first question to a given classifier, so that what is amiss is said before hours of training on its answers."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.models.classifier import Classifier
from isthmus.models.classifier_network import TimmNetwork


def probe(classifier: Classifier) -> None:
    """Ask it for grey and random images: answers must have the right shapes, be finite and follow from its head."""
    name, given = f"The classifier {classifier.where}", isinstance(classifier.network, TimmNetwork)
    dice = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 48, 48, generator=dice)
    images[0] = 0.5
    try:
        with torch.set_grad_enabled(not given):
            answers = classifier.answer(images.requires_grad_(not given))
            alone = answers if given else classifier.answer(images[:1])
    except IsthmusError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise IsthmusError(
            f"{name} fails on 3 images of image_size ({reason}); export it for any number of images, and give the "
            "image_size and outputs that it has."
        ) from error
    logits, features = answers
    if logits.shape != (3, len(classifier.classes)) or features.ndim != 2:
        raise IsthmusError(
            f"{name} answers 3 images with logits of shape {tuple(logits.shape)} and features of shape "
            f"{tuple(features.shape)}, but {len(classifier.classes)} classes are named; mend classes or outputs."
        )
    if not (bool(logits.isfinite().all()) and bool(features.isfinite().all())):
        raise IsthmusError(f"{name} answers NaN or infinities to plain images; its weights are damaged: give others.")
    if not given:
        apart = (alone.logits - logits[:1]).detach().abs().max()
        if float(apart) > 1e-3 * float(1 + logits.detach().abs().max()):
            raise IsthmusError(
                f"{name} answers an image differently beside others: it was exported in training mode; call eval() "
                "before the export."
            )
        if not logits.requires_grad:
            raise IsthmusError(f"{name} gives no gradients to its images; export it without no_grad or detach.")
    _probe_head(classifier, logits.detach(), features.detach())


def _probe_head(classifier: Classifier, logits: Tensor, features: Tensor) -> None:
    if not isinstance(classifier.network, TimmNetwork) and getattr(classifier.network, "head", None) is None:
        return
    weight, bias = classifier.head()
    if len(weight) != len(classifier.classes) or (features.shape[1] and weight.shape[1] != features.shape[1]):
        raise IsthmusError(
            f"The head of {classifier.where} has shape {tuple(weight.shape)}, but there are {len(classifier.classes)} "
            f"classes and {features.shape[1]} features; mend head or outputs."
        )
    if features.shape[1] and not torch.allclose(
        features @ weight.T + bias, logits, atol=1e-3 * float(1 + logits.abs().max())
    ):
        raise IsthmusError(
            f"The logits of {classifier.where} are not its head applied to its features; mend head or outputs, or "
            "return what the final linear layer sees."
        )
