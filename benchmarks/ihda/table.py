"""The tables of `run.py`'s results, printed as the page beside this file.

python benchmarks/ihda/table.py > benchmarks/ihda/README.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from isthmus.benchmark.results import Results
from isthmus.benchmark.rows import VARIANTS
from isthmus.benchmark.table import NOTES, compile_lines, grids, percent, points, share

HERE = Path(__file__).parent
KINDS = {"as-is": "as it is", "sensor": "synthetic sensor"}
SIZES = (50, 100, 150)
CORE = {"ihda": "IHDA", "target-only": "fine-tuning on the pairs", "joint": "plain joint training"}
ROWS = [row.name for row in VARIANTS]


def read(regime: str, kind: str, size: int) -> Results | None:
    """The results of one cell of the core table, or None."""
    found = Results.read(HERE / "results" / regime / f"{kind}-{size}", ROWS)
    return found if found.rows else None


def cells(regime: str) -> Iterator[tuple[str, int, Results]]:
    """Every kind of source and number of pairs that has results."""
    for kind in KINDS:
        for size in SIZES:
            found = read(regime, kind, size)
            if found is not None:
                yield kind, size, found


def show(columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def core(regime: str) -> None:
    """Scores of IHDA and its two rivals at each size, and their differences."""
    scores: list[list[str]] = []
    differences: list[list[str]] = []
    for kind, size, found in cells(regime):
        usual = read(regime, "as-is", size)
        if kind != "as-is" and usual is not None:
            # Fine-tuning reads the pairs alone: whatever the source's sensor, these are its runs.
            found = Results({**found.rows, "target-only": usual.rows["target-only"]}, found.queries)
        for row, title in CORE.items():
            if row not in found.rows:
                continue
            values = [
                percent(found.scores(row, direction, metric))
                for direction in found.directions
                for metric in ("R@1", "R@10", "mAP@all")
            ]
            human = found.mean_of(row, "human", "agreement")
            scores.append([KINDS[kind], str(size), title, str(len(found.rows[row])), *values, share(human)])
        for rival in ("target-only", "joint"):
            made = [
                found.difference("ihda", rival, metric, direction, 10_000)
                for metric, direction in (
                    ("R@1", found.directions[0]),
                    ("R@1", None),
                    ("R@10", None),
                    ("mAP@all", None),
                )
            ]
            if made[0] is None:
                continue
            above = ["yes" if one is not None and one.low > 0 else "no" for one in made]
            runs = sum(run in found.rows[rival] for run in found.rows["ihda"])
            differences.append(
                [KINDS[kind], str(size), f"IHDA - {CORE[rival]}", str(runs), *map(points, made), ", ".join(above[1:])]
            )
    directions = ("sketch → photo", "photo → sketch")
    heads = [f"{metric}, {direction}" for direction in directions for metric in ("R@1", "R@10", "mAP")]
    show(["source", "pairs", "row", "n", *heads, "human triplets"], scores)
    if differences:
        print("Paired differences over the splits and seeds that both have, in points [95 % interval]:\n")
        heads = ["R@1, sketch → photo", "R@1, both", "R@10, both", "mAP, both", "above 0 (R@1, R@10, mAP of both)"]
        show(["source", "pairs", "difference", "n", *heads], differences)


def ablation(regime: str) -> None:
    """The paper's ablation at 100 pairs, source as it is."""
    found = read(regime, "as-is", 100)
    if found is None or len(found.rows) <= len(CORE):
        return
    print("### Ablation: 100 pairs, the source as it is\n")
    for title, columns, rows in grids(compile_lines(found), found):
        print(f"**{title}**\n")
        show(columns, rows)
    print("\n".join(f"- {note}" for note in NOTES) + "\n")


def attributes(regime: str) -> None:
    """What the attribute head reads off sketches and photos of the test split, attribute by attribute."""
    found = read(regime, "as-is", 100)
    if found is None or "ihda" not in found.rows:
        return
    each: dict[str, dict[str, list[float]]] = {}
    for record in found.rows["ihda"].values():
        for domain, scores in (record["attributes"] or {}).items():
            for name, value in scores["balanced_accuracy"].items():
                each.setdefault(name, {}).setdefault(domain, []).append(value)
    if not each:
        return
    domains = found.directions[0].split("->")
    rows = [
        [name, *(share(float(np.mean(part[domain]))) if domain in part else "–" for domain in domains)]
        for name, part in sorted(each.items())
    ]
    total = [share(found.mean_of("ihda", "attributes", domain, "means", "balanced_accuracy")) for domain in domains]
    print("### Attributes read off test images (IHDA, 100 pairs, the source as it is)\n")
    print("Balanced accuracy, mean over the runs (.50: a guess); sketches have no attribute labels in training.\n")
    show(["attribute", *domains], [["all", *total], *rows])


def made(regime: str) -> str:
    """Machines, dates and the number of runs."""
    records = [
        record for _, _, found in cells(regime) for runs in found.rows.values() for record in runs.values()
    ]  # fmt: skip
    machines = sorted({str(record["machine"]) for record in records})
    dates = sorted({str(record["date"]) for record in records})
    minutes = sum(float(record["seconds"]["cpu"]) for record in records) / 60
    return f"{len(records)} runs, {dates[0]} to {dates[-1]}, on {'; '.join(machines)}; {minutes:.0f} CPU minutes."


def main() -> None:
    """Print the page."""
    print((HERE / "intro.md").read_text(encoding="utf-8").rstrip() + "\n")
    for settings in sorted(HERE.glob("*.yaml")):
        regime = settings.stem
        if next(cells(regime), None) is None:
            continue
        text = settings.read_text(encoding="utf-8")
        comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
        print(f"## Settings `{regime}`\n\n{comment}\n\n{made(regime)}\n")
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        print(f"```yaml\n{body.strip()}\n```\n")
        core(regime)
        ablation(regime)
        attributes(regime)


if __name__ == "__main__":
    main()
