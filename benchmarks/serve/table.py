"""README.md from the results, and the measured part of docs/how_large.md.

    python benchmarks/serve/table.py [--results benchmarks/serve/results] [--readme FILE] [--page docs/how_large.md]

Figures come from the files alone; what was not run is said to be missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import RESULTS
from page import measured

HERE = Path(__file__).parent
NAMES = ("search", "end_to_end", "crowd", "throughput", "add", "million")
BEGIN, END = "<!-- measured: written by benchmarks/serve/table.py -->", "<!-- end of measured -->"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--readme", type=Path, default=HERE / "README.md")
    options.add_argument("--page", type=Path, default=HERE.parents[1] / "docs" / "how_large.md")
    settings = options.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        file = settings.results / f"{name}.json"
        if file.is_file():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    parts = [(HERE / "intro.md").read_text(encoding="utf-8").rstrip(), _targets(found)]
    makers = {"search": _search, "end_to_end": _end_to_end, "crowd": _crowd, "throughput": _throughput, "add": _add,
              "million": _million}  # fmt: skip
    for name, maker in makers.items():
        if name in found:
            parts += [maker(found[name]), _machine(found[name])]
    settings.readme.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    text = settings.page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    settings.page.write_text(f"{before}{BEGIN}\n{measured(found)}\n{END}{after}", encoding="utf-8")


def _targets(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name in NAMES:
        if name not in found:
            rows.append([name, "–", "not run"])
        for what, reached in found.get(name, {}).get("targets", {}).items():
            rows.append([name, what, "reached" if reached else "**missed**"])
    return "## Targets\n\n" + lines(["benchmark", "target", ""], rows)


def _search(result: dict[str, Any]) -> str:
    rows = []
    for name, one in result["table"].items():
        if "failed" in one:
            rows.append([name, one["failed"], *[""] * 7])
            continue
        bare = one["without_metadata"]
        rows.append(
            [name, "yes" if one["metadata"] else "no", one["effort"] or "–", f"{one['recall']:.4f}", one["p50_ms"],
             one["p99_ms"], one["ratio_to_faiss_hnsw"], bare["p50_ms"] if bare else "–", one["build_s"],
             f"{one['memory_at_end']['resident']:.0f} ({one['imports_mb']:.0f})"]
        )  # fmt: skip
    head = ["way", "metadata", "efSearch", "recall@10", "median ms", "p99 ms", "ratio", "median ms, no metadata",
            "build s", "resident MB (imports)"]  # fmt: skip
    dropped = result["table"].get("clip-retrieval's steps", {}).get("near_duplicates_dropped")
    more = f" With near-duplicates dropped its median is {dropped['p50_ms']} ms." if dropped else ""
    exact, options = result["exactness"], result["options"]
    worst = min(exact["graph_recall"].items(), key=lambda pair: float(pair[1]))
    return (
        f"## Search: {options['items']:,} x {options['dim']}, one query at a time\n\n{lines(head, rows)}\n\n"
        "`ratio` is of medians, to FAISS HNSW at equal recall without metadata; graphs of others were tuned on other "
        f"queries to the recall that the catalog's had there ({result['recall_on_tuning_queries']:.4f}). "
        f"clip-retrieval's rows are its steps done with FAISS and Arrow, not the package (see `systems.py`).{more}\n\n"
        f"Exactness: {exact['searches']:,} searches with and without filters, after deletions, additions, changes of "
        f"metadata and a rollback: {exact['forbidden_hits']} hits that ought not to be there, "
        f"{exact['differ_from_brute_force']} exact or flat answers other than brute force's; least recall of the graph "
        f"{worst[1]:.3f} ({worst[0]})."
    )


def _end_to_end(result: dict[str, Any]) -> str:
    rows = []
    for name in ("drawing", "photo"):
        one = result[name]
        rows.append(
            [name, *(f"{one[part]['p50_ms']} / {one[part]['p99_ms']}" for part in
                     ("whole", "model", "on_top", "search", "neither_model_nor_search")), one["ratio_whole_to_model"]]
        )  # fmt: skip
    head = [
        "256 px PNG",
        "whole",
        "model",
        "on top of the model",
        "of that search",
        "of that the rest",
        "whole / model",
    ]
    alone = result["model_alone"]
    return (
        f"## End to end over HTTP, {result['options']['items']:,} items (median / p99, ms)\n\n{lines(head, rows)}\n\n"
        f"The model alone in this run, outside the service: {alone['encoder']['p50_ms']} ms from picture to vector, "
        f"{alone['network']['p50_ms']} ms the network; decoding a PNG {alone['decoding_png']['p50_ms']} ms. Resident "
        f"memory of the service {result['memory']['resident']:.0f} MB, {result['seconds_to_start']} s to start."
    )


def _crowd(result: dict[str, Any]) -> str:
    rows = []
    for name in ("usual", "queue_of_8"):
        one = result[name]
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(one["statuses"].items()))
        took = one["latency_of_all"]
        times = [took.get(key, "–") for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms")]
        rows.append([name.replace("_", " "), one["seconds"], statuses, one["errors_but_429"], one["answers_a_second"],
                     *times, f"{one['memory']['resident']:.0f}"])  # fmt: skip
    head = ["queue", "s", "statuses", "errors but 429", "answers/s", "median ms", "p90", "p99", "max", "resident MB"]
    return f"## {result['usual']['clients']} clients at once\n\n{lines(head, rows)}"


def _throughput(result: dict[str, Any]) -> str:
    rows = [
        [name, one["images"], one["alone_images_s"]["median"], one["decoding_ms_one_core"], one["bound_images_s"],
         one["add_images_s"]["median"], one["ratio_to_alone"], one["ratio_to_bound"], one["bound_to_alone"]]
        for name, one in result.items() if isinstance(one, dict) and "ratio_to_bound" in one
    ]  # fmt: skip
    head = ["model", "images", "network alone, images/s", "decoding ms (a core)", "bound, images/s", "`Catalog.add`",
            "add / alone", "add / bound", "bound / alone"]  # fmt: skip
    return (
        f"## Embedding a folder (224 px, JPEGs of 500 x 375)\n\n{lines(head, rows)}\n\nThe rows in bfloat16 are "
        "of `precision=bfloat16`. The package has no OpenVINO and no int8 backend; nothing is claimed of them. "
        "Resident memory at the end "
        f"{result['memory']['resident']:.0f} MB, at most {result['memory']['peak']:.0f} MB."
    )


def _add(result: dict[str, Any]) -> str:
    names = list(result["rounds"][0])
    rows = [[one[name] for name in names] for one in result["rounds"]]
    head = [name.removesuffix("_s").replace("_", " ") + ", s" for name in names]
    return (
        f"## Adding {result['options']['images']:,} images to {result['options']['items']:,}\n\n{lines(head, rows)}\n\n"
        f"Resident memory at the end {result['memory']['resident']:.0f} MB, at most {result['memory']['peak']:.0f} MB."
    )


def _million(result: dict[str, Any]) -> str:
    rows = [
        [name, f"{one['recall']:.4f}", one["p50_ms"], one["p99_ms"], one["first_s"], one["build_s"],
         f"{one['memory_at_end']['resident']:,.0f}"]
        for name, one in result["ways"].items() if "failed" not in one
    ]  # fmt: skip
    head = ["way", "recall@10", "median ms", "p99 ms", "first s", "into memory s", "resident MB"]
    options = result["options"]
    return (
        f"## {options['items']:,} x {options['dim']}\n\n{lines(head, rows)}\n\nWriting the table took "
        f"{result['table']['seconds']} s ({result['table']['bytes'] / 1e9:.2f} GB), its index "
        f"{result['index']['seconds']} s ({result['index']['bytes'] / 1e9:.2f} GB); the vectors alone are "
        f"{result['raw_bytes'] / 1e9:.2f} GB."
    )


def _machine(result: dict[str, Any]) -> str:
    at = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in at["versions"].items())
    threads = result["options"].get("threads")
    return (
        f"<sub>{at['processor']}, {at['cores']} cores, {at['memory_gb']} GB; {threads} threads; Python {at['python']}, "
        f"{versions}; load at the end {at['load_at_end']}; {result['seconds_in_all']:.0f} s in all.</sub>"
    )


def lines(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    table = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*table, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


if __name__ == "__main__":
    main()
