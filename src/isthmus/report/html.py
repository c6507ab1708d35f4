"""One HTML file that shows how well a model retrieves: scores, curves, classes, pictures, training and settings."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus import __version__
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_text
from isthmus.report.columns import Group, by_direction, headline, metric_of, score_table
from isthmus.report.figures import Bar, Line, bars, lines
from isthmus.report.gallery import query_sections
from isthmus.report.history import read_log, read_model_facts, read_settings, training_figures
from isthmus.report.measures import agreement_rows, attribute_tables, variant_tables
from isthmus.report.pictures import ImageLookup, Pictures
from isthmus.report.verification import verification_parts

if TYPE_CHECKING:
    from markupsafe import Markup

    from isthmus.evaluate.attributes import AttributeScores
    from isthmus.evaluate.human import Agreement
    from isthmus.evaluate.run import Evaluation, Side
    from isthmus.evaluate.variants import Variants
    from isthmus.evaluate.verify import Verified

MOST_CLASSES = 16  # more bars than this nobody reads: then the best and the worst are shown
CMC_RANKS = 100  # beyond that nobody scrolls


def write_report(
    path: str | Path,
    title: str,
    evaluations: Mapping[str, Evaluation],
    *,
    run_folder: str | Path | None = None,
    images: ImageLookup | None = None,
    notes: Sequence[str] = (),
    subtitle: str = "",
    attributes: Sequence[AttributeScores] = (),
    agreement: Mapping[str, Agreement] | None = None,
    variants: Variants | None = None,
    verified: Sequence[Verified] = (),
) -> Path:
    """Write a report of one or several evaluations of the same queries and galleries, side by side.

    The page loads nothing from outside and runs no script. Names, labels and notes are escaped. Pictures that can't be
    read are blank tiles.

    Args:
        path: the HTML file; written whole or not at all.
        title: heading of the page.
        evaluations: by the name to show, the most important first: its queries are shown with pictures.
        run_folder: a run, whose log, settings and model facts are shown too.
        images: path by image id, as a mapping or a function; None for a report without pictures.
        notes: what the reader should know first, a sentence each.
        subtitle: a line beneath the title.
        attributes: how well the first evaluation's model reads attributes, by domain.
        agreement: of that model with human triplets, by setting.
        variants: other papers' metrics of the first evaluation, for a section of their own.
        verified: what that model verifies, by direction and setting.

    Returns:
        The path.

    Raises:
        IsthmusError: no evaluation, or the file can't be written.

    Example:
        >>> write_report("report.html", "PACS", {"SynCDR": evaluation}, images=paths.get)  # doctest: +SKIP
    """
    if not evaluations:
        raise IsthmusError("A report needs at least one evaluation; evaluate a model first.")
    html = render(
        title, evaluations, Pictures(images), run_folder=run_folder, notes=notes, subtitle=subtitle,
        attributes=attributes, agreement=agreement, variants=variants, verified=verified,
    )  # fmt: skip
    atomic_write_text(path, html)
    return Path(path)


def render(
    title: str,
    evaluations: Mapping[str, Evaluation],
    pictures: Pictures,
    *,
    run_folder: str | Path | None = None,
    notes: Sequence[str] = (),
    subtitle: str = "",
    attributes: Sequence[AttributeScores] = (),
    agreement: Mapping[str, Agreement] | None = None,
    variants: Variants | None = None,
    verified: Sequence[Verified] = (),
) -> str:
    """The page as text; see `write_report`."""
    from jinja2 import Environment, PackageLoader

    groups = by_direction(evaluations)
    first = next(iter(evaluations.values()))
    metric = metric_of(first)
    curves = [_curves(group) for group in groups]
    classes = [figure for group in groups if (figure := _class_figure(group))]
    queries = query_sections(groups, pictures)
    training = training_figures(read_log(Path(run_folder) / "log.csv")) if run_folder is not None else []
    contents = [
        ("scores", "Scores", True),
        ("variants", "Other papers' variants", variants is not None),
        ("curves", "Curves", True),
        ("classes", "By class", bool(classes)),
        ("verification", "Verification", bool(verified)),
        ("attributes", "Attributes", bool(attributes)),
        ("people", "Agreement with people", bool(agreement)),
        ("queries", "Queries and their hits", bool(queries)),
        ("training", "Training", bool(training)),
        ("provenance", "Settings and provenance", True),
    ]
    if first.skipped:
        notes = [*notes, f"Left out because they can't be read: {len(first.skipped)} images."]
    environment = Environment(
        loader=PackageLoader("isthmus.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    several = len(groups[0].columns) > 1
    return environment.get_template("evaluation.html.j2").render(
        title=title,
        subtitle=subtitle,
        version=__version__,
        notes=list(notes),
        contents=[(anchor, name) for anchor, name, there in contents if there],
        several=several,
        main_name=next(iter(groups[0].columns)),
        headline=[headline(group, metric) for group in groups],
        summary=[_summary(group, metric) for group in groups] if several else [],
        tables=[score_table(group, metric) for group in groups],
        curves=curves,
        classes=classes,
        verification=verification_parts(verified),
        attributes=attribute_tables(attributes),
        agreement=agreement_rows(agreement or {}),
        variants=variant_tables(variants),
        queries=queries,
        training=training,
        provenance=_provenance(first, run_folder),
        config_text=read_settings(run_folder) if run_folder is not None else "",
    )


def _summary(group: Group, metric: str) -> Markup:
    rows = [
        Bar(
            name, side.scores[metric], side.intervals.get(metric), side.chance.get(metric),
            colour=group.colour(name), pale=name not in group.mains,
        )
        for name, side in group.columns.items()
        if metric in side.scores
    ]  # fmt: skip
    return bars(rows, title=f"{group.title}: {metric}")


def _curves(group: Group) -> dict[str, str]:
    # With several evaluations a line for each main setting; all settings of all would be a tangle.
    shown = {name: side for name, side in group.columns.items() if name in group.mains} or group.columns
    if len(group.mains) == 1:
        shown = group.columns
    recalls = [step / 20 for step in range(1, 21)]
    precision = [
        Line(name, recalls, side.precision_at_recall, colour=group.colour(name)) for name, side in shown.items()
    ]
    share = group.first.chance.get("R-precision")  # of the gallery, how much is relevant: the precision of any guess
    if share is not None:
        precision.append(Line("chance", (0.05, 1.0), (share, share), dashed=True))
    cmc = [Line(name, *_cmc(side), colour=group.colour(name)) for name, side in shown.items()]
    chance = sorted((float(name[2:]), value) for name, value in group.first.chance.items() if name.startswith("R@"))
    if chance:
        cmc.append(Line("chance", [k for k, _ in chance], [value for _, value in chance], dashed=True))
    return {
        "direction": group.title,
        "precision_recall": lines(
            precision, x_label="recall", y_label="precision", title="Precision and recall", x_range=(0.0, 1.0)
        ),
        "cmc": lines(
            cmc, x_label="first k hits", y_label="share of queries", title="A relevant hit among the first k (CMC)",
            log_x=True,
        ),
    }  # fmt: skip


def _cmc(side: Side) -> tuple[list[float], list[float]]:
    """The share of queries whose first relevant item is among the first k, for k = 1, 2, ..."""
    ranks = sorted(side.first_ranks)
    last = min(CMC_RANKS, side.n_gallery)
    shares, found = [], 0
    for k in range(1, last + 1):
        while found < len(ranks) and ranks[found] <= k:
            found += 1
        shares.append(found / max(1, len(ranks)))
    return [float(k) for k in range(1, last + 1)], shares


def _class_figure(group: Group) -> Markup | None:
    """Bars of mean AP by class; None where most classes have a single query, as with identities."""
    side = group.first
    values: dict[str, list[float]] = {}
    for label, value in zip(side.query_labels, side.per_query.get("mAP@all", ()), strict=False):
        values.setdefault(label, []).append(value)
    if len(values) < 2 or len(side.query_labels) < 2 * len(values):
        return None
    means = sorted(((sum(part) / len(part), label) for label, part in values.items()), key=lambda x: (-x[0], x[1]))
    title = group.title
    if len(means) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        title += f": the best and the worst {half} of {len(means)} classes"
        means = [*means[:half], *means[-half:]]
    rows = [Bar(f"{label} ({len(values[label])})", value, colour=0) for value, label in means]
    return bars(rows, title=title, top=1.0)


def _provenance(evaluation: Evaluation, run_folder: str | Path | None) -> list[tuple[str, str]]:
    facts = [("run", str(run_folder)), *read_model_facts(run_folder)] if run_folder is not None else []
    if evaluation.model and evaluation.model not in (value for _, value in facts):
        facts.append(("model's fingerprint", evaluation.model))
    return [
        *facts,
        ("relevant is", f"a gallery image of the same {evaluation.by}"),
        ("written", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
        ("isthmus", __version__),
        *[(package, version) for package in ("torch", "timm") if (version := _version(package))],
        ("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
