"""The table of `run.py`'s results: scores with intervals, paired differences, and how the epoch was chosen.

python benchmarks/syncdr/table.py > benchmarks/syncdr/README.md
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.evaluate.intervals import bootstrap_intervals, mean_std, paired_difference

HERE = Path(__file__).parent
NAMES = {
    "frozen": "frozen",
    "cds": "CDS",
    "cds-synthetic": "CDS + synthetic images, no L_PPP",
    "syncdr": "SynCDR",
    "syncdr-no-matching": "SynCDR without L_CDM",
    "syncdr-shared-slots": "SynCDR, shared slots",
    "syncdr-paper-temperature": "SynCDR, T_syn = 1",
    "syncdr-cut": "SynCDR, counterparts by CUT",
}
SETS = {"pacs": "PACS", "sketchy": "Sketchy"}
FORTH, BACK = "sketch->photo", "photo->sketch"
NOT_CRITERIA = {"epoch", "step", "images", "seconds", "instance", "matching", "pairs", "loss", "lr", "mean_cosine"}


def results(data: str, row: str) -> list[dict[str, Any]]:
    """The record of each seed."""
    folders = sorted((HERE / "results").glob(f"{data}-{row}-[0-9]*"))
    return [json.loads((folder / "scores.json").read_text()) for folder in folders]


def log(data: str, row: str, seed: int) -> list[dict[str, str]]:
    """The lines of a run's log, one an epoch."""
    with (HERE / "results" / f"{data}-{row}-{seed}" / "log.csv").open() as file:
        return list(csv.DictReader(file))


def sides(record: dict[str, Any], setting: str) -> dict[str, dict[str, Any]]:
    """Both directions of one setting."""
    return {side["direction"]: side for side in record["sides"] if side["setting"] == setting}


def cell(records: list[dict[str, Any]], setting: str, direction: str, metric: str) -> str:
    """Mean over seeds, standard deviation over seeds, and the interval over queries of the seeds' mean."""
    parts = [sides(record, setting)[direction] for record in records]
    mean, deviation = mean_std([part["scores"][metric] for part in parts])
    values = np.mean([part["per_query"][metric] for part in parts], axis=0)
    # With one hit to count, the ratio Prec@1 is the mean over queries, as mAP is.
    (low,), (high,) = bootstrap_intervals(values[:, None])
    spread = "" if np.isnan(deviation) else f" ± {deviation:.3f}"
    return f"{mean:.3f}{spread} [{low:.3f}, {high:.3f}]"


def differences(a: list[dict[str, Any]], b: list[dict[str, Any]], setting_b: str, metric: str) -> str:
    """Mean of both directions, a (centred) minus b, paired bootstrap over queries."""
    values = []
    for records, setting in ((a, "centred"), (b, setting_b)):
        both = [sides(record, setting) for record in records]
        values.append({d: [part[d]["per_query"][metric] for part in both] for d in (FORTH, BACK)})
    return paired_difference(values[0], values[1]).text


def regrets(data: str, row: str, by: str = "val/Prec@1") -> dict[str, list[float]]:
    """By criterion: validation points lost to the run's best epoch, one value a seed."""
    lost: dict[str, list[float]] = {}
    for seed in range(len(results(data, row))):
        lines = [line for line in log(data, row, seed) if int(line["epoch"]) > 0]
        best = max(float(line[by]) for line in lines)
        lost.setdefault("last epoch", []).append(100 * (best - float(lines[-1][by])))
        for name in lines[0]:
            if name not in NOT_CRITERIA and not name.startswith("val/"):
                chosen = max(lines, key=lambda line: float(line[name]))
                lost.setdefault(name, []).append(100 * (best - float(chosen[by])))
    return lost


def translators(data: str) -> list[str]:
    """Rows of the quality of each translator's counterparts, both directions."""
    rows = []
    for name in ("edges", "cut"):
        for way in ("photo-as-sketch", "sketch-as-photo"):
            file = HERE / "results" / f"{data}-{name}" / f"{way}.json"
            if not file.is_file():
                continue
            found = json.loads(file.read_text())
            shift, content, faults = found["shift"], found["content"], found["faults"]
            closed, near = shift["frechet"]["closed"], content["nearer"]
            title = way.replace("-as-", " → ")
            rows.append(
                f"| {name} | {title} | {100 * closed['mean']:.0f} % ± {100 * closed['deviation']:.1f} "
                f"| {shift['source_taken']['value']:.2f} → {shift['made_taken']['value']:.2f} "
                f"| {near['value']:.2f} [{near['low']:.2f}, {near['high']:.2f}] "
                f"| {content['category']['value']:.2f} / {content['category_chance']:.2f} / "
                f"{content['category_ceiling']['value']:.2f} "
                f"| {len(faults['blank']) + len(faults['repeated']) + len(faults['unchanged'])} of {faults['images']} |"
            )
    return rows


def main() -> None:
    """Print the page."""
    print((HERE / "intro.md").read_text().rstrip())
    for data, title in SETS.items():
        if not results(data, "frozen"):
            continue
        print(f"\n## {title}\n")
        scores = [f"{metric} {d.replace('->', '→')}" for metric in ("Prec@1", "mAP@all") for d in (FORTH, BACK)]
        print(f"| row | seeds | {' | '.join(scores)} | images seen | CPU min |")
        print("|---|---|---|---|---|---|---|---|")
        chance = sides(results(data, "frozen")[0], "plain")
        cells = [f"{chance[d]['chance'][m]:.3f}" for m in ("Prec@1", "mAP@all") for d in (FORTH, BACK)]
        print(f"| chance | | {' | '.join(cells)} | | |")
        for row, name in NAMES.items():
            records = results(data, row)
            for setting in ("plain", "centred") if records else ():
                cells = [cell(records, setting, d, m) for m in ("Prec@1", "mAP@all") for d in (FORTH, BACK)]
                seen = int(log(data, row, 0)[-1]["images"])
                minutes = np.nanmean([record.get("cpu_minutes", np.nan) for record in records])
                print(f"| {name}, {setting} | {len(records)} | {' | '.join(cells)} | {seen} | {minutes:.1f} |")
        print("\nPaired differences, mean of both directions, both sides centred:\n")
        print("| | Prec@1 | mAP@all |\n|---|---|---|")
        full = results(data, "syncdr")
        for row, name in NAMES.items():
            other = results(data, row)
            if row != "syncdr" and other and full:
                cells = [differences(full, other, "centred", metric) for metric in ("Prec@1", "mAP@all")]
                print(f"| SynCDR - {name} | {' | '.join(cells)} |")
        made = translators(data)
        if made:
            print("\nThe counterparts themselves (`measure_quality`, frozen MobileNetV2 at 128 px):\n")
            print(
                "| translator | direction | Fréchet distance closed | taken for the target by a domain classifier, "
                "before → after | own source nearer than another (chance .50) | category of the nearest source / "
                "chance / real sources | blank, repeated or unchanged |\n|---|---|---|---|---|---|---|"
            )
            print("\n".join(made))
    print("\n## Choosing the epoch without labels\n")
    print(
        "Validation Prec@1 (mean of both directions, centred) lost to the best epoch of the run, in points: mean over "
        "seeds (each seed).\n"
    )
    table = {data: regrets(data, "syncdr") for data in SETS}
    print("| criterion | " + " | ".join(SETS[data] for data in table) + " |\n|---|" + "---|" * len(table))
    names = sorted(table["pacs"], key=lambda name: float(np.mean(table["pacs"][name])))
    for name in names:
        cells = [
            f"{np.mean(lost[name]):.2f} ({', '.join(f'{x:.1f}' for x in lost[name])})" if name in lost else ""
            for lost in table.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    parts = []
    for data, title in SETS.items():
        lost = regrets(data, "cds")
        values = [
            f"{name} {np.mean(lost[name]):.2f}" for name in ("last epoch", "mutual_nn", "neighbour_consensus", "snd")
        ]
        parts.append(f"{title} {', '.join(values)}")
    print(f"\nCDS has no counterparts to be judged by: `auto` takes its last epoch. Lost by: {'; '.join(parts)}.")


if __name__ == "__main__":
    main()
