"""The model that a catalog belongs to: found again where it was, and any other refused."""

from __future__ import annotations

import os
from pathlib import Path

from isthmus.catalog.embed import Embedder
from isthmus.catalog.storage import is_remote
from isthmus.catalog.table import Facts
from isthmus.data.manifest import absolute
from isthmus.errors import IsthmusError
from isthmus.models.calibration import FILE, Calibration

ModelLike = Embedder | str | Path


class Owner:
    """A catalog's model, loaded at first use."""

    def __init__(self, place: str, facts: Facts, model: Embedder | None = None) -> None:
        self.place, self.facts = place, facts
        self._model = model

    def use(self, model: ModelLike) -> None:
        """Take this model; one of another fingerprint is refused."""
        loaded, name = load_model(model)
        if loaded.fingerprint != self.facts.fingerprint:
            raise IsthmusError(
                f"The catalog {self.place} was made with the model {self.facts.fingerprint}, and "
                f"{name or 'this model'} is {loaded.fingerprint}: their vectors can't be compared; use the old "
                "model, or index into a new catalog."
            )
        self._model = loaded

    def calibration(self) -> Calibration | None:
        """The calibration that lies beside the model; read without loading the model. None where there is none.

        Raises:
            IsthmusError: it is damaged.
        """
        beside = getattr(self._model, "beside", None)
        if beside is None:
            found = [Calibration.load(place) for place in self._places()]
        else:
            found = [Calibration.parse(beside[FILE], FILE)] if FILE in beside else []
        # There may be a newer model in that place, with a calibration of its own: that is not ours.
        ours = (one for one in found if one is not None and one.model == self.facts.fingerprint)
        return next(ours, None)

    def _places(self) -> list[str]:
        places = (self.facts.model, absolute(self.facts.model_relative, self.place)) if self.facts.model else ()
        return [place for place in places if Path(place).is_dir()]

    def get(self) -> Embedder:
        """The model; from where it was when the catalog was made, or as far from the catalog as it was then."""
        if self._model is None:
            for place in self._places()[:1]:
                self.use(place)
        if self._model is None:
            was = f"it is no longer at {self.facts.model}" if self.facts.model else "its place is not known"
            raise IsthmusError(
                f"The catalog {self.place} needs its model {self.facts.fingerprint} to embed images, and {was}: name "
                "it (--model RUN, or Catalog.open(path, model=...))."
            )
        return self._model


def load_model(model: ModelLike) -> tuple[Embedder, str]:
    """A model and the place it came from (empty when it was given as an object)."""
    if isinstance(model, (str, Path)):
        from isthmus.models.encoder import Model
        from isthmus.models.hub import local

        place = local(model)  # of one on the hub, the folder of its commit
        return Model.load(place), str(place)
    return model, ""


def relative_to_catalog(source: str, place: str) -> str:
    """The way from the catalog to its model, so that both can be moved together."""
    return "" if not source or is_remote(place) else os.path.relpath(absolute(source), place)
