"""`Catalog`: images of a gallery as vectors with metadata, searchable, tied to the model that made the vectors."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from isthmus.catalog.changes import Changes, Options
from isthmus.catalog.checkup import Report, describe, verify
from isthmus.catalog.columns import Kind
from isthmus.catalog.effort import Effort, check_recall, choose_effort, keep_effort
from isthmus.catalog.embed import Embedder, check_domain
from isthmus.catalog.filters import Condition
from isthmus.catalog.handle import Live
from isthmus.catalog.history import AGE, Compaction, Version, compact, rollback, versions
from isthmus.catalog.ingest import update_metadata, write_images
from isthmus.catalog.items import Items
from isthmus.catalog.matches import NOT_CALIBRATED, judged
from isthmus.catalog.metadata import Source
from isthmus.catalog.owner import ModelLike, Owner, load_model, relative_to_catalog
from isthmus.catalog.query import Queries, Query, query_vectors, search
from isthmus.catalog.search import Hit, Searcher
from isthmus.catalog.table import RECALL, Facts, create_table, locate, open_table, table_exists
from isthmus.catalog.where import compile_where
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, absolute
from isthmus.errors import IsthmusError
from isthmus.models.calibration import Calibration

Where = str | Condition


class Catalog:
    """A table of images, their vectors and metadata, on a disk or on object storage.

    Every change is one new version of the table: readers see the old or the new state, also after a crash. Vectors of
    two models are never mixed: the model's fingerprint is part of the catalog.

    Example:
        >>> model = isthmus.load("runs/pacs")                                               # doctest: +SKIP
        >>> catalog = isthmus.Catalog.create("catalog", model)                              # doctest: +SKIP
        >>> catalog.add("photos/", metadata="prices.csv").added                             # doctest: +SKIP
        1840
        >>> hits = catalog.search("cat.png", domain="sketch", k=10, where="price < 50")     # doctest: +SKIP
    """

    def __init__(self, live: Live, facts: Facts, model: Embedder | None = None) -> None:
        self.path, self.facts, self._live = live.place, facts, live
        self.items = Items(live.place, live, facts.dim)
        self._searcher = Searcher(self.items)
        self._owner = Owner(live.place, facts, model)
        self._calibration: tuple[Calibration | None] | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: ModelLike,
        *,
        domain: str | None = None,
        model_path: str | Path | None = None,
        centring: bool | None = None,
        index_above: int = 50_000,
        recall: float = RECALL,
        storage_options: Mapping[str, str] | None = None,
    ) -> Catalog:
        """Make an empty catalog.

        Args:
            path: a new or empty folder, or a URI of object storage such as `s3://bucket/catalog`.
            model: a model, or the run or model folder to load it from (remembered, so that `open` finds it).
            domain: the domain of items that name none; the model's gallery domain if None.
            model_path: where the model can be loaded from, when `model` is given as an object.
            centring: whether vectors are centred with the domain's training mean; as the model does by itself if None.
            index_above: number of items above which an approximate index is built.
            recall: wanted recall@10 of that index against exact search; measured when it is built.
            storage_options: credentials and endpoint of object storage, as LanceDB takes them.

        Raises:
            IsthmusError: something is at `path` already, it can't be written, or the model lacks the domain.
        """
        place = locate(path)
        loaded, folder = load_model(model)
        source = str(model_path) if model_path is not None else folder
        domain = loaded.domains[1] if domain is None else domain
        check_domain(domain, loaded.domains)
        facts = Facts(
            fingerprint=loaded.fingerprint,
            dim=loaded.dim,
            domains=(loaded.domains[0], loaded.domains[1]),
            domain=domain,
            model=absolute(source) if source else "",
            model_relative=relative_to_catalog(source, place),
            centring=centring,
            index_above=index_above,
            recall=check_recall(recall),
            created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        )
        table = create_table(place, facts, {}, storage_options)
        return cls(Live(place, storage_options, table), facts, loaded)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: ModelLike | None = None,
        *,
        storage_options: Mapping[str, str] | None = None,
    ) -> Catalog:
        """Open a catalog; without `model` it is loaded from where it was, once an image has to be embedded.

        Raises:
            IsthmusError: there is no catalog, it is damaged, or it was made with another model.
        """
        place = locate(path)
        table, facts = open_table(place, storage_options)
        catalog = cls(Live(place, storage_options, table), facts)
        if model is not None:
            catalog.use(model)
        return catalog

    @staticmethod
    def exists(path: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None) -> bool:
        """Whether there is a catalog at `path`, sound or not."""
        return table_exists(locate(path), storage_options)

    @property
    def model(self) -> Embedder:
        """The catalog's model, loaded at first use from where it was when the catalog was made."""
        return self._owner.get()

    def use(self, model: ModelLike) -> None:
        """Embed with this model from now on, which must be the catalog's own: perhaps wrapped, or from another place.

        Raises:
            IsthmusError: its fingerprint is another.
        """
        self._owner.use(model)
        if self._calibration == (None,):  # its new place may have one
            self._calibration = None

    @property
    def columns(self) -> dict[str, Kind]:
        """Name -> kind of every column that a filter may name."""
        return self.items.columns()

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Catalog({self.path!r}, {self.count()} items, model {self.facts.fingerprint})"

    def add(
        self,
        images: str | Path | Manifest,
        *,
        metadata: Source | None = None,
        domain: str | None = None,
        on_bad: Literal["raise", "skip"] = "skip",
        workers: int = 2,
        thorough: bool = False,
    ) -> Changes:
        """Add images; what is there with the same content is passed over, so that an interrupted `add` goes on.

        An item whose id is there with another content is replaced. Images of one content are embedded once.

        Args:
            images: a folder, a list, a table (its further columns become metadata) or a manifest.
            metadata: more about the images: a CSV or Parquet table with a column id or path, `{id: {column: value}}`,
                or rows. Numbers, text, true/false and times; an item without a row keeps what it had.
            domain: the images' domain; the catalog's if None. Ignored for a manifest.
            on_bad: `"skip"` lists unreadable images in the result, `"raise"` stops at the first.
            workers: threads that read and decode.
            thorough: read every file even where size and time say that it is unchanged.

        Raises:
            IsthmusError: nothing to add, metadata that fits no image or no column, a bad image with `on_bad="raise"`.
        """
        options = Options(on_bad, workers, thorough, prune=False)
        return write_images(self.items, self.facts, self.model, images, domain, metadata, options)

    def sync(
        self,
        folder: str | Path,
        *,
        metadata: Source | None = None,
        domain: str | None = None,
        on_bad: Literal["raise", "skip"] = "skip",
        workers: int = 2,
        thorough: bool = False,
    ) -> Changes:
        """`add`, and remove the items beneath `folder` whose image is gone; a moved file keeps vector and metadata.

        Items from other folders are left alone. An emptied folder is an error and empties nothing: it may be a disk
        that is not mounted. An image that became unreadable keeps its item and is listed as bad.
        """
        if not Path(folder).is_dir():
            raise IsthmusError(f"There is no folder {show_name(folder)} to synchronise with; check the path.")
        options = Options(on_bad, workers, thorough, prune=True)
        return write_images(self.items, self.facts, self.model, folder, domain, metadata, options)

    def update(self, metadata: Source) -> int:
        """Change metadata of items that are there, by id or path; a value None clears. Returns how many items changed.

        Raises:
            IsthmusError: no row belongs to an item, or a value is of another kind than its column.
        """
        return update_metadata(self.items, metadata)

    def delete(self, ids: str | Iterable[str] | None = None, *, where: Where | None = None) -> int:
        """Delete items by id or by a filter; unknown ids are passed over. Returns how many were deleted."""
        if (ids is None) == (where is None):
            raise IsthmusError("Say what to delete: either ids or a filter (where), not both.")
        if ids is not None:
            return self.items.remove_ids([ids] if isinstance(ids, str) else list(ids))
        return self.items.remove(str(compile_where(where, self.columns)))

    def search(
        self,
        query: Query | None = None,
        *,
        id: str | None = None,
        domain: str | None = None,
        k: int = 10,
        where: Where | None = None,
        offset: int = 0,
        centring: bool | None = None,
        exact: bool = False,
        matches_only: bool = False,
    ) -> list[Hit]:
        """The items most similar to a query, best first; equal scores in the order of a fixed hash of their ids.

        The filter is applied before the best are taken: fewer than k hits come back only where fewer items pass it.

        Args:
            query: a path, a Pillow image, the bytes of an image file, a vector (dim,), or the id of an item.
            id: an item to find others like; the item itself is left out.
            domain: the query image's domain; the model's query domain if None.
            k: how many hits.
            where: a filter such as `"price < 50 AND brand IN ('Acme', 'Umbra')"`, see `isthmus.catalog.where`.
            offset: how many of the best to pass over (the second page: `offset=k`).
            centring: of the query image; as the catalog's items if None.
            exact: compare with every item, also where there is an approximate index.
            matches_only: of these k only the hits that are matches by the calibrated threshold, so perhaps none.

        Raises:
            IsthmusError: an unreadable image, an unknown id, column or domain, a filter that can't be read;
                `matches_only` where the model is not calibrated.
        """
        if (query is None) == (id is None):
            raise IsthmusError("Give one query: an image, a vector or the id of an item.")
        self._check(matches_only)
        with self.steady():
            centred = self._c(centring)
            found = query_vectors(self.items, self._owner.get, [query], id=id, domain=domain, centring=centred)
            return self._judged(search(self._searcher, found, k, where, offset, exact), found, centred, matches_only)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        domain: str | None = None,
        k: int = 10,
        where: Where | None = None,
        offset: int = 0,
        centring: bool | None = None,
        exact: bool = False,
        matches_only: bool = False,
    ) -> list[list[Hit]]:
        """`search` for several queries at once, embedded in batches; also takes vectors (n, dim)."""
        self._check(matches_only)
        with self.steady():
            centred = self._c(centring)
            found = query_vectors(self.items, self._owner.get, queries, domain=domain, centring=centred)
            return self._judged(search(self._searcher, found, k, where, offset, exact), found, centred, matches_only)

    def _judged(self, hits: list[list[Hit]], found: Queries, centred: bool | None, only: bool) -> list[list[Hit]]:
        return judged(hits, found.domains, self.calibration, (self.facts.centring, centred), matches_only=only)

    def _check(self, matches_only: bool) -> None:
        if matches_only and self.calibration is None:
            raise IsthmusError(NOT_CALIBRATED)

    @property
    def calibration(self) -> Calibration | None:
        """From which score on a hit is a match, as `isthmus calibrate` left it beside the model; None without it.

        Raises:
            IsthmusError: the file is damaged.
        """
        if self._calibration is None:
            self._calibration = (self._owner.calibration(),)
        return self._calibration[0]

    def judge_by(self, calibration: Calibration | None) -> None:
        """Tell matches by this calibration from now on; None: tell none."""
        self._calibration = (calibration,)

    def steady(self) -> AbstractContextManager[None]:
        """Within it, reads of this thread are all of one version: the newest when the first of them looks.

        Each search is so by itself. On object storage it also saves a request for each further look.

        Example:
            >>> with catalog.steady():                                                      # doctest: +SKIP
            ...     hits, version = catalog.search("cat.png"), catalog.items.version
        """
        return self._live.steady()

    def _c(self, centring: bool | None) -> bool | None:
        return self.facts.centring if centring is None else centring

    def count(self, where: Where | None = None) -> int:
        """How many items there are (that the filter lets pass)."""
        return self.items.count(compile_where(where, self.columns) if where is not None else None)

    def rows(self, where: Where | None = None) -> Iterator[dict[str, Any]]:
        """Id, path, content hash, domain, label and metadata of the items, in no particular order."""
        sql = compile_where(where, self.columns) if where is not None else None
        for batch in self.items.scan(["id", "path", "hash", "domain", "label", *self.items.kinds()], sql):
            yield from batch.to_pylist()

    def tune(self, recall: float | None = None) -> Effort:
        """Choose anew how hard the approximate index looks, for a wanted recall, and keep it with the catalog.

        Args:
            recall: wanted recall@10 against exact search, in (0, 1]; as the catalog was made with if None.

        Returns:
            What was chosen, with the recall that it reached.

        Raises:
            IsthmusError: there is no index, as the catalog is small enough for exact search; or no such recall.
        """
        if self.items.indexed() is None:
            raise IsthmusError(
                f"The catalog {self.path} has no index to tune: up to {self.facts.index_above:,} items each search is "
                "exact."
            )
        effort = choose_effort(self.items, self.facts.recall if recall is None else recall)
        keep_effort(self.items, effort)
        return effort

    def info(self) -> dict[str, Any]:
        """What the catalog is, as plain values; needs no model."""
        return describe(self.items, self.facts)

    def verify(self, *, files: bool = False) -> Report:
        """Read everything and report damage; with `files` also images that are gone or have changed since."""
        return verify(self.items, files=files)

    def reopened(self) -> Catalog:
        """The catalog as it is now, opened anew: after `superseded` with the vectors and the model that it has since.

        Raises:
            IsthmusError: as `open`.
        """
        return Catalog.open(self.path, storage_options=self._live.storage_options)

    @property
    def superseded(self) -> bool:
        """Whether the catalog is of another model by now: reads go on with what was there, writes need a new `open`."""
        return self._live.superseded

    def versions(self, limit: int = 20) -> list[Version]:
        """The newest versions of the catalog, newest first; see `isthmus.catalog.history`."""
        return versions(self._live, limit)

    def rollback(self, version: int) -> int:
        """Make an older version the newest, as a new version: nothing is lost. Returns the number of the new one."""
        return rollback(self._live, version)

    def compact(self, older_than: dt.timedelta = AGE, *, alone: bool = False) -> Compaction:
        """Merge small files and drop versions out of use for `older_than`; see `isthmus.catalog.history`."""
        return compact(self.items, self._live, older_than, alone=alone)
