"""`isthmus feedback`: from the marks that people set in the search page to pairs to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.errors import IsthmusError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What people marked as right and wrong.")


@app.callback()
def feedback() -> None:
    """What people marked as right and wrong."""


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where isthmus serve keeps the marks.")],
    out: Annotated[Path, typer.Option(help="The table of pairs to write.", metavar="pairs.csv")],
    wrong: Annotated[
        Path | None, typer.Option(help="The list of wrong pairs; beside the other, named -wrong.", metavar="wrong.csv")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON and nothing else.")] = False,
) -> None:
    """Write what was marked right as a table of pairs that `isthmus train --method ihda` reads."""
    from isthmus.cli.common import print_json, visible
    from isthmus.io import atomic_write_bytes
    from isthmus.serve.feedback import read_marks
    from isthmus.serve.pairs import make_pairs, wrong_list

    if out.suffix.lower() not in (".csv", ".parquet"):
        raise IsthmusError(f"{out} is no table by its name; end it in .csv or .parquet.")
    beside = wrong or out.with_name(f"{out.stem}-wrong.csv")
    if beside.suffix.lower() != ".csv":
        raise IsthmusError(f"{beside} is no list by its name; end it in .csv.")
    if beside.absolute() == out.absolute():
        raise IsthmusError("The pairs and the wrong ones need a file each; give --wrong another name.")
    marks, torn = read_marks(folder)
    found = make_pairs(marks, folder.absolute())
    if not len(found.pairs) and not found.wrong:
        raise IsthmusError(
            f"Of {len(marks)} marks in {folder} none can be used: {found.gone} images are gone or changed, "
            f"{found.one_domain} pairs are of one domain, {found.contradictory} identities contradictory; mark more."
        )
    atomic_write_bytes(beside, wrong_list(found.wrong))
    found.pairs.save(out)  # also where there are none: an older table would be taken for this one
    counts = {
        "marks": len(marks), "identities": found.identities, "images": len(found.pairs), "wrong": len(found.wrong),
        "gone": found.gone, "one_domain": found.one_domain, "contradictory": found.contradictory, "unreadable": torn,
    }  # fmt: skip
    if json:
        print_json(counts)
        return
    print(visible(f"{found.identities} identities with {len(found.pairs)} images in {out}"))
    print(visible(f"{len(found.wrong)} wrong pairs in {beside}"))
    for count, what in (
        (found.gone, "images are gone or have changed and are left out"),
        (found.one_domain, "right marks are of images of one domain and left out"),
        (found.contradictory, "identities hold a pair that was marked wrong and are left out"),
        (torn, "lines could not be read"),
    ):
        if count:
            print(f"{count} {what}")
