"""Agreement with human triplets: by loops, with ties, missing ids and bad files, and on real shoes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_zoo import World, refused, words, works

from isthmus.data.images import load_image
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.evaluate.human import Triplet, embedding_agreement, read_triplets, triplet_agreement
from isthmus.models.encoder import Architecture, Model
from isthmus.ops import normalise

HEAD = "query_id,nearer_id,farther_id,votes\n"


def example(
    queries: int = 12, gallery: int = 9, n: int = 150
) -> tuple[torch.Tensor, list[str], list[str], list[Triplet]]:
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.integers(0, 5, (queries, gallery)) / 4)
    q, g = [f"s{i}" for i in range(queries)], [f"p{i}" for i in range(gallery)]
    triplets = []
    for _ in range(n):
        near, far = rng.choice(gallery + 1, 2, replace=False).tolist()  # one id too many: not among the images
        triplets.append(Triplet(f"s{rng.integers(queries + 1)}", f"p{near}", f"p{far}", float(rng.integers(1, 4))))
    return table, q, g, triplets


def test_share_by_loops() -> None:
    table, q, g, triplets = example()
    found = triplet_agreement(table, q, g, triplets)
    points: list[tuple[float, float]] = []
    asked, ties, left_out = set(), 0, 0
    for one in triplets:
        if one.query not in q or one.nearer not in g or one.farther not in g:
            left_out += 1
            continue
        a, b = (float(table[q.index(one.query), g.index(x)]) for x in (one.nearer, one.farther))
        points.append((1.0 if a > b else 0.5 if a == b else 0.0, one.votes))
        asked.add(one.query)
        ties += a == b
    assert found.value == pytest.approx(sum(p for p, _ in points) / len(points))
    assert found.by_votes == pytest.approx(sum(p * v for p, v in points) / sum(v for _, v in points))
    assert (found.n_triplets, found.n_queries, found.n_ties) == (len(points), len(asked), ties) and ties > 5
    assert found.n_left_out == left_out > 5 and found.low < found.value < found.high
    assert found == triplet_agreement(table, q, g, triplets)
    assert math.isnan(triplet_agreement(table, q, g, triplets, bootstrap=0).low)


def test_embeddings_give_the_same_as_their_similarities() -> None:
    _, q, g, triplets = example()
    triplets += [Triplet("s1", "p3", "p4"), Triplet("s2", "p4", "p3")]
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(12, 5, generator=rng), torch.randn(9, 5, generator=rng)
    b[3] = 2 * b[4]  # of equal direction: a tie
    want = triplet_agreement(normalise(a).double() @ normalise(b.double()).T, q, g, triplets)
    found = embedding_agreement(a, b, q, g, triplets)
    assert found.value == pytest.approx(want.value, abs=0.01) and found.n_triplets == want.n_triplets
    assert found.n_ties == sum({t.nearer, t.farther} == {"p3", "p4"} and t.query in q for t in triplets) > 0
    b[0] = math.nan  # an image that could not be read
    less = embedding_agreement(a, b, q, g, triplets)
    gone = sum("p0" in (t.nearer, t.farther) and t.query in q and "p9" not in (t.nearer, t.farther) for t in triplets)
    assert less.n_left_out == found.n_left_out + gone > found.n_left_out
    constant = embedding_agreement(torch.ones(12, 5), torch.ones(9, 5), q, g, triplets)
    assert (constant.value, constant.low, constant.high) == (0.5, 0.5, 0.5)


def test_triplets_of_one_query_are_drawn_together() -> None:
    """Ten queries, all triplets of one right or wrong: ten answers, not four hundred."""
    table = torch.tensor([[1.0, 0.0] if i % 2 else [0.0, 1.0] for i in range(10)])
    triplets = [Triplet(f"s{i}", "a", "b") for i in range(10) for _ in range(40)]
    found = triplet_agreement(table, [f"s{i}" for i in range(10)], ["a", "b"], triplets)
    assert found.value == 0.5 and found.n_triplets == 400
    assert found.high - found.low == pytest.approx(4 * math.sqrt(0.25 / 10), abs=0.15)  # of 400 it would be .1


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffsplit,farther_id,query_id,nearer_id\ntest,c,a,b\n", encoding="utf-8")
    assert read_triplets(path) == [Triplet("a", "b", "c", 1.0)]
    path.write_text(HEAD + 'a,"b, or so",c,2\n')
    assert read_triplets(path) == [Triplet("a", "b, or so", "c", 2.0)]
    for text, said in (
        ("query_id,nearer_id\na,b\n", "no column farther_id"),
        ("", "no column query_id"),
        (HEAD, "holds no triplet"),
        (HEAD + "a,b,,1\n", "line 2: an id is missing"),
        (HEAD + "a,b\n", "line 2: an id is missing"),
        (HEAD + "a,b,c,1\na,b,b,1\n", "line 3: nearer and farther are the same image b"),
        (HEAD + "a,b,c,many\n", "votes is many"),
        (HEAD + "a,b,c,0\n", "votes is 0"),
        (HEAD + "a,b,c,nan\n", "votes is nan"),
    ):
        path.write_text(text)
        with pytest.raises(IsthmusError, match=said):
            read_triplets(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IsthmusError, match="UTF-8"):
        read_triplets(path)
    with pytest.raises(IsthmusError, match="There is no file"):
        read_triplets(tmp_path / "none.csv")


def test_what_does_not_fit() -> None:
    table, q, g, triplets = example()
    with pytest.raises(IsthmusError, match="do not fit"):
        triplet_agreement(table, q[1:], g, triplets)
    with pytest.raises(IsthmusError, match="do not fit"):
        embedding_agreement(table, table, q, g, triplets)
    with pytest.raises(IsthmusError, match="None of the 1 triplets"):
        triplet_agreement(table, q, g, [Triplet("x", "p0", "p1")])
    with pytest.raises(IsthmusError, match="None of the 0 triplets"):
        triplet_agreement(table, q, g, [])


def test_command_line(cli_world: World, tmp_path: Path) -> None:
    run, file = cli_world.folder / "runs" / "syncdr", tmp_path / "triplets.csv"
    lines = [f"sketch/test/{label}/{n}.png,photo/test/cat/{n}.png,photo/test/dog/{n}.png,{n + 1}"
             for label in ("cat", "dog") for n in (0, 1)]  # fmt: skip
    file.write_text(HEAD + "\n".join([*lines, "sketch/gone.png,photo/test/cat/0.png,photo/test/dog/0.png,1"]) + "\n")
    options = words("--out", tmp_path / "x.json", "--bootstrap", 20, "--workers", 0)
    text = works("evaluate", run, "--triplets", file, *options).stdout
    assert "agreement with human triplets" in text and "not among the images: 1" in text
    stored = json.loads((tmp_path / "x.json").read_text())
    model = Model.load(run)
    pick = {d: [cli_world.folder / d / "test" / c / f"{n}.png" for c in ("cat", "dog") for n in (0, 1)]
            for d in ("sketch", "photo")}  # fmt: skip
    for setting, found in stored["triplets"].items():
        q, g = (model.encode(paths, domain=d, centring=setting == "centred") for d, paths in pick.items())
        s = q @ g.T
        right = [s[row, n] > s[row, 2 + n] for row, n in enumerate((0, 1, 0, 1))]
        assert found["value"] == pytest.approx(np.mean(right)) and found["n_left_out"] == 1
    page = (tmp_path / "x.html").read_text()
    assert 'id="people"' in page and "4 triplets of 4 queries" in page and 'id="attributes"' not in page


def test_bad_files_on_the_command_line(cli_world: World, tmp_path: Path) -> None:
    run, file = cli_world.folder / "runs" / "syncdr", tmp_path / "triplets.csv"
    options = words("--out", tmp_path / "x.json", "--workers", 0)
    file.write_text(HEAD + "photo/a.png,sketch/b.png,sketch/c.png,1\n")
    refused("evaluate", run, "--triplets", file, *options, says=("None of the 1 triplets", "split test", "photo/a.png"))
    refused("evaluate", run, "--triplets", tmp_path / "no.csv", *options, says=("no.csv",))
    assert not (tmp_path / "x.json").exists()


def test_frozen_features_agree_with_people_beyond_chance(shared_data: Path) -> None:
    """QMUL's test shoes: real embeddings agree, exchanged queries less, and a triplet turned round counts against."""
    root = shared_data / "data" / "qmul_shoes"
    part = json.loads((root / "annotation" / "shoes_annotation.json").read_text())["test"]
    said = zip(part["sketches"], part["triplets"], strict=True)
    triplets = [Triplet(sketch, part["images"][a], part["images"][b]) for sketch, pairs in said for a, b in pairs]
    model = Model.create(Architecture("mobilenetv2_100", 0, 64), ("sketch", "photo"),
                         weights=str(shared_data / "weights" / "mobilenetv2_100.safetensors"))  # fmt: skip
    vectors = []
    for domain, kind in ((0, "sketches"), (1, "images")):
        rows = [Row(name, str(root / "test" / kind / name), kind) for name in part[kind]]
        views = torch.stack([model.preprocessing(load_image(row.path), domain) for row in rows])
        raw = model.embed(views, domain)
        vectors.append(normalise(raw - raw.mean(dim=0)))
    ids = part["sketches"], part["images"]
    found = embedding_agreement(*vectors, *ids, triplets)
    assert found.n_queries == 115 and found.n_left_out == 0 and found.low > 0.5
    moved = embedding_agreement(vectors[0].roll(1, 0), vectors[1], *ids, triplets)
    assert moved.value < found.value
    turned = embedding_agreement(*vectors, *ids, [Triplet(t.query, t.farther, t.nearer) for t in triplets])
    assert turned.value == pytest.approx(1 - found.value)
