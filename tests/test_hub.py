"""The hub: what is sent comes back as the same model, and what can go wrong is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_zoo import World, answer_of, call, refused, works
from hub_zoo import Repo, fake_hub
from training_zoo import INK, NO_NORM, PAINT, draw

import isthmus
from isthmus.errors import IsthmusError
from isthmus.models.card_metadata import card_head
from isthmus.models.encoder import Architecture, Model
from isthmus.models.hub import is_hub, parse_place

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run: a model with means, an evaluation of it, and what nobody else should get."""
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("hub") / "run"
    model = Model.create(Architecture(NO_NORM, 16, 32), (INK, PAINT), weights="random")
    model.means = torch.randn(2, 16) * 0.05
    model.provenance = {"method": "syncdr", "scores": {"gap": 0.5}}
    model.save(run / "model")
    (run / "checkpoint.pt").write_bytes(b"secret")
    scores = {"ink->paint/mAP@all": 0.25, "mean/mAP@all": 0.375, "mean/R@7": 0.9, "mean (plain)/mAP@all": 0.125}
    evaluation = {"scores": scores, "protocol": "relevant = same label; 9 images", "model": model.fingerprint,
                  "sides": [{"setting": "centred"}]}  # fmt: skip
    (run / "evaluation-test.json").write_text(json.dumps({"split": "test", "evaluation": evaluation}))
    return run


def test_places_are_told_apart() -> None:
    assert is_hub("hf://a/b") and is_hub(Path("hf://a/b")) and not is_hub("runs/hf") and not is_hub("hf")
    assert parse_place("hf://a/b@refs/pr/1") == ("a/b", "refs/pr/1") and parse_place(Path("hf://a/b")) == ("a/b", None)
    for wrong in ("hf://a", "hf://a/b/c", "hf://a/b@", "hf://a b/c", "runs/a", "hf://../x y"):
        with pytest.raises(IsthmusError, match="names no model on the hub"):
            parse_place(wrong)


def test_sent_and_loaded_again(folder: Path, tmp_path: Path) -> None:
    image = draw(1, INK)
    own = Model.load(folder)
    with fake_hub(tmp_path / "cache") as hub:
        place = answer_of("push", folder, "me/cats", "--licence", "apache-2.0", "--private")["place"]
        repo = hub.repos["me/cats"]
        files = repo.commits[repo.refs["main"]]
        assert repo.private and set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
        assert place == f"hf://me/cats@{repo.refs['main']}"
        for named in (place, "hf://me/cats", "hf://me/cats@main", Path("hf://me/cats")):
            other = isthmus.load(named)
            assert other.fingerprint == own.fingerprint and other.provenance == own.provenance
            np.testing.assert_array_equal(other.encode([image], domain=INK), own.encode([image], domain=INK))
        assert sorted(set(hub.served)) == ["README.md", "config.json", "model.safetensors"]  # and each once:
        assert len(hub.served) == 3
        # A newer commit: the newest by default, the older by its name.
        own.means = own.means * 2
        own.save(tmp_path / "second")
        second = answer_of("push", tmp_path / "second", "hf://me/cats")["place"]
        assert isthmus.load("hf://me/cats").fingerprint == own.fingerprint == isthmus.load(second).fingerprint
        assert isthmus.load(place).fingerprint == Model.load(folder).fingerprint != own.fingerprint
        assert not [one for one in hub.unknown if "/api/models/" in one]
    # Without the hub what was fetched is still there.
    with fake_hub(tmp_path / "cache") as gone, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert isthmus.load("hf://me/cats").fingerprint == own.fingerprint and not gone.served


def test_the_card_says_what_was_measured(folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    with fake_hub(tmp_path / "cache") as hub:
        works("push", folder, "me/cats", "--licence", "mit")
        files = hub.repos["me/cats"].commits[hub.repos["me/cats"].refs["main"]]
        mine = tmp_path / "mine.md"
        mine.write_text("---\nlicense: mit\n---\n# My own words\n")
        works("push", folder, "me/words", "--card", mine)
        words = hub.repos["me/words"].commits[hub.repos["me/words"].refs["main"]]
    assert words["README.md"] == mine.read_bytes()
    card = ModelCard(files["README.md"].decode())
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("isthmus", "image-feature-extraction", "mit")
    assert {"cross-domain", INK, PAINT} <= set(data.tags or [])
    found = {one.metric_name: one.metric_value for one in data.eval_results or []}
    assert found == {"ink->paint mAP@all": 0.25, "mean mAP@all": 0.375}  # no other cut-offs, no other settings
    assert {one.dataset_split for one in data.eval_results or []} == {"test"}
    text = card.text
    for part in ("hf://me/cats", "relevant = same label; 9 images", "centred", "| mean/mAP@all | 0.3750 |", "syncdr"):
        assert part in text, part
    # Scores of another model are not this one's.
    other = Model.load(folder)
    other.means = other.means + 1
    other.save(tmp_path / "run" / "model")
    (tmp_path / "run" / "evaluation-test.json").write_bytes((folder / "evaluation-test.json").read_bytes())
    with fake_hub(tmp_path / "cache") as hub:
        works("push", tmp_path / "run", "me/other")
        text = hub.repos["me/other"].commits[hub.repos["me/other"].refs["main"]]["README.md"].decode()
    assert "0.3750" not in text and "model-index" not in text and "license" not in text


def test_what_can_go_wrong_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with fake_hub(tmp_path / "cache", token=None) as hub:
        refused("push", folder, "me/cats", says=("token", "hf auth login"), alone=False)
        hub.repos["me/mine"] = Repo(private=True)
        hub.repos["me/mine"].commit({"config.json": b"{}"})
        for name in ("me/none", "me/mine"):
            with pytest.raises(IsthmusError, match=rf"no model hf://{name} on the hub, or it is private.*HF_TOKEN"):
                isthmus.load(f"hf://{name}")
        hub.repos["me/open"] = Repo()
        hub.repos["me/open"].commit({"config.json": b"{}", "weights.pkl": b"code"})
        with pytest.raises(IsthmusError, match="has no revision 'v9'"):
            isthmus.load("hf://me/open@v9")
        with pytest.raises(IsthmusError, match=r"config.json is not of a model"):
            isthmus.load("hf://me/open")
        assert "weights.pkl" not in hub.served
        hub.failing = 500
        with pytest.raises(IsthmusError, match="hf://me/away"):
            isthmus.load("hf://me/away")
    with fake_hub(tmp_path / "cache"):
        refused("push", tmp_path, "me/cats", says=("is no model", tmp_path))
        refused("push", folder, "cats", says=("names no model on the hub",))
        refused("push", folder, "me/cats", "--card", tmp_path / "no.md", says=("can't be read", "no.md"))
        refused("push", folder, "me/cats", "--revision", "next", says=("no revision 'next'",), alone=False)
    with pytest.raises(IsthmusError, match="not in this machine's cache and the hub can't be reached"):
        isthmus.load("hf://me/nowhere")  # the tests are offline


def test_every_verb_takes_it(cli_world: World, tmp_path: Path) -> None:
    run, photos = cli_world.folder / "runs" / "syncdr", cli_world.folder / "photo"
    query = cli_world.folder / "sketch" / "test" / "cat" / "0.png"
    domains = ("--query-domain", cli_world.domain("sketch"), "--gallery-domain", cli_world.domain("photo"))
    with fake_hub(tmp_path / "cache"):
        works("push", run, "me/cats")
        works("index", "hf://me/cats", photos, "--out", tmp_path / "catalog", "--workers", 0)
        ours = answer_of("search", tmp_path / "catalog", query)
        theirs = answer_of("search", cli_world.folder / "catalog", query, "--model", "hf://me/cats")
        assert [hit["id"] for hit in ours[0]["hits"]] == [hit["id"] for hit in theirs[0]["hits"]]
        out = tmp_path / "scores.json"
        works("evaluate", "hf://me/cats", *domains, "--out", out, "--no-report", "--bootstrap", 0, "--workers", 0)
        assert json.loads(out.read_text())["evaluation"]["model"] == Model.load(run).fingerprint
        refused("evaluate", "hf://me/cats", *domains, says=("--out FILE.json",))
        assert call("evaluate", "hf://me/none", *domains, "--out", out).exit_code == 2


def test_the_head_is_yaml_whatever_the_names_are() -> None:
    import yaml

    head = card_head({"domains": ["no: yes", "[1]"], "provenance": {}}, None, None)
    parts = head.split("---\n")
    assert head.startswith("---\n") and yaml.safe_load(parts[1].removesuffix("---"))["tags"][-2:] == ["no: yes", "[1]"]
