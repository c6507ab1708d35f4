"""The teachers of data-free retrieval: two classifiers whose classes are matched by name and weights by rotation.

The label space of a run holds the classes that both teachers know, then those of the gallery's teacher alone, then
those of the query's alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.models.classifier import Answers, Classifier

SIDES = (0, 1)  # query, gallery
STEADY = 1e-3  # pulls directions that no class speaks of towards staying where they are


@dataclass
class Teachers:
    """A teacher for each domain, one for both, and perhaps one that tells the domains apart.

    Attributes:
        sides: the query's and the gallery's; the same object where one classifier teaches both.
        names: the two domains.
        modality: tells the domains apart, where there is one.
        classes: the common label space.
        matched: how many of `classes`, the first ones, both teachers know.
        columns: (2, classes): each class's place among a teacher's, -1 where it doesn't know it.
        notes: what the user should hear.
    """

    sides: tuple[Classifier, Classifier]
    names: tuple[str, str]
    modality: Classifier | None = None
    classes: tuple[str, ...] = ()
    matched: int = 0
    columns: Tensor = field(default_factory=lambda: torch.empty(2, 0, dtype=torch.int64))
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        query, gallery = self.sides
        both = [name for name in gallery.classes if name in set(query.classes)]
        if not both:
            raise IsthmusError(
                f"The teachers {query.where} and {gallery.where} have no class in common ({_some(query.classes)}; "
                f"{_some(gallery.classes)}); name the same things alike in their descriptions."
            )
        alone = [[name for name in part.classes if name not in set(both)] for part in (gallery, query)]
        self.classes, self.matched = (*both, *alone[0], *alone[1]), len(both)
        places = [{name: n for n, name in enumerate(part.classes)} for part in self.sides]
        self.columns = torch.tensor([[places[side].get(name, -1) for name in self.classes] for side in SIDES])
        if any(alone):
            self.notes.append(
                f"{len(both)} classes are known to both teachers, {len(alone[1])} to the {self.names[0]} teacher alone "
                f"and {len(alone[0])} to the {self.names[1]} teacher alone."
            )
        if self.modality is not None:
            self._check_modality(self.modality)
        for part in {id(p): p for p in (*self.sides, self.modality) if p is not None}.values():
            part.network.requires_grad_(False)
            part.network.eval()

    def _check_modality(self, modality: Classifier) -> None:
        missing = [name for name in self.names if name not in modality.classes]
        if missing:
            raise IsthmusError(
                f"The modality classifier {modality.where} knows {_some(modality.classes)}, not '{missing[0]}'; name "
                "the domains alike (data_free.names)."
            )

    @property
    def unified(self) -> bool:
        """Whether one classifier teaches both domains."""
        return self.sides[0] is self.sides[1]

    def to(self, device: torch.device, *, channels_last: bool) -> None:
        """Bring every network to where the run computes."""
        for part in {id(p): p for p in (*self.sides, self.modality) if p is not None}.values():
            part.network.to(device)
            if channels_last and part.backbone is not None:
                part.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.columns = self.columns.to(device)

    def answer(self, side: int, images: Tensor) -> Answers:
        """What the domain's teacher makes of images in [0, 1] (n, 3, h, w)."""
        return self.sides[side].answer(images)

    def common(self, side: int, columns: Tensor) -> Tensor:
        """Codes in the common label space of a teacher's own columns (n,)."""
        known = self.known(side)
        back = torch.empty(len(self.sides[side].classes), dtype=torch.int64, device=columns.device)
        back[self.columns[side][known]] = known
        return back[columns]

    def known(self, side: int) -> Tensor:
        """Codes (k,) of the classes that the domain's teacher knows, in ascending order."""
        return torch.nonzero(self.columns[side] >= 0).flatten()

    def weights(self, side: int) -> Tensor:
        """Unit class weights (k, d) of the domain's teacher, in the order of `known`."""
        weight, _ = self.sides[side].head()
        return F.normalize(weight.detach().float()[self.columns[side][self.known(side)]], dim=1)

    @cached_property
    def likeness(self) -> float:
        """Cosine of both backbones' weights, near 1 where they began with the same ones, near 0 where not.

        0 for programs and for networks of two architectures.
        """
        query, gallery = self.sides
        if self.unified or query.backbone is None or query.backbone != gallery.backbone:
            return 1.0 if self.unified else 0.0
        states = [part.backbone_state() for part in self.sides]
        # Gains of norms are near 1 in any network.
        names = [name for name, value in states[0].items() if value.ndim > 1 and value.shape == states[1][name].shape]
        one, other = (torch.cat([state[name].float().flatten() for name in names]) for state in states)
        return float(F.cosine_similarity(one, other, dim=0))

    def rotation(self) -> Tensor:
        """(d_query, d_gallery), orthogonal: brings the query teacher's features to the gallery teacher's.

        Procrustes on the matched class weights: `R = U V'` of `Q' G + e I = U S V'`. They span a small part of the
        features; the rest would be turned at will, so with equal widths a small `e` keeps it as it is: teachers that
        began with the same weights share it.
        """
        query, gallery = (self.weights(side)[: self.matched] for side in SIDES)
        if self.unified:
            return torch.eye(query.shape[1], device=query.device)
        product = query.T @ gallery
        if product.shape[0] == product.shape[1]:
            product = product + STEADY * torch.eye(len(product), device=product.device)
        u, _, v = torch.linalg.svd(product.double(), full_matrices=False)
        turned: Tensor = (u @ v).float()
        return turned

    def proxies(self, rotation: Tensor) -> Tensor:
        """(classes, d_gallery): unit vectors; a matched class has the mean of both teachers' weights."""
        made = torch.zeros(len(self.classes), rotation.shape[1], device=rotation.device)
        for side, turn in zip(SIDES, (rotation, None), strict=True):
            weights = self.weights(side).to(rotation.device)
            made.index_add_(0, self.known(side), weights if turn is None else weights @ turn)
        return F.normalize(made, dim=1)


def _some(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def load_teachers(
    photo: str | None,
    sketch: str | None,
    unified: str | None,
    modality: str | None,
    names: tuple[str, str],
    *,
    trust: bool = False,
) -> Teachers:
    """Read the classifiers that the settings `data_free.*` name.

    Args:
        photo: of the gallery's domain.
        sketch: of the query's.
        unified: of both, instead of these two.
        modality: tells the domains apart; None: that term is left out.
        names: of the query's and the gallery's domain.
        trust: whether TorchScript may run.

    Raises:
        IsthmusError: one is missing or can't be read, or they don't go together.
    """
    if unified is not None:
        one = _label_classifier(unified, "unified", trust)
        pair = (one, one)
    elif photo is not None and sketch is not None:
        pair = (_label_classifier(sketch, "sketch", trust), _label_classifier(photo, "photo", trust))
    else:
        missing = "--photo-classifier" if photo is None else "--sketch-classifier"
        raise IsthmusError(
            f"{missing} is missing: data-free training needs a classifier of each domain, or --unified, one of both; "
            "isthmus train --method classifier  makes them where there are images."
        )
    return Teachers(pair, names, None if modality is None else Classifier.load(modality, trust=trust))


def _label_classifier(path: str, role: str, trust: bool) -> Classifier:
    made = Classifier.load(path, trust=trust)
    if made.kind != "label":
        raise IsthmusError(
            f"data_free.{role} = {path} tells domains apart, not classes; it belongs to --modality-classifier."
        )
    return made
