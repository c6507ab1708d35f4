"""`isthmus calibrate`: from which score on a hit is a match, chosen on a run's validation images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from isthmus.data.manifest import Manifest
    from isthmus.data.training import TrainingData
    from isthmus.models.calibration import Calibration

GALLERIES = (1_000, 100_000, 1_000_000)


def calibrate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a model's.")],
    fmr: Annotated[float, typer.Option(metavar="RATE", help="Wanted share of non-matching pairs that pass.")] = 1e-3,
    query_domain: Annotated[
        str | None,
        typer.Option(metavar="NAME=PATH", help="Validation images that ask; those of the run's settings."),
    ] = None,
    gallery_domain: Annotated[
        str | None, typer.Option(metavar="NAME=PATH", help="Validation images that answer, likewise.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that paths in the lists and tables given here start from.")
    ] = None,
    by: Annotated[str, typer.Option(help="What makes a pair a match: label, identity or auto.")] = "auto",
    prior: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of matches among pairs that probabilities hold for; validation's."),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % interval of the rate.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode.")] = 2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out and count them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Choose the score from which on a hit is a match, and keep it as calibration.json beside the model.

    It is chosen on validation images, for each direction, with and without centring; the model stays as it is. Searches
    then tell each hit's probability and whether it is a match.
    """
    from isthmus.cli.common import print_json, visible
    from isthmus.cli.domain_inputs import model_of
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.calibrate import calibrate_model, cautions
    from isthmus.evaluate.run import embed_domains
    from isthmus.evaluate.sides import relevance
    from isthmus.models.calibration import FILE
    from isthmus.models.encoder import load

    if by not in ("auto", "label", "identity"):
        raise IsthmusError(f"--by {by} is unknown; choose label, identity or auto.")
    for option, value in (("--fmr", fmr), ("--prior", prior)):
        if value is not None and not 0 < value < 1:
            raise IsthmusError(f"{option} {value:g} is no share; choose one between 0 and 1, such as 1e-3.")
    folder, names = model_of(Path(run))
    rows, held_out = validation_rows(Path(run), names, (query_domain, gallery_domain), root)
    chosen = relevance(list(rows[0]), list(rows[1])) if by == "auto" else by
    model = load(run)
    embedded = embed_domains(
        model, *rows, batch_size=batch_size, workers=workers, progress=not as_json,
        on_bad="skip" if skip_bad else "raise",
    )  # fmt: skip
    found = calibrate_model(model, embedded, *rows, chosen, fmr, prior=prior, bootstrap=bootstrap, seed=seed)
    found.save(folder)
    said = cautions(found)
    if as_json:
        print_json({"file": str(folder / FILE), "held_out": held_out, **_values(found), "cautions": said})
        return
    show(found, held_out)
    for sentence in said:
        print(f"Caution: {visible(sentence)}", file=sys.stderr)
    print(f"Stored in {visible(str(folder / FILE))}.")


def validation_rows(
    run: Path, names: tuple[str, str], given: tuple[str | None, str | None], root: str | None
) -> tuple[tuple[Manifest, Manifest], bool]:
    """Validation images of both domains: those given, else the run's own, perhaps held out of its training images.

    Returns:
        The rows, and whether some were held out.

    Raises:
        IsthmusError: there are none, or they are of other domains than the model's.
    """
    from isthmus.cli.evaluate_inputs import rows_of
    from isthmus.config import DomainConfig, RunConfig
    from isthmus.data.files import show_name
    from isthmus.data.manifest import Manifest
    from isthmus.data.paired import read_paired_data
    from isthmus.data.training import read_training_data
    from isthmus.errors import IsthmusError

    own: TrainingData | None = None
    if None in given and (run / "config.yaml").is_file():
        config = RunConfig.load(run / "config.yaml")
        if config.data.query is not None and config.data.gallery is not None:
            if config.method == "ihda":
                own = read_paired_data(
                    config.data, seed=config.seed, attributes=[], source="optional", unpaired="skip"
                )  # fmt: skip
            else:
                own = read_training_data(config.data, synthetic=False, seed=config.seed)
    found: list[Manifest] = []
    for side, (option, name, text) in enumerate(zip(("--query-domain", "--gallery-domain"), names, given, strict=True)):
        if text is not None:
            domain = DomainConfig.parse(text, main="val", root=root)
            if domain.name != name:
                raise IsthmusError(f"The model's domain is '{name}', not '{domain.name}': {option} {name}=PATH.")
            found.append(rows_of(domain, "val"))
            continue
        if own is None or not own.val[side]:
            raise IsthmusError(
                f"{show_name(run)} names no validation images of '{name}', and test images must not choose a "
                f"threshold: add  {option} {name}=PATH."
            )
        if own.names[side] != name:
            raise IsthmusError(f"The model's domain is '{name}', and the run's settings name '{own.names[side]}'.")
        found.append(Manifest(own.val[side]))
    return (found[0], found[1]), own is not None and own.held_out


def show(found: Calibration, held_out: bool) -> None:
    """Print thresholds, their rates, and what they mean in galleries of several sizes."""
    from isthmus.cli.common import console, number, table

    rows = [
        [
            f"{part.query} -> {part.item}", part.setting, number(part.threshold), f"{part.fmr:.2g}",
            f"{part.fmr_high:.2g}", number(part.fnmr), f"{part.genuine:,}", f"{part.impostor:,}", f"{part.prior:.2g}",
        ]
        for part in found.parts
    ]  # fmt: skip
    columns = ["direction", "setting", "threshold", "FMR", "at most", "FNMR", "genuine", "impostor", "prior"]
    screen = console()
    screen.print(table(f"Thresholds for a false-match rate of {found.rate:g}", columns, rows))
    rows = [
        [f"{part.query} -> {part.item}", part.setting,
         *[f"{_count(part.fmr * size)} (up to {_count(part.fmr_high * size)})" for size in GALLERIES]]
        for part in found.parts
    ]  # fmt: skip
    title = "False matches to expect of one search in a gallery of"
    screen.print(table(title, ["direction", "setting", *[f"{size:,}" for size in GALLERIES]], rows))
    how = "held out of the training images" if held_out else "of the validation split"
    screen.print(
        f"{found.images[0]} and {found.images[1]} images {how}; a match is the same {found.by}. FMR: share of impostor "
        "pairs that pass, at most: upper end of its 95 % interval over queries; FNMR: share of genuine pairs that "
        "miss the threshold. Probabilities hold where the share of matches among pairs is the prior.",
        soft_wrap=True,
    )


def _count(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 100 else f"{expected:.2g}"


def _values(found: Calibration) -> dict[str, object]:
    from dataclasses import asdict

    values = asdict(found)
    for part in values["parts"]:
        part["false_matches"] = {str(size): part["fmr"] * size for size in GALLERIES}
        part["false_matches_at_most"] = {str(size): part["fmr_high"] * size for size in GALLERIES}
    return values
