"""`isthmus domains`: teach a model to tell of which of its two domains an image is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def domains(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a model's.")],
    query_domain: Annotated[
        str | None,
        typer.Option(metavar="NAME=PATH", help="Images of the query domain; those of the run's settings."),
    ] = None,
    gallery_domain: Annotated[
        str | None, typer.Option(metavar="NAME=PATH", help="The same of the gallery domain.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that paths in the lists and tables given here start from.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split to learn from: train, val or test.")] = "train",
    images: Annotated[int, typer.Option(help="At most so many of each domain.", min=10)] = 200,
    workers: Annotated[int, typer.Option(help="Threads that decode.", min=0)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Fit the domain chooser of a model and store it as domains.json; the model itself stays as it is."""
    from isthmus.cli.common import console as terminal
    from isthmus.cli.common import number, print_json, table, visible
    from isthmus.cli.domain_inputs import model_of, rows_of_both
    from isthmus.models.domains import FILE, fit_rows

    folder, names = model_of(Path(run))
    rows = rows_of_both(Path(run), names, (query_domain, gallery_domain), split, root)
    chooser = fit_rows(rows, names, most=images, workers=workers)
    chooser.save(folder)
    if as_json:
        print_json(
            {
                "file": str(folder / FILE),
                "domains": names,
                "images": chooser.images,
                "accuracy": chooser.accuracy,
                "confusion": chooser.confusion,
                "sure": chooser.sure,
                "sure_share": chooser.sure_share,
                "look": None if chooser.look is None else asdict(chooser.look),
            }
        )
        return
    counts = [[str(value) for value in row] for row in chooser.confusion]
    title = f"Held-out images of {names[0]} and {names[1]}: accuracy {number(chooser.accuracy)}"
    shown = [[f"is {name}", *row] for name, row in zip(names, counts, strict=True)]
    terminal().print(table(title, ["", *(f"taken for {name}" for name in names)], shown))
    if chooser.sure < 1:
        print(f"Sure from probability {chooser.sure:.3f} on: {chooser.sure_share:.0%} of the images.")
    else:
        print("No choice is sure: the two domains look too much alike, so name the domain when searching.")
    if chooser.look is not None:
        ground = "a dark" if chooser.look.dark else "a light"
        print(
            f"Drawings of {names[0]}: on {ground} ground, lines {chooser.look.line:.2%} and margins "
            f"{chooser.look.margin:.1%} of the side; what people draw on the page is drawn anew like this."
        )
    print(f"Stored in {visible(str(folder / FILE))}.")
