"""Gain and cost of what can follow a ranking, on PACS and QMUL shoes with a frozen network.

    python benchmarks/measuring/after_ranking.py --root DATA --weights FILE --work SCRATCH

Every method has the defaults of `isthmus evaluate --rerank`, but for the bank's size (`embed.BANK`); none was chosen on
these images. Differences are paired over queries, with 95 % intervals of 2,000 resamples, seed 0. Writes
after_ranking.json and after_ranking.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from embed import BANK, SETS, Embedded, arguments, embedded, machine

from isthmus.evaluate.after import After, settings_of
from isthmus.evaluate.intervals import paired_difference
from isthmus.evaluate.reranked import add_reranked
from isthmus.io import atomic_write_json, atomic_write_text

HERE = Path(__file__).parent
CHOICES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("k-reciprocal", {}), ("k-reciprocal", {"queries": "together"}), ("alpha-qe", {}), ("csls", {}),
    ("csls", {"bank": "test"}), ("inverted-softmax", {}), ("inverted-softmax", {"bank": "test"}),
)  # fmt: skip
METRICS = {"pacs": ("mAP@all", "Prec@1"), "shoes": ("mAP@all", "R@1")}
SHOWN = {"pacs": "PACS, 7 classes", "shoes": "QMUL shoes, one photo a sketch"}


def measured(name: str, data: Embedded) -> list[dict[str, Any]]:
    """A row for each direction and method."""
    evaluation = data.evaluation(0)
    rows: list[dict[str, Any]] = []
    for method, values in CHOICES:
        settings: After | None = settings_of(method, values.items())
        assert settings is not None
        more, how = add_reranked(
            evaluation, {"centred": data.vectors}, *data.rows, settings, banks=data.banks, bootstrap=0
        )  # fmt: skip
        for direction, cost in how.costs.items():
            before, after = (more.side(direction, setting) for setting in (how.base, how.name))
            row: dict[str, Any] = {
                "set": name, "direction": direction, "method": settings.name, "settings": settings.to_dict(),
                "queries": before.n_queries - before.n_left_out, "gallery": before.n_gallery,
                "ranking_seconds": cost.ranking_seconds, "extra_seconds": cost.reranking_seconds,
                "bank_images": cost.bank_images, "bank_seconds": cost.bank_seconds, "hubness": cost.hubness,
            }  # fmt: skip
            for metric in METRICS[name]:
                weights = None
                if metric.startswith("Prec@"):
                    weights = [min(int(metric.split("@")[1]), r) for r in before.relevant]
                found = paired_difference(
                    after.per_query[metric], before.per_query[metric], weights=weights, draws=2000, seed=0
                )
                row[metric] = {"before": before.scores[metric], "after": after.scores[metric],
                               "change": [found.mean, found.low, found.high]}  # fmt: skip
            rows.append(row)
    return rows


def page(rows: list[dict[str, Any]], facts: str) -> str:
    """The tables in Markdown."""
    parts = [f"<!-- made by benchmarks/measuring/after_ranking.py -->\n{facts}\n"]
    for name in SETS:
        for direction in dict.fromkeys(row["direction"] for row in rows if row["set"] == name):
            own = [row for row in rows if row["set"] == name and row["direction"] == direction]
            first, metrics = own[0], METRICS[name]
            parts.append(
                f"\n**{SHOWN[name]}, {direction.replace('->', ' → ')}**: {first['queries']} queries, gallery of "
                f"{first['gallery']}\n\n| | {' | '.join(f'{m} | change' for m in metrics)} | hubness | seconds, of "
                f"plain ranking's |\n|---|{'---|---|' * len(metrics)}---|---|\n| plain | "
                + " | ".join(f"{first[m]['before']:.3f} | " for m in metrics)
                + f" | {hubs(first['hubness'][0])} | 1 |\n"
            )
            for row in own:
                cells = " | ".join(f"{row[m]['after']:.3f} | {change(row[m]['change'])}" for m in metrics)
                ratio = row["extra_seconds"] / row["ranking_seconds"]
                parts.append(f"| {row['method']} | {cells} | {hubs(row['hubness'][1])} | + {ratio:.2f} |\n")
    return "".join(parts)


def hubs(value: float) -> str:
    """Two decimals, and no -0.00."""
    return f"{round(value, 2) + 0.0:.2f}"


def change(found: list[float]) -> str:
    """`+0.052 [+0.031, +0.074]`, with a mark where the interval holds 0."""
    mean, low, high = found
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" + ("" if low > 0 or high < 0 else " ~")


def main() -> None:
    """Measure and write."""
    options = arguments(__doc__)
    data = {name: embedded(name, options) for name in SETS}
    began = time.process_time()
    rows = [row for name in SETS for row in measured(name, data[name])]
    banks = {name: [len(b.vectors) for b in data[name].banks] for name in SETS}
    facts = (
        f"Frozen MobileNetV2 at 128 px, each domain centred by the mean of up to {BANK} training images, which are the "
        "bank as well; test images; defaults, chosen on none of these. Change: paired over queries, 95 % interval; ~ "
        "means not distinguishable from 0. Hubness: skewness of N_10. Seconds: on top of plain ranking and measuring, "
        "over these, in the same run. Not in them: embedding a bank ("
        + "; ".join(f"{name} {' and '.join(map(str, sizes))} images" for name, sizes in banks.items())
        + f"), once for a model, which takes what as many queries take. {machine()}."
    )
    atomic_write_json(HERE / "after_ranking.json", {"facts": facts, "rows": rows})
    atomic_write_text(HERE / "after_ranking.md", page(rows, facts))
    print(page(rows, facts))
    print(f"{time.process_time() - began:.1f} s of CPU")


if __name__ == "__main__":
    main()
