"""Data sets of classes in several domains: where each domain's class folders lie, and what the publication counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.data.files import list_images

Places = tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """One domain of a data set.

    Attributes:
        name: as tables and the command line call it; no space in it.
        places: folders of class folders. Each entry is a tuple of names that the one folder goes by; the first entry
            has to be there, the others add to it.
        images: how many images were published; None: not known, or known as a round number only.
        cleaned: how many a later, cleaned release holds; None: there is none.
        listed: the name in file lists, `<listed>_train.txt`.
        splits: how many images the published lists train, validate and test on.
        other: further names that `--query` and `--gallery` may use.
    """

    name: str
    places: tuple[Places, ...]
    images: int | None = None
    listed: str = ""
    splits: tuple[int, int, int] | None = None
    other: tuple[str, ...] = ()
    cleaned: int | None = None

    def fits(self, images: int) -> bool:
        """Whether a number of images is a published one, or none is known."""
        return self.images is None or images in (self.images, self.cleaned)


@dataclass(frozen=True)
class Family:
    """What is known of a data set of classes.

    Attributes:
        domains: its domains; the first two are query and gallery where none are named.
        classes: how many classes were published.
        protocols: which of `isthmus.data.adapters.protocols.PROTOCOLS` it has, its usual one first.
        halves: how many classes the published lists have in either half; all classes of the lists together.
        unseen: number of the class split -> how many classes are tested on, and their names where they are published.
        eligible: how many gallery images an unseen class needs to be drawn.
        share: the shares of a class's images that are validated and tested on, where no list says.
        drawn_after: whether `NAME-1.png` was drawn after `NAME.jpg`, so that both belong in one split.
    """

    domains: tuple[Domain, ...]
    classes: int
    protocols: tuple[str, ...]
    halves: tuple[int, int] | None = None
    unseen: Mapping[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    eligible: int = 0
    share: tuple[float, float] = (0.2, 0.3)
    drawn_after: bool = False


def plain(name: str) -> str:
    """A name without case, spaces and punctuation: under it the class folders of two domains are the same class.

    Example:
        >>> plain("alarm clock") == plain("Alarm_Clock") == plain("alarmclock"), plain("004.Groove_billed_Ani")
        (True, '004groovebilledani')
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def folders_of(root: Path, domain: Domain) -> list[Path]:
    """The folders of a domain that are there, beneath `root` or one folder further down; empty: it is not there."""
    found: list[Path] = []
    for number, names in enumerate(domain.places):
        tops = (root, *inner_folders(root))
        here = next((top / name for top in tops for name in names if (top / name).is_dir()), None)
        if here is not None:
            found.append(here)
        elif number == 0:
            return []
    return found


def inner_folders(root: Path) -> list[Path]:
    """The folders right beneath `root`: archives often unpack into one of their own."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def by_class(folders: Sequence[Path]) -> tuple[dict[str, list[Path]], int]:
    """Class folder -> its images, at any depth; and how many images lie in no class folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    outside = 0
    for folder in folders:
        for path in list_images(folder):
            parts = path.relative_to(folder).parts
            if len(parts) == 1:
                outside += 1
            else:
                found[parts[0]].append(path)
    return dict(sorted(found.items())), outside
