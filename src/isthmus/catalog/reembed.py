"""Another model for a catalog: all items embedded anew beside the old table, then put in its place as one version.

How the switch is made. The new vectors are collected in a second table of the same LanceDB database (`NEXT`), in
chunks, so that a killed run goes on where it was; the catalog itself is not touched meanwhile and may be read and
written. Then one commit overwrites the table `items` with the content of the second one: other vectors, perhaps of
another width, and the new model's facts in the schema. That commit writes its files first and its version last, on a
disk by a rename and on object storage by a conditional put. So a crash at any moment leaves the old catalog or the new
one. A second folder and a pointer to it would be atomic too, but every reader would have to follow the pointer, a
writer that had read it a moment ago would add to a table that nobody reads any more, and going back would be a
matter of its own. Here all three come with the versions: readers stay on the version that they have
(`isthmus.catalog.handle`), LanceDB refuses a commit that started before an overwrite, and `rollback` undoes the switch.

An overwrite itself is never refused. What others changed between our last look and the switch is therefore found in
the versions in between and carried over; until that is done the second table stays, and the same command finishes it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from isthmus.catalog.changes import Changes, Options, Reembedding
from isthmus.catalog.columns import SYSTEM, metadata_kinds, schema
from isthmus.catalog.embed import Embedder, check_domain
from isthmus.catalog.handle import Live, Still, description
from isthmus.catalog.items import Items
from isthmus.catalog.overlap import compare
from isthmus.catalog.owner import ModelLike, load_model, relative_to_catalog
from isthmus.catalog.sync import Writer
from isthmus.catalog.table import DESCRIPTION, TABLE, Facts, connect, explained, locate, open_table, read_facts
from isthmus.data.manifest import Manifest, Row, absolute
from isthmus.errors import IsthmusError

NEXT = "reembedding"  # the second table
ORIGIN = b"isthmus.reembedded"  # in the schema's metadata: the version that the items were taken from
SAMPLE = 200
PASSES = 3  # so often the old table is looked at again for changes before the switch
ITEM = ["id", "path", "hash", "domain", "label"]


def reembed(
    path: str | os.PathLike[str],
    model: ModelLike,
    *,
    model_path: str | Path | None = None,
    leave_out: bool = False,
    sample: int = SAMPLE,
    workers: int = 2,
    storage_options: Mapping[str, str] | None = None,
) -> Reembedding:
    """Replace all vectors of a catalog by those of another model; ids, paths, labels, domains and metadata stay.

    Killed at any moment, the same call goes on. Open catalogs answer from the old version until they are opened again.

    Args:
        path: the catalog.
        model: the new model, or the run or model folder to load it from.
        model_path: where the model can be loaded from, when `model` is given as an object.
        leave_out: switch although some images are gone or unreadable; their items are then not in the new table.
            Without it such images are listed, nothing is switched, and what was embedded is kept for the next call.
        sample: items used as queries to tell how the first 10 hits change; 0 compares nothing.
        workers: threads that read and decode.
        storage_options: credentials and endpoint of object storage, as LanceDB takes them.

    Raises:
        IsthmusError: no catalog, a damaged one, or the model lacks a domain of the items.

    Example:
        >>> done = reembed("catalog", "runs/better")                                        # doctest: +SKIP
        >>> done.switched, done.overlap.share                                               # doctest: +SKIP
        (True, 0.74)
    """
    place = locate(path)
    table, facts = open_table(place, storage_options)
    live = Live(place, storage_options, table)
    loaded, folder = load_model(model)
    job = _Job(live, facts, loaded, Options(workers=workers))
    if loaded.fingerprint == facts.fingerprint:
        return job.finish()
    source = str(model_path) if model_path is not None else folder
    new = replace(
        facts,
        fingerprint=loaded.fingerprint,
        dim=loaded.dim,
        domains=(loaded.domains[0], loaded.domains[1]),
        model=absolute(source) if source else "",
        model_relative=relative_to_catalog(source, place),
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    )
    return job.run(new, leave_out, sample)


class _Job:
    """One call of `reembed`."""

    def __init__(self, live: Live, facts: Facts, model: Embedder, options: Options) -> None:
        self.live, self.facts, self.model, self.options = live, facts, model, options
        self.place = live.place
        self.database = connect(live.place, live.storage_options, follow=False)
        self.result = Reembedding(facts.fingerprint, model.fingerprint)

    def run(self, new: Facts, leave_out: bool, sample: int) -> Reembedding:
        """Build, compare, switch, and carry over what changed meanwhile."""
        result = self.result
        check_domain(new.domain, new.domains)
        target = self.target(new)
        for _ in range(PASSES):
            origin = self.live.current()[0]
            self.build(old := self.snapshot(origin), target)
            if self.live.current()[0] == origin:
                break
        result.items = target.count()
        if sample:
            result.overlap = compare(old, target, sample)
        if result.gone and not leave_out:
            result.version = self.live.current()[0]
            return result
        if result.gone and not result.items:
            raise IsthmusError(f"No image of the catalog {self.place} can be read; is the disk mounted?")
        if self.live.superseded:
            raise IsthmusError(f"The catalog {self.place} became one of another model meanwhile; run the same again.")
        version = self.switch(new, target, origin)
        result.switched = True
        return self.complete(version, origin)

    def target(self, new: Facts) -> Items:
        """The second table: that of an interrupted run with the same model, or a new one."""
        with explained(self.place):
            table = self.second()
            if table is None or not self.is_for(table, new):
                mode = "overwrite" if NEXT in self.database.list_tables().tables else "create"
                described = schema(new.dim, {}, json.dumps(asdict(new)).encode())
                table = self.database.create_table(NEXT, schema=described, mode=mode)
        return Items(self.place, Still(table), new.dim)

    def is_for(self, second: Any, facts: Facts) -> bool:
        """Whether a second table holds vectors as these facts say."""
        stored = description(second)
        made = read_facts(stored, self.place) if stored else None
        same = facts.fingerprint, facts.dim, facts.centring
        return made is not None and (made.fingerprint, made.dim, made.centring) == same

    def second(self) -> Any | None:
        """The second table, where there is one; what a kill at its making left is none."""
        if NEXT not in self.database.list_tables().tables:
            return None
        try:
            return self.database.open_table(NEXT)
        except (RuntimeError, ValueError, OSError):
            return None

    def snapshot(self, version: int) -> Items:
        """One version of the catalog as it was, whatever comes after."""
        return Items(self.place, Still(self.live.private(version)), self.facts.dim)

    def build(self, old: Items, target: Items) -> None:
        """Make the second table equal to the old one, but for the vectors."""
        kinds = old.kinds()
        rows = {row["id"]: row for row in old.read([*ITEM, *kinds])}
        for domain in dict.fromkeys(row["domain"] for row in rows.values()):
            check_domain(domain, self.model.domains)
        target.make_columns(kinds)
        changes = self.write(target, rows, list(kinds))
        built = {row["id"]: row["hash"] for row in target.read(["id", "hash"])}
        target.remove_ids(sorted(built.keys() - rows.keys()))
        self.result.embedded += changes.embedded
        # One that an earlier run embedded before its image went has what it needs.
        self.result.gone = [bad for bad in changes.bad if bad.id not in built]
        self.result.changed = sorted(id for id, row in rows.items() if built.get(id, row["hash"]) != row["hash"])

    def write(self, items: Items, rows: Mapping[str, Mapping[str, Any]], names: list[str]) -> Changes:
        """Embed items and write them with their metadata, as `add` does: in chunks, and only what is not there."""
        images = Manifest(Row(id, row["path"], row["domain"], label=row["label"]) for id, row in rows.items())
        values = {id: {name: row[name] for name in names} for id, row in rows.items()}
        centring = self.facts.centring
        return Writer(items, self.model, images, values, centring=centring, options=self.options, folder=None).run()

    def switch(self, new: Facts, target: Items, origin: int) -> int:
        """Overwrite the catalog's table with the second one; returns the number of that version."""
        import pyarrow as pa

        kinds = target.kinds()
        facts = {DESCRIPTION: json.dumps(asdict(new)).encode(), ORIGIN: str(origin).encode()}
        described = schema(new.dim, kinds).with_metadata(facts)

        def batches() -> Iterator[Any]:
            for batch in target.scan([*SYSTEM, *kinds]):
                yield pa.RecordBatch.from_arrays([batch.column(name) for name in described.names], schema=described)

        with explained(self.place):
            reader = pa.RecordBatchReader.from_batches(described, batches())
            return int(self.database.create_table(TABLE, reader, mode="overwrite").version)

    def finish(self) -> Reembedding:
        """The catalog is of the model already: what an interrupted run left undone after its switch is done now."""
        result = self.result
        result.switched, result.items, result.version = (
            True,
            self.live.current()[1].count_rows(),
            self.live.current()[0],
        )
        with explained(self.place):
            table, left = self.live.private(), self.second()
            stored, ours = table.schema.metadata.get(ORIGIN), description(table)
            # What is there may also be the beginning of a change to a third model.
            if left is None or stored is None or not self.is_for(left, self.facts):
                return result
            first = int(table.version)
            for number in sorted((int(one["version"]) for one in table.list_versions()), reverse=True):
                if description(self.live.private(number)) != ours:
                    break
                first = number
        return self.complete(first, int(stored))

    def complete(self, version: int, origin: int) -> Reembedding:
        """Carry over what was changed between the versions `origin` and `version`, index, and clear away."""
        live = Live(self.place, self.live.storage_options, open_table(self.place, self.live.storage_options)[0])
        items = Items(self.place, live, self.model.dim)
        with explained(self.place):
            kept = {int(one["version"]) for one in live.private().list_versions()}
        if version - 1 > origin and {origin, version - 1} <= kept:
            before, after = self.state(origin), self.state(version - 1)
            changed = {id: row for id, row in after.items() if _known(before.get(id, {})) != _known(row)}
            gone = before.keys() - after.keys()
            kinds = metadata_kinds(self.live.private(version - 1).schema)
            items.make_columns(kinds)
            self.result.gone += self.write(items, changed, list(kinds)).bad
            items.remove_ids(sorted(gone))
            self.result.carried = len(changed) + len(gone)
        items.tidy(self.facts.index_above, self.facts.recall)
        with explained(self.place):
            if NEXT in self.database.list_tables().tables:
                self.database.drop_table(NEXT)
        self.result.items, self.result.version = items.count(), items.version
        return self.result

    def state(self, version: int) -> dict[str, dict[str, Any]]:
        """Id -> row without the vector, of one version."""
        items = self.snapshot(version)
        return {row["id"]: row for row in items.read([*ITEM, *items.kinds()])}


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    # Without what is missing: a column that came in between changes no item by itself.
    return {name: value for name, value in row.items() if value is not None}
