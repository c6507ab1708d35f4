"""From what a person has (a folder, a list, a table) to the catalog's writer, and metadata on its own."""

from __future__ import annotations

from pathlib import Path

from isthmus.catalog.changes import Changes, Options
from isthmus.catalog.columns import Value
from isthmus.catalog.embed import Embedder, check_domain
from isthmus.catalog.items import Items
from isthmus.catalog.metadata import Metadata, Source, manifest_kinds
from isthmus.catalog.reading import Reader
from isthmus.catalog.sync import Writer
from isthmus.catalog.table import Facts
from isthmus.data.manifest import Manifest, Row, absolute

Images = str | Path | Manifest


def read_images(images: Images, facts: Facts, domain: str | None = None) -> Manifest:
    """The images that `add` would add.

    Raises:
        IsthmusError: nothing there, or images of a domain that the model does not have.
    """
    from isthmus.data.sources import read_source

    manifest = images if isinstance(images, Manifest) else read_source(images, domain or facts.domain)
    for name in manifest.domains:
        check_domain(name, facts.domains)
    return manifest


def rows_to_embed(items: Items, manifest: Manifest) -> list[Row]:
    """The images that are not in the catalog, or whose file's size is another; a quick estimate for a plan."""
    known = {row["id"]: row["size"] for row in items.read(["id", "size"])}
    return [row for row in manifest if row.id not in known or file_size(row.path) != known[row.id]]


def file_size(path: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return -1


def write_images(
    items: Items,
    facts: Facts,
    model: Embedder,
    images: Images,
    domain: str | None,
    metadata: Source | None,
    options: Options,
    reader: Reader | None = None,
) -> Changes:
    """`Catalog.add` and, with `options.prune`, `Catalog.sync`; `reader` as in `isthmus.catalog.sync.Writer`."""
    manifest = read_images(images, facts, domain)
    base = None if isinstance(images, Manifest) else absolute(images)
    kinds = manifest_kinds(manifest)
    values: dict[str, dict[str, Value]] = {}
    tables: list[Metadata] = []
    if not isinstance(images, Manifest) and Path(images).suffix.lower() in (".csv", ".parquet"):
        tables.append(Metadata.read(images))
    if metadata is not None:
        tables.append(Metadata.read(metadata))
    for table in tables:
        for row in manifest:
            found = table.find(row.id, row.path, base)
            if found is not None:
                values.setdefault(row.id, {}).update(found)
        kinds.update(table.kinds)
    if metadata is not None:
        tables[-1].require_match(row.id for row in manifest)
    items.make_columns(kinds)
    changes = Writer(
        items,
        model,
        manifest,
        {id: items.fit(found) for id, found in values.items()},
        centring=facts.centring,
        options=options,
        folder=base,
        reader=reader,
    ).run()
    changes.unmatched = tables[-1].unmatched if metadata is not None else 0
    changes.index = items.tidy(facts.index_above, facts.recall)
    return changes


def update_metadata(items: Items, source: Source) -> int:
    """`Catalog.update`."""
    table = Metadata.read(source)
    rows = items.read(["id", "path", *items.kinds()])
    found = [(row, values) for row in rows if (values := table.find(row["id"], row["path"])) is not None]
    table.require_match(row["id"] for row in rows)
    items.make_columns(table.kinds)
    names = [name for name in table.names if name in items.kinds()]
    changed = []
    for row, values in found:
        fitted = items.fit(values)
        if any(row.get(name) != value for name, value in fitted.items()):
            changed.append({**row, **fitted})
    if changed:
        items.revise(changed, names)
    return len(changed)
