"""Images in: the one decoder, the one table, and what goes wrong with either."""

from isthmus.data.images import ImageError, content_hash, list_images, load_image
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import matched_labels, read_source, require_usable

__all__ = [
    "ImageError",
    "Manifest",
    "Row",
    "content_hash",
    "list_images",
    "load_image",
    "matched_labels",
    "read_source",
    "require_usable",
]
