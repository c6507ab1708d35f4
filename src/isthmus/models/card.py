"""The model card that is saved with every model."""

from __future__ import annotations

from typing import Any

from isthmus.config.sizes import show
from isthmus.errors import IsthmusError


def refuse_translator(config: Any, path: object) -> None:
    """Say what a translator is for where an encoder is wanted; `config` is the model folder's `config.json`."""
    if isinstance(config, dict) and config.get("kind") == "cut":
        raise IsthmusError(
            f"{path} holds a translator, not an encoder; use it with  isthmus translate --translator cut --set "
            f"run={path}."
        )


def _filters(config: dict[str, Any]) -> str:
    used = config.get("preprocessing", {}).get("filters", ())
    pairs = zip(config["domains"], used, strict=False)
    return "".join(f", {domain} images as {name}" for domain, name in pairs if name != "none")


def model_card(config: dict[str, Any]) -> str:
    """Markdown for the README of a model folder, from its `config.json`."""
    query, gallery = config["domains"]
    architecture, provenance = config["architecture"], config.get("provenance", {})
    scores = provenance.get("scores", {})
    lines = [
        f"# Cross-domain retrieval: {query} and {gallery}",
        "",
        f"Finds images of one domain with an image of the other. Backbone `{architecture['backbone']}`, "
        f"{show(architecture['image_size'])} px{_filters(config)}, trained with Isthmus (method "
        f"`{provenance.get('method', 'unknown')}`).",
        "",
        "```python",
        "import isthmus",
        'model = isthmus.load("PATH/TO/THIS/FOLDER")',
        f'vectors = model.encode(["image.png"], domain="{query}")',
        "```",
    ]
    if provenance.get("note"):
        lines += ["", str(provenance["note"])]
    if scores:
        lines += [
            "",
            f"Scores on {provenance.get('scores_on', 'validation images')}:",
            "",
            "| figure | value |",
            "|---|---|",
        ]
        lines += [f"| {name} | {value:.4f} |" for name, value in scores.items()]
    return "\n".join(lines) + "\n"
