"""What `isthmus domains` reads: the model's folder and names, and the images of both domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.data.manifest import Row

Pair = tuple[str | None, str | None]


def model_of(run: Path) -> tuple[Path, tuple[str, str]]:
    """The model folder of a run and the names of its domains; the weights are not read.

    Raises:
        IsthmusError: there is no encoder for two domains.
    """
    from isthmus.data.files import show_name
    from isthmus.errors import IsthmusError
    from isthmus.io import read_json

    folder = run / "model" if (run / "model" / "config.json").is_file() else run
    if not (folder / "config.json").is_file():
        raise IsthmusError(
            f"{show_name(run)} is no model: there is no config.json in it; name a run or a model folder."
        )
    config = read_json(folder / "config.json")
    names = config.get("domains") if isinstance(config, dict) else None
    encoder = isinstance(config, dict) and "architecture" in config and "preprocessing" in config
    if not encoder or not isinstance(names, list) or len(names) != 2 or not all(isinstance(n, str) for n in names):
        raise IsthmusError(f"{show_name(run)} is no model of two domains that searches; name a run that made one.")
    return folder, (names[0], names[1])


def rows_of_both(
    run: Path, names: tuple[str, str], given: Pair, split: str, root: str | None
) -> tuple[list[Row], list[Row]]:
    """The images of both domains: from the command line where named there, else from the run's settings.

    Raises:
        IsthmusError: an unknown split, other domains than the model's, or no images.
    """
    from isthmus.cli.evaluate_inputs import rows_of
    from isthmus.config import DomainConfig, RunConfig
    from isthmus.data.files import show_name
    from isthmus.errors import IsthmusError

    if split not in ("train", "val", "test"):
        raise IsthmusError(f"--split is train, val or test, not '{split}'.")
    settings = run / "config.yaml"
    own: list[DomainConfig | None] = [None, None]
    if None in given and settings.is_file():
        data = RunConfig.load(settings).data
        own = [data.query, data.gallery]
    found: list[list[Row]] = []
    for option, name, text, theirs in zip(("--query-domain", "--gallery-domain"), names, given, own, strict=True):
        domain = DomainConfig.parse(text, main=split, root=root) if text else theirs
        if domain is None:
            raise IsthmusError(f"{show_name(run)} names no images of '{name}': add  {option} {name}=PATH.")
        if domain.name != name:
            raise IsthmusError(f"The model's domain is '{name}', not '{domain.name}': {option} {name}=PATH.")
        found.append(list(rows_of(domain, split)))
    return found[0], found[1]
