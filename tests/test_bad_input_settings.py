"""Settings, names and arguments that are wrong: a sentence that names them, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_zoo import BACKBONE, World, misused, refused, unharmed, works

from isthmus.models.encoder import Architecture, Model


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--backbone", "resnt18"], ["'resnt18'", "did you mean resnet18"]),
        (["--backbone", "qqqq"], ["'qqqq'", "timm.list_models()"]),
        (["--method", "syncd"], ["'syncd'", "syncdr, cds, ihda, data-free, pretrained"]),
        (["--preset", "papr"], ["'papr'", "default, tiny, paper"]),
        (["--ablation", "slots"], ["loss.ablation = 'slots'", "shared-slots"]),
        (["--seed", "-1"], ["seed = -1", "greater than or equal to 0"]),
        (["--set", "train.lrr=1"], ["no setting 'train.lrr'"]),
        (["--set", "trian.lr=1"], ["no setting 'trian'"]),
        (["--set", "train.lr=fast"], ["train.lr = 'fast'", "number"]),
        (["--set", "train.epochs=0"], ["train.epochs = 0"]),
        (["--set", "train.epochs=1.5"], ["train.epochs = 1.5"]),
        (["--set", "train=5"], ["train = 5"]),
        (["--set", "method=[1]"], ["method = [1]"]),
        (["--set", "train.lr"], ["'train.lr' is not a setting", "KEY=VALUE"]),
        (["--set", "train.lr=[1"], ["'train.lr'", "YAML"]),
        (["--set", "model.image_size=8"], ["model.image_size = 8"]),
        (["--set", "augment.resize=16"], ["augment.resize is smaller than model.image_size"]),
        (["--set", "train.batch_size=5", "--devices", "2"], ["train.batch_size", "multiple"]),
        (["--set", "data.on_bad_image=ignore"], ["data.on_bad_image = 'ignore'", "'skip'"]),
        (["--set", "train.accelerator=mps"], ["train.accelerator = mps", "train.accelerator=auto"]),
    ],
)  # fmt: skip
def test_training_settings(cli_world: World, tmp_path: Path, more: list[str], says: list[str]) -> None:
    if "train.accelerator=mps" in more and torch.backends.mps.is_available():
        pytest.skip("here that accelerator is no mistake")
    with unharmed(tmp_path):
        refused(*cli_world.train(*more, out=tmp_path / "out"), says=tuple(says))
        refused(*cli_world.train(*more, "--plan", out=tmp_path / "out"), says=tuple(says))


def test_what_chooses_the_epoch_is_named(cli_world: World, tmp_path: Path) -> None:
    refused(*cli_world.train("--set", "train.select=beauty", out=tmp_path / "out"),
            says=("train.select = beauty", "auto, labels, last"), alone=False)  # fmt: skip


def test_settings_files(cli_world: World, tmp_path: Path) -> None:
    for name, content, says in (
        ("none.yaml", None, "check the path"),
        ("empty.yaml", b"", "holds no settings"),
        ("list.yaml", b"- 1\n", "holds no settings"),
        ("broken.yaml", b"method: cds\ntrain: [1\n", "no valid YAML in line 3"),
        ("binary.yaml", b"\xff\xfe\x00", "no valid YAML"),
        ("unknown.yaml", b"train: {lrr: 1}\n", "no setting 'train.lrr'"),
        ("preset.yaml", b"preset: papr\n", "'papr'"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with unharmed(tmp_path):
            sentence = refused(*cli_world.train("--config", path, out=tmp_path / "out"), says=(says,))
        assert name in sentence or "'" in sentence
    refused(*cli_world.train("--config", tmp_path, out=tmp_path / "out"), says=(tmp_path, "can't be read"))


def test_checkpoints_of_something_else(cli_world: World, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from isthmus.models.backbones import create_backbone

    paths = [tmp_path / name for name in ("other.safetensors", "junk.safetensors", "code.pt", "cut.pt", "list.pt")]
    save_file(create_backbone("test_resnet", "random").state_dict(), paths[0])
    paths[1].write_bytes(b"xx" * 20)
    torch.save({"a": print}, paths[2])
    torch.save({"a": torch.zeros(100)}, paths[3])
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    torch.save([1, 2], paths[4])
    says = (f"not of the backbone '{BACKBONE}'", "can't be read", "more than tensors", "can't be read", "no state dict")
    with unharmed(tmp_path):
        for path, text in zip(paths, says, strict=True):
            refused(*cli_world.train("--weights", path, out=tmp_path / "out"), says=(path, text))


def test_a_run_folder_that_holds_another_run(cli_world: World) -> None:
    run = cli_world.folder / "runs" / "syncdr"
    with unharmed(run):
        for more, says in (
            (["--set", "train.lr=0.5"], "train.lr is 0.003 there and 0.5 here"),
            (["--seed", "4"], "seed is 0 there and 4 here"),
            (["--backbone", "test_resnet"], "model.backbone"),
        ):
            refused(*cli_world.train(*more, method="syncdr", out=run), says=(run, says, "another --out"))
        refused("train", "--resume", run, "--set", "train.lr=0.5", says=("'train.lr' can't change", "train.epochs"))
        refused("train", "--resume", run, "--out", run, says=("leave out --out",))


def test_synthetic_folders(cli_world: World, tmp_path: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    works(*cli_world.translate("sketch", "--shard", "2/2", out=made / "unfinished"))
    works(*cli_world.translate("sketch", "--target", "clipart", out=made / "target"))
    works(*cli_world.translate("sketch", "--source", cli_world.domain("drawing", cli_world.folder / "sketch"),
                               out=made / "source"))  # fmt: skip
    works(*cli_world.translate("sketch", "--split", "test", out=made / "images"))
    finished = (made / "unfinished" / "manifest.parquet").exists()
    with unharmed(tmp_path, cli_world.folder):
        for name, says in (
            ("unfinished", "no finished translation"),
            ("target", "was translated to 'clipart', but the domains are sketch and photo"),
            ("source", "holds no counterpart of a training image (its first is of 'drawing/"),
            ("images", "holds no counterpart of a training image (its first is of 'sketch/test/"),
        ):
            if name == "unfinished" and finished:
                continue  # with one batch in all, the other shard had nothing to do
            options = ["--method", "syncdr", "--synthetic", made / name]
            refused(*cli_world.train(*options, out=out), says=(made / name, says))
        refused(*cli_world.train("--method", "syncdr", out=out), says=("isthmus translate", "--synthetic"))
        refused(*cli_world.train("--method", "syncdr", "--synthetic", cli_world.folder / "photo", out=out),
                says=("photo holds no finished translation",))  # fmt: skip


@pytest.mark.parametrize("shard", ["0/4", "5/4", "x", "1/0", "-1/4", "1.5/4", "1/", "²/4", "1/4/2"])
def test_shards(cli_world: World, tmp_path: Path, shard: str) -> None:
    with unharmed(tmp_path):
        for plan in ([], ["--plan"]):
            refused(*cli_world.translate("sketch", "--shard", shard, *plan, out=tmp_path / "out"),
                    says=(f"--shard {shard}", "1/4"))  # fmt: skip


def test_translation_settings(cli_world: World, tmp_path: Path) -> None:
    out, made = tmp_path / "out", cli_world.made("sketch")
    with unharmed(tmp_path, cli_world.folder):
        for more, says in (
            (["--translator", "edgs"], "'edgs'"),
            (["--set", "direction=up"], "'direction'"),
            (["--set", "inkk=3"], "'inkk'"),
            (["--limit", "0"], "--limit 0"),
            (["--split", "all of them"], "--split all of them"),
            (["--on-bad", "panic"], "skip or raise"),
        ):
            refused(*cli_world.translate("sketch", *more, out=out), says=(says,))
        misused(*cli_world.translate("sketch", "--workers", "-1", out=out), says="--workers")
        refused(*cli_world.translate("sketch", "--seed", "3"), says=(made, "seed 0", "seed 3", "--out"))
        refused(*cli_world.translate("sketch", out=cli_world.folder / "photo"), says=("something other", "--out"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--where", "colour = 'red'"], ["no column 'colour'", "label (text)"]),
        (["--where", "label = "], ["'label = '", "it ends where a value"]),
        (["--where", "label === 3"], ["'label === 3'", "can't be read"]),
        (["--where", "label = 'cat' extra"], ["'extra'", "AND or OR"]),
        (["--where", "size > 'big'"], ["size"]),
        (["--where", ""], ["filter is empty"]),
        (["--save", "hits.txt"], ["hits.txt", ".png"]),
    ],
)  # fmt: skip
def test_search_requests(cli_world: World, more: list[str], says: list[str]) -> None:
    query = cli_world.folder / "sketch" / "test" / "cat" / "0.png"
    refused("search", cli_world.folder / "catalog", query, *more, says=tuple(says))


def test_numbers_out_of_range(cli_world: World) -> None:
    home = cli_world.folder
    search = ["search", home / "catalog", home / "sketch" / "test" / "cat" / "0.png"]
    for k in ("0", "-3", "x"):
        misused(*search, "-k", k, says="-k")
    misused(*search, "--offset", "-1", says="--offset")
    misused("evaluate", home / "runs" / "syncdr", "--bootstrap", "-1", says="--bootstrap")
    misused("index", home / "runs" / "syncdr", home / "photo", "--out", home / "catalog", "--workers", "-1",
            says="--workers")  # fmt: skip
    refused("evaluate", home / "runs" / "syncdr", "--split", "all", says=("--split all", "train, val or test"))
    refused("evaluate", home / "runs" / "syncdr", "--by", "colour", says=("--by colour",))
    refused("index", home / "runs" / "syncdr", home / "photo", "--out", home / "c", "--on-bad", "stop",
            says=("--on-bad", "skip or raise"))  # fmt: skip


def test_a_catalog_of_another_model(cli_world: World, tmp_path: Path) -> None:
    home, other = cli_world.folder, tmp_path / "other"
    Model.create(Architecture("test_resnet", 8, 32), ("sketch", "photo"), weights="random").save(other)
    catalog, photo = home / "catalog", home / "photo"
    query = photo / "test" / "cat" / "0.png"
    with unharmed(catalog, tmp_path):
        for command in (
            ["search", catalog, query, "--model", other],
            ["index", other, photo, "--out", catalog],
            ["index", other, photo, "--out", catalog, "--sync"],
            ["index", other, photo, "--out", catalog, "--plan"],
            ["catalog", "add", catalog, photo, "--model", other],
            ["catalog", "sync", catalog, photo, "--model", other],
        ):
            refused(*command, says=(catalog, other, "was made with the model", "a new catalog"))
        refused("catalog", "delete", catalog, "--where", "colour = 1", says=("no column 'colour'",))
        refused("catalog", "delete", catalog, says=("ids or a filter",))
    assert works("search", catalog, query, "--domain", "photo", "-k", "1").exit_code == 0
