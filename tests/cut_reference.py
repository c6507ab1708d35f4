"""CUT once more, slowly and plainly: from the formulae and the layer list of the paper, with sums and indices alone.

Networks take their weights as a list (weight, bias, weight, bias, ...) in the order of the layers, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def reflect(x: Tensor, width: int) -> Tensor:
    """Pad as a mirror that stands on the border pixel."""
    for axis in (2, 3):
        last = x.shape[axis] - 1
        places = [last - abs(last - abs(i)) for i in range(-width, last + width + 1)]
        x = x.index_select(axis, torch.tensor(places))
    return x


def zeros(x: Tensor, width: int) -> Tensor:
    """Pad with zeros."""
    wide = x.new_zeros(*x.shape[:2], x.shape[2] + 2 * width, x.shape[3] + 2 * width)
    wide[:, :, width:-width, width:-width] = x
    return wide


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`out[o, y, x] = bias[o] + sum_c,i,j weight[o, c, i, j] in[c, y + i, x + j]`."""
    tall, wide = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    out = bias.view(1, -1, 1, 1)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            out = out + torch.einsum("bchw,oc->bohw", x[:, :, i : i + tall, j : j + wide], weight[:, :, i, j])
    return out


def instance_norm(x: Tensor) -> Tensor:
    """Each map of each image to mean 0 and variance 1."""
    pixels = x.shape[2] * x.shape[3]
    centred = x - x.sum(dim=(2, 3), keepdim=True) / pixels
    return centred / ((centred**2).sum(dim=(2, 3), keepdim=True) / pixels + 1e-5).sqrt()


def relu(x: Tensor, slope: float = 0.0) -> Tensor:
    """Negative values times `slope`."""
    return torch.where(x > 0, x, slope * x)


def halve(x: Tensor) -> Tensor:
    """Every second pixel of the image blurred by 1 2 1 along both sides."""
    wide = reflect(x, 1)
    out = torch.zeros_like(x[:, :, ::2, ::2])
    for i, a in enumerate((1, 2, 1)):
        for j, b in enumerate((1, 2, 1)):
            out = out + a * b / 16 * wide[:, :, i : i + x.shape[2] : 2, j : j + x.shape[3] : 2]
    return out


def double(x: Tensor) -> Tensor:
    """1 3 3 1 by its meaning: a new pixel is 3/4 of the one it lies in and 1/4 of the next one on its side."""
    for axis in (2, 3):
        count = x.shape[axis]
        near = torch.arange(2 * count) // 2
        far = (near + torch.tensor([-1, 1]).repeat(count)).clamp(0, count - 1)
        x = 0.75 * x.index_select(axis, near) + 0.25 * x.index_select(axis, far)
    return x


def generator_maps(images: Tensor, weights: Sequence[Tensor], blocks: int) -> list[Tensor]:
    """The output of each layer, numbered as in the paper; the last is the translation."""
    each = _pairs(weights)
    maps = [reflect(images, 3)]

    def go(x: Tensor) -> None:
        maps.append(x)

    go(convolve(maps[-1], *next(each)))  # 1
    go(instance_norm(maps[-1]))
    go(relu(maps[-1]))
    for _ in range(2):  # 4 to 7, 8 to 11
        go(convolve(zeros(maps[-1], 1), *next(each)))
        go(instance_norm(maps[-1]))
        go(relu(maps[-1]))
        go(halve(maps[-1]))
    for _ in range(blocks):  # from 12
        inner = relu(instance_norm(convolve(reflect(maps[-1], 1), *next(each))))
        go(maps[-1] + instance_norm(convolve(reflect(inner, 1), *next(each))))
    for _ in range(2):
        go(double(maps[-1]))
        go(convolve(zeros(maps[-1], 1), *next(each)))
        go(instance_norm(maps[-1]))
        go(relu(maps[-1]))
    go(reflect(maps[-1], 3))
    go(convolve(maps[-1], *next(each)))
    go(torch.tanh(maps[-1]))
    assert next(each, None) is None
    return maps


def discriminate(images: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Scores of patches: convolutions of side 4, the first three halved, all but the first and last normed."""
    each = _pairs(weights)
    x = halve(relu(convolve(zeros(images, 1), *next(each)), 0.2))
    for _ in range(2):
        x = halve(relu(instance_norm(convolve(zeros(x, 1), *next(each))), 0.2))
    x = relu(instance_norm(convolve(zeros(x, 1), *next(each))), 0.2)
    x = convolve(zeros(x, 1), *next(each))
    assert next(each, None) is None
    return x


def patches(feature_map: Tensor, places: Tensor) -> Tensor:
    """(b, p, channels): the columns at places counted row by row."""
    wide = feature_map.shape[3]
    return torch.stack([feature_map[:, :, int(at) // wide, int(at) % wide] for at in places], dim=1)


def project(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Two linear layers for each part, a rectifier between them, to unit length."""
    each = _pairs(weights)
    out = []
    for part in parts:
        weight, bias = next(each)
        hidden = relu(part @ weight.T + bias)
        weight, bias = next(each)
        vectors = hidden @ weight.T + bias
        out.append(vectors / (vectors**2).sum(dim=-1, keepdim=True).sqrt())
    return out


def patch_loss(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """-log exp(q_s k_s / T) / sum_t exp(q_s k_t / T), one image and one place after the other."""
    terms = []
    for image in range(len(queries)):
        for s in range(queries.shape[1]):
            similar = (queries[image, s] * keys[image]).sum(dim=1) / temperature
            top = similar.detach().max()
            terms.append(top + (similar - top).exp().sum().log() - similar[s])
    return torch.stack(terms).sum() / len(terms)


def published_patch_loss(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """As the public code has it: the positive first, then all places, of which the own one gets the similarity -10."""
    terms = []
    for image in range(len(queries)):
        for s in range(queries.shape[1]):
            own = float(queries[image, s] @ keys[image, s]) / temperature
            others = [float(queries[image, s] @ key) / temperature for key in keys[image]]
            others[s] = -10 / temperature
            top = max(own, *others)
            terms.append(top + math.log(math.exp(own - top) + sum(math.exp(x - top) for x in others)) - own)
    return torch.tensor(sum(terms) / len(terms), dtype=torch.float64)


def squares(scores: Tensor, wanted: float) -> Tensor:
    """Mean squared distance."""
    return ((scores - wanted) ** 2).sum() / scores.numel()


class Step:
    """The losses of one direction of one step.

    Args:
        generator, head, discriminator: weights.
        source, target: (b, 3, h, w) in [-1, 1].
        places: for each layer.
        layers: their numbers.
        mirrored: the generator sees mirrored images; its patches are compared where they belong.
    """

    def __init__(
        self, generator: list[Tensor], head: list[Tensor], discriminator: list[Tensor], source: Tensor, target: Tensor,
        *, places: Sequence[Tensor], layers: Sequence[int], blocks: int, mirrored: bool, temperature: float,
    ) -> None:  # fmt: skip
        self.weights, self.head, self.discriminator = generator, head, discriminator
        self.source, self.target = source, target
        self.places, self.layers, self.blocks, self.mirrored = places, layers, blocks, mirrored
        self.temperature = temperature
        self.made = self.translate(source)

    def translate(self, images: Tensor) -> Tensor:
        return generator_maps(images.flip(3) if self.mirrored else images, self.weights, self.blocks)[-1]

    def discriminator_loss(self) -> Tensor:
        real = squares(discriminate(self.target, self.discriminator), 1)
        return 0.5 * (squares(discriminate(self.made.detach(), self.discriminator), 0) + real)

    def adversarial(self, discriminator: list[Tensor]) -> Tensor:
        return squares(discriminate(self.made, discriminator), 1)

    def contrast(self, images: Tensor) -> Tensor:
        """PatchNCE between images and their translations, mean over the layers."""
        made = self.made if images is self.source else self.translate(images)
        shown = generator_maps(made, self.weights, self.blocks)
        with torch.no_grad():
            as_is = generator_maps(images, self.weights, self.blocks)
        seen = [shown[n].flip(3) if self.mirrored else shown[n] for n in self.layers]
        queries = project([patches(x, at) for x, at in zip(seen, self.places, strict=True)], self.head)
        keys = project([patches(as_is[n], at) for n, at in zip(self.layers, self.places, strict=True)], self.head)
        terms = [patch_loss(q, k.detach(), self.temperature) for q, k in zip(queries, keys, strict=True)]
        return torch.stack(terms).sum() / len(terms)


def _pairs(weights: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(weights[::2], weights[1::2], strict=True)
