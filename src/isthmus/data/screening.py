"""A look at every image before the work starts, so that one bad file does not end a run hours in."""

from __future__ import annotations

from isthmus.data.images import ImageError
from isthmus.data.loading import ImageSource, prefetch
from isthmus.data.manifest import Row
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.progress import track


def screen(data: TrainingData, source: ImageSource, *, threads: int, on_bad: str) -> list[str]:
    """Decode every image once; what fits stays in the source's cache.

    Args:
        data: bad rows are taken out of it where `on_bad` is `"skip"`.
        source: decodes and caches.
        threads: decoding threads.
        on_bad: `"raise"` or `"skip"`.

    Returns:
        A sentence for each image that was left out.

    Raises:
        IsthmusError: an image is unreadable and `on_bad` is `"raise"`, or too few are left.
    """
    rows = data.rows()

    def look(row: Row) -> str | None:
        try:
            source.pixels(row)
        except ImageError as error:
            return str(error)
        return None

    reasons: dict[str, str] = {}
    for row, reason in zip(rows, track(prefetch(rows, look, threads, 64), len(rows), "reading"), strict=True):
        if reason is not None:
            reasons[row.id] = reason
    if not reasons:
        return []
    first = next(iter(reasons.values()))
    if on_bad == "raise":
        raise IsthmusError(
            f"{len(reasons)} of {len(rows)} images can't be read, the first: {first} Mend or remove them "
            "(isthmus check lists all), or leave them out with --set data.on_bad_image=skip."
        )
    data.train = _without(data.train, reasons)
    data.val = _without(data.val, reasons)
    data.source = [row for row in data.source if row.id not in reasons]
    data.counterparts = {
        key: kept for key, made in data.counterparts.items() if (kept := [r for r in made if r.id not in reasons])
    }
    for name, side in zip(data.names, data.train, strict=True):
        if name and len(side) < 2:
            raise IsthmusError(f"The domain '{name}' has {len(side)} readable training images; 2 are needed at least.")
    data.notes.append(f"{len(reasons)} unreadable images are left out (listed in skipped.txt), the first: {first}")
    return list(reasons.values())


def _without(sides: tuple[list[Row], list[Row]], bad: dict[str, str]) -> tuple[list[Row], list[Row]]:
    kept = [[row for row in side if row.id not in bad] for side in sides]
    return kept[0], kept[1]
