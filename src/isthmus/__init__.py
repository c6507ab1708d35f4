"""Isthmus: cross-domain image retrieval when pairs, labels or images are scarce."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.store import Catalog
    from isthmus.models.encoder import Model, load

__version__ = "0.1.0"
__all__ = ["Catalog", "IsthmusError", "Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `isthmus --help` and the catalog's metadata need none of it.
    if name in ("Model", "load"):
        from isthmus.models import encoder

        return getattr(encoder, name)
    if name == "Catalog":
        from isthmus.catalog.store import Catalog

        return Catalog
    raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
