"""The methods: one file each, one line here."""

from __future__ import annotations

from isthmus.errors import IsthmusError
from isthmus.methods.base import Method
from isthmus.methods.classifier import ClassifierMethod
from isthmus.methods.cut import Cut, FastCut
from isthmus.methods.data_free import DataFree
from isthmus.methods.ihda import IHDA
from isthmus.methods.pretrained import Pretrained
from isthmus.methods.syncdr import CDS, SynCDR

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (SynCDR, CDS, IHDA, DataFree, Pretrained, ClassifierMethod, Cut, FastCut)
}


def find_method(name: str) -> type[Method]:
    """The method of that name; an unknown one is an error that lists them."""
    if name not in METHODS:
        raise IsthmusError(f"There is no method '{name}'; choose one of {', '.join(METHODS)}.")
    return METHODS[name]
