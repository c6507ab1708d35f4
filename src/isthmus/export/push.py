"""A model's folder on the Hugging Face hub, with a card that says what was measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError, need_extra
from isthmus.io import read_json
from isthmus.models.card import model_card
from isthmus.models.encoder import FORMAT
from isthmus.models.hub import explained, parse_place

LEFT_OUT = ("evaluation-*", "report-*", ".*")  # what evaluating an export leaves in its folder


def push(
    model: str | Path,
    place: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    card: Path | None = None,
    message: str | None = None,
) -> str:
    """Send a model's folder to the hub; a repository that is not there is made.

    Args:
        model: a run, a model folder or an export. Of a run the model alone is sent.
        place: `owner/name`, or `hf://owner/name`.
        private: make the repository private, where it is made.
        revision: an existing branch to commit to; the main one if None.
        licence: the hub's name of a licence, such as `apache-2.0`, for the card.
        card: a Markdown file to send as README.md; written from the model's facts if None.
        message: of the commit.

    Returns:
        `hf://owner/name@COMMIT`, which `isthmus.load` takes.

    Raises:
        IsthmusError: no model, no access, no connection.
        MissingExtraError: huggingface_hub is not installed.

    Example:
        >>> push("runs/pacs", "me/pacs-sketch", licence="apache-2.0")                       # doctest: +SKIP
        'hf://me/pacs-sketch@6c1f3a...'
    """
    name, _ = parse_place(place if place.startswith("hf:") else f"hf://{place}")
    folder, config = model_folder(Path(model))
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise need_extra("hub", "huggingface_hub") from error
    if card is None:
        text = model_card(config, measured_of(Path(model), folder, config), licence, f"hf://{name}")
    else:
        try:
            text = card.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise IsthmusError(f"The card {card} can't be read ({error}); name a Markdown file.") from None
    with tempfile.TemporaryDirectory(prefix="isthmus-push-") as scratch, explained(name, revision):
        staged = Path(scratch) / "model"
        # Its own copy: a training that goes on must not change files under way, and the card is another.
        shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(*LEFT_OUT))
        (staged / "README.md").write_text(text, encoding="utf-8")
        api = HfApi()
        api.create_repo(name, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=staged,
            revision=revision,
            commit_message=message or f"Isthmus model {config['fingerprint']}",
        )
    return f"hf://{name}@{done.oid}"


def model_folder(place: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a run's model and its `config.json`.

    Raises:
        IsthmusError: there is none, or it is of no encoder.
    """
    folder = place / "model" if (place / "model" / "config.json").is_file() else place
    if not (folder / "config.json").is_file():
        raise IsthmusError(f"{place} is no model: there is no config.json in it; name a run or a model folder.")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT or "architecture" not in config:
        raise IsthmusError(f"{place} holds no encoder of two domains; push a run or an export of one.")
    return folder, config


def measured_of(run: Path, folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The evaluation that lies with a run or an export, of test images rather than others; None where there is none.

    One of another model is passed over: the run may have been trained on since.
    """
    for split in ("test", "val"):
        for place in dict.fromkeys((run, folder)):
            file = place / f"evaluation-{split}.json"
            if not file.is_file():
                continue
            values = read_json(file)
            try:
                if values["evaluation"]["model"] == config["fingerprint"] and values["split"] == split:
                    return dict(values)
            except (KeyError, TypeError):
                continue
    return None
