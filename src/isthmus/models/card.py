"""The model card that is saved with every model."""

from __future__ import annotations

from typing import Any

from isthmus.config.sizes import show
from isthmus.errors import IsthmusError


def refuse_translator(config: Any, path: object) -> None:
    """Say what a translator or classifier is for where an encoder is wanted; `config`: the folder's `config.json`."""
    if isinstance(config, dict) and config.get("kind") == "cut":
        raise IsthmusError(
            f"{path} holds a translator, not an encoder; use it with  isthmus translate --translator cut --set "
            f"run={path}."
        )
    if isinstance(config, dict) and config.get("kind") == "classifier":
        raise IsthmusError(
            f"{path} holds a classifier, not an encoder; make encoders from classifiers with  isthmus train --method "
            "data-free."
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


def classifier_card(config: dict[str, Any]) -> str:
    """The same of a classifier's folder."""
    provenance, looks, classes = config.get("provenance", {}), config["preprocessing"], config["classes"]
    of = " and ".join(config["domains"]) or "unknown"
    told = "domains" if config["predicts"] == "modality" else "classes"
    scores = {name: provenance[name] for name in ("accuracy", "balanced_accuracy", "confidence") if name in provenance}
    mean, std = ([round(value, 4) for value in looks[name]] for name in ("mean", "std"))
    lines = [
        f"# Classifier of {of} images: {len(classes)} {told}",
        "",
        f"Backbone `{config['backbone']}` with a linear layer (`{config['head']}`), {show(looks['size'])} px, channels "
        f"normalised by mean {mean} and standard deviation {std}. Trained with Isthmus.",
        "",
        f"Its {told}, in the order of the logits: {', '.join(classes)}.",
        "",
        "```python",
        "from isthmus.models.classifier import Classifier",
        'teacher = Classifier.load("PATH/TO/THIS/FOLDER")',
        "logits, features = teacher.answer(images)  # float (n, 3, h, w) in [0, 1]",
        "```",
        "",
        "The weights have timm's own names, and the folder is one that timm reads:",
        "",
        "```python",
        "import timm",
        'network = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)',
        "```",
    ]
    if scores:
        count = provenance.get("validation_images", "unknown")
        lines += ["", f"On {count} validation images:", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in scores.items()]
    return "\n".join(lines) + "\n"
