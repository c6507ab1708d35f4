"""How far other papers' variants of mAP and P@k differ on one set of embeddings: PACS with a frozen network.

    python benchmarks/measuring/variants.py --root DATA --weights FILE --work SCRATCH

Writes variants.json and variants.md; the table stands in docs/metrics.md.
"""

from __future__ import annotations

from pathlib import Path

from embed import BANK, arguments, embedded

from isthmus.evaluate.variants import HOUSE, Variants, variants_of
from isthmus.io import atomic_write_json, atomic_write_text

HERE = Path(__file__).parent


def page(found: Variants, facts: str) -> str:
    """The table in Markdown: a row a metric, both directions side by side."""
    sides = found.sides
    heads = " | ".join(f"{side.direction.replace('->', ' → ')} | chance" for side in sides)
    lines = [f"<!-- made by benchmarks/measuring/variants.py -->\n{facts}\n", f"| | {heads} |",
             f"|---|{'---|---|' * len(sides)}"]  # fmt: skip
    for name in sides[0].scores:
        cells = " | ".join(f"{side.scores[name]:.3f} | {side.chance[name]:.3f}" for side in sides)
        lines.append(f"| {f'**{name}**' if name in HOUSE else name} | {cells} |")
    for name in sides[0].one_per.scores:
        cells = " | ".join(
            f"{side.one_per.scores[name][0]:.3f} ± {side.one_per.scores[name][1]:.3f} | {side.one_per.chance[name]:.3f}"
            for side in sides
        )
        lines.append(f"| one per {found.by}: {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    data = embedded("pacs", arguments(__doc__))
    evaluation = data.evaluation(0)
    found = variants_of(evaluation, {"centred": data.vectors}, *data.rows, bootstrap=1000, seed=0)
    small = found.sides[0].one_per
    facts = (
        f"PACS, all test images ({len(data.rows[0])} sketches, {len(data.rows[1])} photos, 7 classes); those of the "
        f"other domain are the gallery. Frozen MobileNetV2 at 128 px, each domain centred by the mean of {BANK} "
        "training images; relevant = same class; cosine. One per label: gallery of "
        f"{small.n_gallery}, mean ± deviation over {small.repeats} draws, seed {small.seed}. In bold the figures that "
        "they vary."
    )
    atomic_write_json(HERE / "variants.json", {"facts": facts, **found.to_dict()})
    atomic_write_text(HERE / "variants.md", page(found, facts))
    print(page(found, facts))


if __name__ == "__main__":
    main()
