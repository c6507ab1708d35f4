"""From marks to pairs: a table of images for training on pairs, those of one identity showing the same thing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.data.files import ImageError, content_hash
from isthmus.data.manifest import Manifest, Row, absolute
from isthmus.io import fingerprint
from isthmus.serve.feedback import Mark, Side

Node = tuple[str, str]  # domain, content: equal images are one, whatever their ids


@dataclass
class Pairs:
    """What marks come to.

    Attributes:
        pairs: the images of all identities that are seen in two domains.
        wrong: (query, item) as rows of a manifest each, that were marked wrong.
        identities: how many.
        one_domain: right marks of images of one domain, which are no pairs across domains.
        gone: images that are gone or have changed since.
        contradictory: identities left out, because a mark says that two of their images don't show the same thing.
    """

    pairs: Manifest = field(default_factory=Manifest)
    wrong: list[tuple[Row, Row]] = field(default_factory=list)
    identities: int = 0
    one_domain: int = 0
    gone: int = 0
    contradictory: int = 0


def make_pairs(marks: Iterable[Mark], folder: Path) -> Pairs:
    """Group what was marked right into identities.

    A query and an item marked right show the same thing, and so do all that are joined by a chain of such marks. Of
    several marks of the same two images the last counts.

    Args:
        marks: in the order in which they were made.
        folder: of the marks; the paths of queries start there.

    Example:
        >>> query, item = Side(None, "queries/a.png", "a", "sketch"), Side("b.png", "/b.png", "b", "photo")
        >>> make_pairs([Mark(query, item, True, "")], Path("marks")).gone  # the files of this example are not there
        2
    """
    last: dict[tuple[Node, Node], Mark] = {}
    for mark in marks:
        key = (_node(mark.query), _node(mark.item))
        last.pop(key, None)
        last[key] = mark
    result = Pairs()
    rows: dict[Node, Row | None] = {}
    ids: set[str] = set()
    for mark in last.values():
        for side in (mark.query, mark.item):
            node = _node(side)
            if node not in rows:
                rows[node] = _row(side, folder, ids)
                result.gone += rows[node] is None
    usable = [mark for mark in last.values() if rows[_node(mark.query)] and rows[_node(mark.item)]]
    crossing = [mark for mark in usable if mark.query.domain != mark.item.domain]
    result.one_domain = sum(mark.right for mark in usable) - sum(mark.right for mark in crossing)
    groups = _groups([(_node(mark.query), _node(mark.item)) for mark in crossing if mark.right])
    denied = [
        (_node(mark.query), _node(mark.item))
        for mark in usable
        if not mark.right and _node(mark.query) != _node(mark.item)
    ]
    found: list[Row] = []
    for group in groups:
        members = set(group)
        if any(query in members and item in members for query, item in denied):
            result.contradictory += 1
            continue
        # From the members, so that the same marks give the same names on every machine and in every order.
        name = f"pair-{fingerprint(sorted(group))[:12]}"
        result.identities += 1
        found += [_named(row, name) for node in sorted(group) if (row := rows[node]) is not None]
    result.pairs = Manifest(found)
    result.wrong = [
        (query, item)
        for mark in usable
        if not mark.right and (query := rows[_node(mark.query)]) and (item := rows[_node(mark.item)])
    ]
    return result


def wrong_list(wrong: Sequence[tuple[Row, Row]]) -> bytes:
    """What was marked wrong as a CSV table: path and domain of the query; id, path and domain of the hit."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["query_path", "query_domain", "item", "item_path", "item_domain"])
    writer.writerows([query.path, query.domain, item.id, item.path, item.domain] for query, item in wrong)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _node(side: Side) -> Node:
    return side.domain, side.content


def _groups(edges: Sequence[tuple[Node, Node]]) -> list[list[Node]]:
    """The connected components, in the order of their first edges."""
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in edges:
        parent[root(second)] = root(first)
    groups: dict[Node, list[Node]] = {}
    for node in parent:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def _row(side: Side, folder: Path, ids: set[str]) -> Row | None:
    """The image as a row, or None where it is no longer what was marked."""
    path = absolute(side.path, folder) if side.id is None else side.path
    try:
        if content_hash(path) != side.content:
            return None
    except ImageError:
        return None
    id = f"{side.domain}/query-{side.content[:32]}" if side.id is None else side.id
    if id in ids:  # an item whose image was replaced between two marks would have two rows
        id = f"{id}#{side.content[:12]}"
    ids.add(id)
    return Row(id, path, side.domain)


def _named(row: Row, identity: str) -> Row:
    return Row(row.id, row.path, row.domain, identity=identity)
