"""The head of a model card: what the Hugging Face hub reads of it, as YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PIPELINE = "image-feature-extraction"
# Shown on the hub; a card with every figure at every cut-off would hide them.
SHOWN = ("mAP@all", "Prec@1", "R@1", "P@100", "nDCG@10")


def card_head(config: Mapping[str, Any], measured: Mapping[str, Any] | None = None, licence: str | None = None) -> str:
    """The YAML between two lines of dashes.

    Args:
        config: a model's `config.json`.
        measured: an evaluation as `isthmus evaluate` writes it (`split`, `evaluation`); it becomes the model index.
        licence: the hub's name of a licence, such as `apache-2.0`; left out where nobody chose one.

    Example:
        >>> print(card_head({"domains": ["sketch", "photo"]}, licence="mit"))
        ---
        library_name: isthmus
        pipeline_tag: image-feature-extraction
        license: mit
        tags:
        - isthmus
        - image-retrieval
        - cross-domain
        - sketch
        - photo
        ---
    """
    import yaml

    query, gallery = (str(name) for name in config["domains"])
    head: dict[str, Any] = {"library_name": "isthmus", "pipeline_tag": PIPELINE}
    if licence:
        head["license"] = licence
    tags = ["isthmus", "image-retrieval", "cross-domain", query, gallery]
    facts = config.get("export")
    if isinstance(facts, Mapping):
        tags += ["onnx"] if facts["runtime"] == "onnxruntime" else ["openvino"]
        tags += ["int8"] if facts["format"] == "int8" else []
    head["tags"] = list(dict.fromkeys(tags))
    if measured is not None:
        head["model-index"] = [_index(config, measured)]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)}---"


def shown_scores(measured: Mapping[str, Any]) -> dict[str, float]:
    """`direction/metric` -> value of the main setting's figures that a card shows."""
    scores = measured["evaluation"]["scores"]
    found = {}
    for name, value in scores.items():
        direction, _, metric = name.rpartition("/")
        if metric in SHOWN and "(" not in direction and isinstance(value, int | float):
            found[name] = float(value)
    return found


def protocol_of(measured: Mapping[str, Any]) -> str:
    """What stands beside the figures: split, protocol, setting."""
    evaluation = measured["evaluation"]
    sides = evaluation.get("sides") or [{}]
    setting = sides[0].get("setting")
    return f"split {measured['split']}; {evaluation['protocol']}" + (f"; {setting}" if setting else "")


def _index(config: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    query, gallery = (str(name) for name in config["domains"])
    metrics = [
        {"type": _slug(name.rpartition("/")[2]), "value": round(value, 6), "name": name.replace("/", " ")}
        for name, value in shown_scores(measured).items()
    ]
    name = f"{config.get('provenance', {}).get('method', 'model')}-{query}-{gallery}"
    dataset = {"type": _slug(f"{query}-{gallery}"), "name": f"{query} and {gallery}", "split": str(measured["split"])}
    task = {"type": PIPELINE, "name": "Cross-domain image retrieval"}
    return {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("@", "-at-")).strip("-") or "unknown"
