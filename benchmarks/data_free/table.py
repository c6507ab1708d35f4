"""The tables of `run.py`'s results, printed as the page beside this file.

python benchmarks/data_free/table.py > benchmarks/data_free/README.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from run import CURVE, HERE

from isthmus.benchmark.data_free_grids import data_free_markdown
from isthmus.benchmark.data_free_table import SETS, DataFreeResults, compile_data_free
from isthmus.benchmark.table import percent, points

SETTINGS = ("independent", "unified")


def cells(regime: str) -> Iterator[tuple[int, int, DataFreeResults]]:
    """Classes, overlap in percent and results of every table that there is."""
    places = (path for path in (HERE / "results" / regime).glob("*-*") if path.is_dir())
    for place in sorted(places, key=lambda path: [int(part) for part in path.name.split("-")]):
        known, overlap = (int(part) for part in place.name.split("-"))
        for setting in SETTINGS:
            found = DataFreeResults.read(place / setting)
            if found is not None:
                yield known, overlap, found


def curve(regime: str) -> None:
    """mAP of both directions over the share of classes that both teachers know, for each number of classes."""
    tables = [(known, overlap, found) for known, overlap, found in cells(regime) if found.setting == "independent"]
    for known in sorted({known for known, overlap, _ in tables if overlap < 100}):
        rows = []
        for _, overlap, found in (one for one in tables if one[0] == known):
            for line in compile_data_free(found):
                if line.row.name in CURVE:
                    values = [
                        percent(score.get("mAP@all")) for part in found.parts for score in line.scores[part].values()
                    ]
                    rows.append([f"{overlap} %", line.row.title, str(line.n), *values, points(line.gains["known"])])
        some = tables[0][2]
        heads = [f"mAP, {SETS[name]}, {way}" for name, part in some.parts.items() for way in part.directions]
        columns = ["overlap", "row", "n", *heads, "method - row, known classes"]
        print(f"### {known} classes: overlap of the teachers' classes\n")
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        for row in rows:
            print("| " + " | ".join(row) + " |")
        print()


def convergence(regime: str) -> None:
    """What `curve.py` found: mAP of both directions' mean after each epoch."""
    for file in sorted((HERE / "results" / "curves").glob(f"{regime}-*.json")):
        known, seed, epochs = file.stem.split("-")[-3:]
        record = json.loads(file.read_text(encoding="utf-8"))
        heads = [f"{part}, {what}" for part, values in record["curve"][0].items() if part != "epoch" for what in values]
        print(f"### {known} classes, seed {seed}: mAP (both directions) over a run of {epochs} epochs\n")
        print(f"{record['steps_per_epoch']} steps an epoch; epoch 0 is untrained.\n")
        print("| epoch | " + " | ".join(heads) + " |\n|" + "---|" * (len(heads) + 1))
        for point in record["curve"]:
            cells = [percent_of(x) for part, values in point.items() if part != "epoch" for x in values.values()]
            print("| " + " | ".join([str(point["epoch"]), *cells]) + " |")
        print()


def percent_of(value: float) -> str:
    """Percent with one digit."""
    return f"{100 * value:.1f}"


def made(regime: str) -> str:
    """Machines, dates, the number of runs and processor time; the teachers' is not in it."""
    records = [one for _, _, found in cells(regime) for runs in found.rows.values() for one in runs.values()]
    machines = sorted({str(record["machine"]) for record in records})
    dates = sorted({str(record["date"]) for record in records})
    hours = sum(float(record["seconds"]["cpu"]) for record in records) / 3600
    return f"{len(records)} runs, {dates[0]} to {dates[-1]}, on {'; '.join(machines)}; {hours:.1f} CPU hours."


def main() -> None:
    """Print the page."""
    print((HERE / "intro.md").read_text(encoding="utf-8").rstrip() + "\n")
    for settings in sorted(HERE.glob("*.yaml")):
        regime = settings.stem
        if next(cells(regime), None) is None:
            continue
        text = settings.read_text(encoding="utf-8")
        comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        print(f"## Settings `{regime}`\n\n{comment}\n\n{made(regime)}\n\n```yaml\n{body.strip()}\n```\n")
        for known, overlap, found in cells(regime):
            if overlap == 100:
                print(f"### {known} classes, {found.setting}\n")
                print(data_free_markdown(compile_data_free(found), found, level=4))
        curve(regime)
        convergence(regime)


if __name__ == "__main__":
    main()
