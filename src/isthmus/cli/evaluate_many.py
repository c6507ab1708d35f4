"""`isthmus evaluate RUN RUN2 ...`: each run on its own split, then mean and standard deviation over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli.common import number, plain, print_json, visible

if TYPE_CHECKING:
    from isthmus.cli.evaluate_one import Options, Plan


def evaluate_many(runs: Sequence[str], options: Options, out: Path | None, *, json: bool) -> None:
    """Measure every run, keep its own files, and print and write the summary.

    No earlier evaluation is used: a model's fingerprint says nothing about the images that it was measured on.
    """
    from isthmus import __version__
    from isthmus.cli.evaluate_one import measure, prepare, write
    from isthmus.cli.evaluate_show import show_summary
    from isthmus.data.images import show_name
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.summary import summarise
    from isthmus.io import atomic_write_json, make_folder

    places: dict[Path, str] = {}
    for run in runs:
        if places.setdefault(Path(run).resolve(), run) != run or runs.count(run) > 1:
            raise IsthmusError(f"{show_name(run)} is named twice; name each run once, as n counts runs.")
    plans = [prepare(run, options, None) for run in runs]
    _alike(plans)
    if out is not None:
        make_folder(out.parent)
    evaluations, figures, listed, reranked = {}, {}, [], {}
    for place, plan in enumerate(plans, start=1):
        measured = measure(plan, options)
        write(plan, measured, options)
        evaluation = evaluations[plan.run] = measured.evaluation
        figures[plan.run] = measured.figures()
        if measured.reranked is not None:
            reranked[plan.run] = measured.reranked
        listed.append({"run": plan.run, "file": str(plan.file), "model": evaluation.model})
        if not json:
            score = number(evaluation.scores.get(evaluation.primary))
            print(f"[{place}/{len(plans)}] {visible(plan.run)}: {evaluation.primary} = {score}", flush=True)
    found = summarise(evaluations, figures)
    values = plain({"isthmus": __version__, "split": options.split, "runs": listed, "summary": found.to_dict()})
    if reranked:
        values["rerank"] = plain({run: how.to_dict() for run, how in reranked.items()})
    if out is not None:
        atomic_write_json(out, values)
    if json:
        print_json(values)
        return
    print()
    show_summary(found, list(reranked.values()))
    if out is not None:
        print(f"Summary: {show_name(out)}")


def _alike(plans: Sequence[Plan]) -> None:
    """What makes the runs' figures incomparable, found before any image is read; `summarise` looks at the rest."""
    from isthmus.errors import IsthmusError

    def described(plan: Plan) -> str:
        return " and ".join(
            f"{len(rows)} {domain.name} images" for domain, rows in zip(plan.domains, plan.rows, strict=True)
        )

    for plan in plans[1:]:
        if described(plan) != described(plans[0]):
            raise IsthmusError(
                f"The runs are not measured alike and have no common mean: {plans[0].run} has {described(plans[0])}, "
                f"{plan.run} has {described(plan)}; evaluate them apart, or on splits of one size."
            )
