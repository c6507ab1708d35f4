"""What every adapter shares, and `isthmus data` around them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest
from adapters_zoo import make_faces, make_zappos, put
from cli_zoo import answer_of, failing_writes, misused, refused, snapshot, unharmed, works
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import IsthmusError
from isthmus.data.adapters import ADAPTERS, Options, prepare
from isthmus.data.adapters.base import refuse_leak, with_splits
from isthmus.data.adapters.choosing import by_number, held_out, largest_remainder, order, pair_up
from isthmus.data.manifest import Manifest, Row

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")


def test_order_follows_from_the_key_and_the_items_alone() -> None:
    items = ["1", "2", "10", "shoe"]
    assert len({tuple(order(list(shuffled), "x", 3)) for shuffled in permutations(items)}) == 1
    orders = {tuple(order(items, "x", seed)) for seed in range(40)}
    assert len(orders) > 12  # of 24
    # Every item comes first about as often as any other.
    first = [order(items, "x", seed)[0] for seed in range(2000)]
    assert all(400 < first.count(item) < 600 for item in items)


def test_order_is_the_same_in_another_process() -> None:
    code = "from isthmus.data.adapters.choosing import order; print(order(['a', 'b', 'c', 'd', 'e'], 'pku', 0, 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(order(list("edcba"), "pku", 0, 3))
    assert order(list("abcde"), "pku", 0, 3) == ["e", "b", "d", "c", "a"]  # for ever: a published split hangs on it


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.lists(st.integers(1, 90), min_size=1, max_size=7))
def test_largest_remainder(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    exact = [total * weight / sum(weights) for weight in weights]
    assert all(abs(part - value) < 1 + 1e-9 for part, value in zip(parts, exact, strict=True))
    # Nobody who was rounded down had a larger remainder than one who was rounded up.
    up = [e - int(e) for p, e in zip(parts, exact, strict=True) if p > int(e)]
    down = [e - int(e) for p, e in zip(parts, exact, strict=True) if p == int(e)]
    assert not up or not down or min(up) >= max(down) - 1e-9


@pytest.mark.parametrize(("count", "share", "size"), [(200, 0.25, 50), (3, 0.01, 1), (3, 0.99, 2), (2, 0.5, 1)])
def test_held_out(count: int, share: float, size: int) -> None:
    assert held_out(count, share) == size


@pytest.mark.parametrize(
    ("count", "share", "says"), [(9, 0.0, "--test-share is 0.0"), (9, 1.0, "1.0"), (1, 0.5, "1 id")]
)
def test_held_out_refuses(count: int, share: float, says: str) -> None:
    with pytest.raises(IsthmusError, match=re.escape(says)):
        held_out(count, share)


def test_by_number_reads_digits_as_numbers() -> None:
    names = ["10.jpg", "9.jpg", "a2.png", "a10.png", "2_1.jpg", "²3.png", ""]
    assert sorted(names, key=by_number) == ["", "2_1.jpg", "9.jpg", "10.jpg", "a2.png", "a10.png", "²3.png"]


def test_a_leak_is_refused_in_whichever_domain() -> None:
    def row(id: str, domain: str, identity: str | None, split: str | None) -> Row:
        return Row(id, f"/{id}", domain, identity=identity, split=split)

    fine = [row("a", "sketch", "1", "train"), row("b", "photo", "1", "train"), row("c", "photo", "2", "test")]
    refuse_leak(
        [*fine, row("d", "photo", None, "test"), row("e", "photo", None, "train"), row("f", "photo", "2", None)]
    )
    with pytest.raises(IsthmusError, match=r"1 identities are in more than one split.*: 1 \(test and train\)"):
        refuse_leak([*fine, row("d", "sketch", "1", "test")])
    split = with_splits(fine, ["1"])
    assert [r.split for r in split] == ["test", "test", "train"]


def test_pair_up() -> None:
    with pytest.raises(
        IsthmusError, match=r"1 only as sketch \(9\) and 2 only as photo \(2, 10\); add .*--unmatched skip"
    ):
        pair_up({"1": 0, "9": 0}, {"1": 0, "10": 0, "2": 0}, "refuse", "names")
    both, note = pair_up({"1": 0, "9": 0}, {"1": 0, "10": 0, "2": 0}, "skip", "names")
    assert both == ["1"] and "1 only as sketch (9)" in note
    assert pair_up({"2": 0, "10": 0}, {"10": 0, "2": 0}, "refuse", "names") == (["2", "10"], "")
    with pytest.raises(IsthmusError, match=r"No names match by name: 1 on one side, 2 on the other"):
        pair_up({"1": 0}, {"2": 0}, "skip", "names")
    with pytest.raises(IsthmusError, match="--unmatched is 'maybe'; write refuse or skip"):
        pair_up({"1": 0}, {"1": 0}, "maybe", "names")


def make_pairs(root: Path, count: int = 8) -> None:
    for number in range(1, count + 1):
        put(root / "sketch" / f"{number}.png", root / "photo" / f"{number}.jpg")


def test_prepare_writes_tables_that_load_and_commands_that_can_be_typed(tmp_path: Path) -> None:
    root, out = tmp_path / "mine", tmp_path / "a folder"
    make_pairs(root)
    printed = works("data", "prepare", "pairs", "--root", root, "--out", out, "--splits", 3).stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.parquet", "prepared.json", "split-00.parquet", "split-01.parquet", "split-02.parquet"]  # fmt: skip
    tables = [Manifest.load(out / f"split-0{k}.parquet") for k in range(3)]
    for table in tables:
        assert table.domains == ["sketch", "photo"]
        assert all(Path(row.path).is_file() for row in table)
        assert {row.identity for row in table.select(domain="sketch", split="test")} == {
            row.identity for row in table.select(domain="photo", split="test")}  # fmt: skip
        assert len(table.select(split="test")) == 4
    tested = [frozenset(row.identity for row in table.select(split="test")) for table in tables]
    assert len(set(tested)) > 1
    assert all(row.split is None for row in Manifest.load(out / "manifest.parquet"))
    record = json.loads((out / "prepared.json").read_text())
    assert record["seed"] == 0 and record["files"] == [*(f"split-0{k}.parquet" for k in range(3)), "manifest.parquet"]
    line = printed.splitlines()[-1]
    words = shlex.split(line)
    assert words[:4] == ["isthmus", "train", "--method", "ihda"]
    assert f"sketch={out / 'split-00.parquet'}" in words and f"photo={out / 'split-00.parquet'}" in words


def test_fewer_splits_leave_none_of_the_earlier_ones_and_nothing_else_goes(tmp_path: Path) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_pairs(root)
    works("data", "prepare", "pairs", "--root", root, "--out", out, "--splits", 3)
    (out / "split-07.parquet").write_text("not ours")
    (out / "notes.txt").write_text("not ours")
    before = snapshot(out)
    works("data", "prepare", "pairs", "--root", root, "--out", out)
    after = snapshot(out)
    assert after.keys() == before.keys() - {"split-01.parquet", "split-02.parquet"}
    assert after["split-00.parquet"] == before["split-00.parquet"]  # the same seed, the same bytes
    works("data", "prepare", "pairs", "--root", root, "--out", out, "--seed", 1)
    assert snapshot(out)["split-00.parquet"] != before["split-00.parquet"]


def test_a_record_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_pairs(root)
    out.mkdir()
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (out / "prepared.json").write_text(json.dumps({"files": ["../victim.txt", str(victim), 3]}))
    works("data", "prepare", "pairs", "--root", root, "--out", out)
    assert victim.is_file()
    (out / "prepared.json").write_text("[]")
    works("data", "prepare", "pairs", "--root", root, "--out", out)


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_pairs(root)
    works("data", "prepare", "pairs", "--root", root, "--out", out)
    with unharmed(root, out), failing_writes("split-00.parquet") as refusals:
        refused("data", "prepare", "pairs", "--root", root, "--out", out, "--seed", 5, says=("disk is full",))
        assert refusals() == 1


def test_json_tells_what_the_tables_hold(tmp_path: Path) -> None:
    make_zappos(tmp_path / "zap")
    said = answer_of("data", "prepare", "zappos", "--root", tmp_path / "zap", "--out", tmp_path / "out")
    assert said["tables"] == {
        "manifest.parquet": {
            "images": {"photo": 6},
            "identities": {"unsplit": 2},
            "attributes": 30,
            "with_attributes": {"photo": 5},
        }
    }
    assert said["next"][0] == "isthmus data prepare shoes --root DIR"
    assert f"--source-domain photo={tmp_path / 'out' / 'manifest.parquet'}" in said["next"][1]


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_faces(tmp_path / "faces", [(f"{k}.jpg", f"{k}.jpg") for k in range(4)])
    monkeypatch.chdir(tmp_path)
    works("data", "prepare", "iiitd", "--root", "faces")
    assert Manifest.load(tmp_path / "prepared" / "iiitd" / "split-00.parquet")[0].path.startswith(str(tmp_path))


def test_list_and_page_name_every_data_set() -> None:
    printed = works("data", "list").stdout
    for adapter in ADAPTERS.values():
        assert f"{adapter.name:<11}  {adapter.title}" in printed and adapter.page in printed
        assert re.search(rf"^\| `{adapter.name}` \|", PAGE, re.MULTILINE), adapter.name
        assert adapter.page.split(" ")[0] in PAGE, adapter.page
    assert [fact["name"] for fact in answer_of("data", "list")] == list(ADAPTERS)


def test_the_pages_commands_exist() -> None:
    help_text = works("data", "prepare", "--help").stdout
    options = set(re.findall(r"--[a-z-]+", help_text))
    calls = re.findall(r"^isthmus (data prepare .*)$", PAGE, re.MULTILINE)
    assert len(calls) >= 5
    for line in calls:
        words = shlex.split(line, comments=True)
        assert words[2] in ADAPTERS, line
        assert {word for word in words if word.startswith("--")} <= options, line


def test_what_is_refused(tmp_path: Path) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_pairs(root, 2)
    common = ("--root", root, "--out", out)
    with unharmed(out):
        refused("data", "prepare", "imagenet", *common, says=("no data set 'imagenet'", "pku", "pairs"))
        refused("data", "prepare", "pairs", *common, "--splits", 0, says=("--splits is 0",))
        refused("data", "prepare", "pairs", *common, "--attributes", "code", says=("--attributes", "'pairs'"))
        refused(
            "data", "prepare", "shoes", *common, "--test-share", 0.5, says=("--test-share says nothing to 'shoes'",)
        )
        refused("data", "prepare", "market", *common, "--splits", 2, says=("'market' is a source of photos",))
        refused("data", "prepare", "pairs", *common, "--test-share", 1.5, says=("--test-share is 1.5",))
        misused("data", "prepare", "pairs", says="--root")
    (tmp_path / "file").write_text("")
    refused("data", "prepare", "pairs", "--root", root, "--out", tmp_path / "file", says=("file",))


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_folder_that_is_not_there_is_named_with_the_page(name: str, tmp_path: Path) -> None:
    page = ADAPTERS[name].page.split(" ")[0]
    refused("data", "prepare", name, "--root", tmp_path / "gone", "--out", tmp_path / "out", says=("gone", page))
    (tmp_path / "bare").mkdir()
    refused("data", "prepare", name, "--root", tmp_path / "bare", "--out", tmp_path / "out", says=("bare", page))
    assert not (tmp_path / "out").exists()


def test_options_default_to_what_the_command_line_says() -> None:
    assert prepare.__doc__ is not None
    assert vars(Options(Path("x"))) == {
        "root": Path("x"), "splits": None, "seed": 0, "attributes": "paper", "test_share": None, "unmatched": "refuse",
        "query": None, "gallery": None, "min_images": None, "lists": None, "protocol": None, "class_split": None,
        "unseen": None,
    }  # fmt: skip
