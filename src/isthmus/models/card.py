"""The model card that is saved with every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.config.sizes import show
from isthmus.errors import IsthmusError
from isthmus.models.card_metadata import card_head, protocol_of, shown_scores


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


def model_card(
    config: dict[str, Any], measured: Mapping[str, Any] | None = None, licence: str | None = None, place: str = ""
) -> str:
    """Markdown for the README of a model folder.

    Args:
        config: its `config.json`.
        measured: an evaluation as `isthmus evaluate` writes it, for the figures.
        licence: the hub's name of a licence.
        place: where `isthmus.load` finds it.
    """
    query, gallery = config["domains"]
    architecture, provenance = config["architecture"], config.get("provenance", {})
    scores = provenance.get("scores", {})
    lines = [
        card_head(config, measured, licence),
        "",
        f"# Cross-domain retrieval: {query} and {gallery}",
        "",
        f"Finds images of one domain with an image of the other. Backbone `{architecture['backbone']}`, "
        f"{show(architecture['image_size'])} px{_filters(config)}, trained with Isthmus (method "
        f"`{provenance.get('method', 'unknown')}`).",
        "",
        "```python",
        "import isthmus",
        f'model = isthmus.load("{place or "PATH/TO/THIS/FOLDER"}")',
        f'vectors = model.encode(["image.png"], domain="{query}")',
        "```",
    ]
    if provenance.get("note"):
        lines += ["", str(provenance["note"])]
    if measured is not None:
        found = shown_scores(measured)
        lines += ["", f"Measured ({protocol_of(measured)}):", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in found.items()]
    if scores:
        lines += [
            "",
            f"Scores on {provenance.get('scores_on', 'validation images')}:",
            "",
            "| figure | value |",
            "|---|---|",
        ]
        lines += [f"| {name} | {value:.4f} |" for name, value in scores.items()]
    if isinstance(config.get("export"), Mapping):
        lines += ["", *_export(config["export"])]
    return "\n".join(lines) + "\n"


def _export(facts: Mapping[str, Any]) -> list[str]:
    """What a card says of an export."""
    parity, scores = facts["parity"], facts["scores"]
    lines = [
        f"## Export: {facts['format']} for {facts['runtime']}",
        "",
        f"Made from the model `{facts['source']}`. Images go in as uint8 {facts['layout'].upper()} of that size, "
        "resized and filtered as `config.json` says; unit vectors come out. The domains' means are in "
        "`means.safetensors`.",
        "",
        f"On {parity['images'][0]} and {parity['images'][1]} images of the two domains its vectors differ from the "
        f"model's by at most {parity['largest']:.1e}; mean cosine {parity['cosine']:.6f}, "
        f"least {parity['least_cosine']:.6f}.",
    ]
    if facts["calibration"]:
        first, second = facts["calibration"]
        lines += ["", f"Calibrated on {first} and {second} training images."]
    if scores:
        lines += [
            "",
            f"mAP {scores['model']:.4f} -> {scores['export']:.4f} ({scores['change']:+.4f}): {scores['protocol']}.",
        ]
    lines += ["", "Made with " + ", ".join(f"{name} {version}" for name, version in facts["tools"].items()) + "."]
    return lines


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
