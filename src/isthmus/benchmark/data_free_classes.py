"""Which images and classes a data-free benchmark uses: known ones, held-out ones, and who knows which."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from isthmus.config import DomainConfig
from isthmus.config.sections import SPLITS
from isthmus.data.manifest import Row, some_of
from isthmus.data.training import read_domain
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash

TEST_SHARE = 0.25
FEWEST = 2  # classes of a classifier, and images to train it on


@dataclass(frozen=True)
class Images:
    """The labelled images of a domain.

    Attributes:
        name: the domain.
        where: what was read, for messages.
        rows: each with its split.
        notes: what the user should hear.
    """

    name: str
    where: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def of(self, classes: Iterable[str], *splits: str) -> list[Row]:
        """The images of these classes, in these splits or (none named) in all."""
        wanted = set(classes)
        return [row for row in self.rows if row.label in wanted and (not splits or row.split in splits)]

    def counts(self, *splits: str) -> Counter[str]:
        """How many images each class has in these splits, or in all."""
        return Counter(str(row.label) for row in self.rows if not splits or row.split in splits)


def read_images(name: str, text: str, *, root: str | None = None) -> Images:
    """Read a domain's images as `isthmus train` does; where no test images are named, a quarter of each class is drawn.

    Args:
        name: the domain.
        text: `PATH[,val=PATH][,test=PATH]`: folders, lists or tables.
        root: the folder that the paths in lists are relative to.

    Raises:
        IsthmusError: a path is missing, an image has no label, or one is in two splits.
    """
    domain = DomainConfig.parse(f"{name}={text}", root=root)
    found: dict[str, Row] = {}
    for split in SPLITS:
        manifest = read_domain(domain, split)
        for row in [] if manifest is None else manifest.select(domain=name, real=True):
            if row.id in found:
                raise IsthmusError(
                    f"{row.id} is in the splits {found[row.id].split} and {split} of {text}; take it out of one."
                )
            found[row.id] = replace(row, split=split)
    rows = list(found.values())
    bare = [row.id for row in rows if row.label is None]
    if bare:
        raise IsthmusError(
            f"{len(bare)} of {len(rows)} images of '{name}' in {text} have no label, such as {bare[0]}; put each class "
            "into a folder of its own, or list them as  path label."
        )
    if not any(row.split == "train" for row in rows):
        raise IsthmusError(f"{text} has no training images of '{name}'; name a folder, list or table that has some.")
    if any(row.split == "test" for row in rows):
        return Images(name, text, tuple(rows))
    note = (
        f"No test images of '{name}' are named: {TEST_SHARE:.0%} of each class, chosen by a hash of their names, are "
        "kept for the test."
    )
    return Images(name, text, tuple(_draw_test(rows)), (note,))


def _draw_test(rows: Sequence[Row]) -> list[Row]:
    """The rows, some of the training images as test images; what shows one thing stays together."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups[str(row.label)].add(row.identity or row.id)
    drawn = {
        (label, name)
        for label, members in groups.items()
        for name in sorted(members, key=lambda name: stable_hash("test", name))[
            : max(round(TEST_SHARE * len(members)), len(members) > 1)
        ]
    }
    return [
        replace(row, split="test") if row.split == "train" and (row.label, row.identity or row.id) in drawn else row
        for row in rows
    ]


def choose_classes(
    sketch: Images, photo: Images, *, classes: Sequence[str] | None, known: int | None, held_out: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The known and the held-out classes.

    Args:
        sketch, photo: the images.
        classes: the known ones by name; or
        known: how many, those with most test sketches; both None: all that are left by `held_out`.
        held_out: how many that no teacher sees; the next ones with most sketches.

    Raises:
        IsthmusError: a class lacks images, or there are not so many.
    """
    if classes is not None and known is not None:
        raise IsthmusError("--classes names the known classes and --known counts them; give one of the two.")
    lacks = _Lacks(sketch, photo)
    tests = sketch.counts("test")
    order = sorted({*sketch.counts(), *photo.counts()}, key=lambda name: (-tests[name], name))
    whole = [name for name in order if lacks.to_learn(name) is None]
    if classes is not None:
        twice = [name for name, count in Counter(classes).items() if count > 1]
        if twice:
            raise IsthmusError(f"--classes names '{twice[0]}' twice; name each class once.")
        for name in classes:
            reason = lacks.to_learn(name)
            if reason is not None:
                raise IsthmusError(f"The class '{name}' of --classes {reason}; leave it out, or add some.")
        chosen = list(classes)
    else:
        count = len(whole) - held_out if known is None else known
        if count > len(whole):
            raise IsthmusError(
                f"--known is {count}, but {len(whole)} classes have training and test images in both domains; lower it."
            )
        chosen = whole[: max(count, 0)]
    if len(chosen) < FEWEST:
        raise IsthmusError(f"{len(chosen)} classes are known; a classifier needs {FEWEST} at least.")
    totals = sketch.counts()
    rest = [name for name in order if name not in chosen and lacks.to_be_found(name) is None]
    rest.sort(key=lambda name: (-tests[name], -totals[name], name))
    if held_out < 0 or held_out > len(rest):
        raise IsthmusError(
            f"--held-out is {held_out}, but {len(rest)} classes with images in both domains are left beside the "
            f"{len(chosen)} known ones; write 0 to {len(rest)}."
        )
    return tuple(sorted(chosen)), tuple(sorted(rest[:held_out]))


class _Lacks:
    """What a class has none of, in words."""

    def __init__(self, *domains: Images) -> None:
        self.domains = domains
        self.counts = [{"": part.counts(), **{split: part.counts(split) for split in ("train", "test")}}
                       for part in domains]  # fmt: skip

    def to_learn(self, name: str) -> str | None:
        for part, counts in zip(self.domains, self.counts, strict=True):
            if not counts[""][name]:
                return f"has no {part.name} in {part.where} (it has: {some_of(sorted(counts['']))})"
            for split, word in (("train", "training"), ("test", "test")):
                if not counts[split][name]:
                    return f"has no {word} {part.name} in {part.where}"
        return None

    def to_be_found(self, name: str) -> str | None:
        missing = [part.name for part, counts in zip(self.domains, self.counts, strict=True) if not counts[""][name]]
        return f"has no {missing[0]}" if missing else None


def divide(known: Sequence[str], overlap: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes of the sketch and of the photo teacher: a share is both's, the rest goes in turn to one or the other.

    A smaller share of one seed lies in a larger one.

    Args:
        known: all of them.
        overlap: the share, in (0, 1].
        seed: of the draw.

    Raises:
        IsthmusError: the share leaves no common class, or a teacher too few.

    Example:
        >>> sketch, photo = divide(["a", "b", "c", "d"], 0.5, 0)
        >>> len(sketch), len(photo), len(set(sketch) & set(photo)), len(set(sketch) | set(photo))
        (3, 3, 2, 4)
    """
    if not 0 < overlap <= 1:
        raise IsthmusError(f"--overlap is {overlap:g}; write a share of the known classes above 0, 1 at most.")
    order = sorted(known, key=lambda name: stable_hash("overlap", seed, name))
    count = round(overlap * len(order))
    if count < 1:
        raise IsthmusError(
            f"--overlap {overlap:g} of {len(order)} known classes leaves none that both teachers know; raise it."
        )
    both, rest = order[:count], order[count:]
    made = tuple(tuple(sorted([*both, *rest[start::2]])) for start in (1, 0))
    if min(map(len, made)) < FEWEST:
        raise IsthmusError(
            f"--overlap {overlap:g} of {len(order)} known classes leaves a teacher {min(map(len, made))} class; a "
            f"classifier needs {FEWEST} at least: raise it."
        )
    return made[0], made[1]
