"""Attribute heads measured: by loops, by scikit-learn, and from a run's folder to table, JSON and report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_zoo import answer_of, refused, works
from torch import Tensor
from training_zoo import INK, PAINT, write_domain

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_source
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.evaluate.attributes import AttributeScores, attribute_metrics, known_attributes, score_attributes
from isthmus.models.encoder import Architecture, Model
from isthmus.models.heads import mlp
from isthmus.models.ihda import IhdaModel

NAMES = ("toe", "heel", "never", "secret")
QUICK = ("--bootstrap", 20, "--workers", 0)


def example(n: int = 60, a: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Coarse probabilities, so that many tie, and truth of which a fifth is unknown."""
    rng = np.random.default_rng(0)
    truth = (rng.random((n, a)) < np.linspace(0.15, 0.7, a)).astype(float)
    p = (0.3 * truth + 0.7 * rng.random((n, a))).round(1)
    truth[rng.random((n, a)) < 0.2] = np.nan
    return p, truth


def test_figures_by_loops() -> None:
    p, truth = example()
    found = attribute_metrics(p, truth, [f"a{j}" for j in range(6)])
    for j, score in enumerate(found.scores):
        known = [i for i in range(60) if truth[i, j] == truth[i, j]]
        yes = [i for i in known if truth[i, j] == 1]
        no = [i for i in known if truth[i, j] == 0]
        hits, misses = [i for i in yes if p[i, j] >= 0.5], [i for i in no if p[i, j] >= 0.5]
        assert (score.name, score.n) == (f"a{j}", len(known)) and len(known) < 60
        assert score.positive_share == pytest.approx(len(yes) / len(known))
        assert score.accuracy == pytest.approx((len(hits) + len(no) - len(misses)) / len(known))
        assert score.balanced_accuracy == pytest.approx((len(hits) / len(yes) + 1 - len(misses) / len(no)) / 2)
        assert score.base_rate == pytest.approx(max(len(yes), len(no)) / len(known))
        area = before = 0.0
        for threshold in sorted({p[i, j] for i in known}, reverse=True):
            taken = [i for i in known if p[i, j] >= threshold]
            right = sum(truth[i, j] == 1 for i in taken)
            area += (right - before) / len(yes) * right / len(taken)
            before = right
        assert score.average_precision == pytest.approx(area)
    for figure, mean in found.means.items():
        assert mean == pytest.approx(sum(getattr(score, figure) for score in found.scores) / 6)


def test_figures_by_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    p, truth = example(200)
    for j, score in enumerate(attribute_metrics(p, truth, list("abcdef")).scores):
        known = ~np.isnan(truth[:, j])
        said, is_so = p[known, j], truth[known, j]
        assert score.average_precision == pytest.approx(metrics.average_precision_score(is_so, said))
        assert score.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(is_so, said >= 0.5))
        assert score.accuracy == pytest.approx(metrics.accuracy_score(is_so, said >= 0.5))


def test_order_of_the_images_changes_nothing_where_all_tie() -> None:
    truth = np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]):
        score = attribute_metrics(np.full((5, 1), 0.3), truth[order], ["a"]).scores[0]
        assert (score.average_precision, score.balanced_accuracy) == (pytest.approx(0.4), 0.5)


def test_attributes_that_never_vary_or_nobody_knows() -> None:
    truth = np.array([[1, 1, 0, np.nan], [0, 1, 0, np.nan], [np.nan, 1, np.nan, np.nan]], dtype=float)
    found = attribute_metrics(np.full((3, 4), 0.5), truth, ["varies", "all", "none", "unknown"], "sketch")
    assert [score.name for score in found.scores] == ["varies"] and found.scores[0].n == 2
    assert found.constant == ("all", "none") and found.unknown == ("unknown",)
    assert found.left_out == ("Left out of the attributes: never vary here: all, none; known of no image: unknown.")
    assert AttributeScores.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert attribute_metrics(np.full((3, 4), 0.5), np.full((3, 4), np.nan), list("abcd")).means == {}
    with pytest.raises(IsthmusError, match="no attribute scores"):
        AttributeScores.from_dict({"domain": "x"})


def test_values_that_are_none() -> None:
    ok = np.full((2, 1), 0.5)
    for p, t, said in (
        (ok, np.array([[0.5], [1.0]]), "neither 0 nor 1"),
        (ok * np.nan, ok * 0, "not all numbers"),
        (ok + 1, ok * 0, "from 0 to 1"),
        (ok, np.zeros((3, 1)), "do not fit"),
        (ok, np.zeros((2, 2)), "do not fit"),
    ):
        with pytest.raises(IsthmusError, match=said):
            attribute_metrics(p, t, ["a"])
    rows = [Row("sketch/a", "/a", "sketch", attributes={"toe": 1.0}), Row("sketch/b", "/b", "sketch")]
    np.testing.assert_array_equal(known_attributes(rows, ("toe", "heel")), [[1, np.nan], [np.nan, np.nan]])
    with pytest.raises(IsthmusError, match=r"'toe' of sketch/a is 0.3; write 1"):
        known_attributes([replace(rows[0], attributes={"toe": 0.3})], ["toe"])


def darkness(views: Tensor, domain: int) -> Tensor:
    """A head of two attributes: `dark`, read off the pixels, and the domain it was told."""
    dark = 1 - views.float().mean(dim=(1, 2, 3)) / 255
    return torch.stack([dark, torch.full_like(dark, float(domain))], dim=1)


def test_images_are_read_as_the_model_reads_them(tmp_path: Path) -> None:
    half = (0.5, 0.5, 0.5)
    source = ImageSource(Preprocessing(16, 16, half, half), 0)
    images = list(read_source(write_domain(tmp_path / PAINT, PAINT, range(7)), PAINT))
    values = torch.cat([darkness(source.test_view(row)[None], 1) for row in images])[:, 0]
    middle = float(values.median())
    rows = [replace(row, attributes={"dark": float(v > middle), "told": float(i < 3)})
            for i, (row, v) in enumerate(zip(images, values.tolist(), strict=True))]  # fmt: skip
    rows[5] = replace(rows[5], attributes=None)  # knows nothing: not read at all
    Path(rows[5].path).write_bytes(b"broken")
    found = score_attributes(darkness, ("dark", "told"), rows, source=source, domain=1, batch_size=3, workers=0)
    assert found.domain == PAINT and found.n_images == 6
    assert found.scores[0].average_precision == 1.0 and found.scores[1].accuracy == 0.5  # it says yes to all
    Path(rows[0].path).write_bytes(b"broken")
    options = {"source": source, "domain": 1, "workers": 0}
    with pytest.raises(IsthmusError, match="0000"):
        score_attributes(darkness, ("dark", "told"), rows, **options)
    less = score_attributes(darkness, ("dark", "told"), rows, on_bad="skip", **options)
    assert less.skipped == (rows[0].id,) and less.n_images == 5
    with pytest.raises(IsthmusError, match="broken"):
        score_attributes(lambda views, domain: darkness(views, domain) * torch.nan, ("dark", "told"), rows[1:5],
                         **options)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained attribute head, and a table of both domains whose test images know attributes."""
    base = tmp_path_factory.mktemp("attributes")
    rows = []
    for style in (INK, PAINT):
        for row in read_source(write_domain(base / style, style, range(8)), style):
            i = int(Path(row.path).stem)
            known = {"toe": float(i % 2), "heel": float(i < 3), "never": 1.0}
            rows.append(replace(row, identity=f"i{i}", split="test", attributes=known if i != 4 else None))
    Manifest(rows).save(base / "table.parquet")
    torch.manual_seed(0)
    model = IhdaModel.create(Architecture("resnet10t", 8, 32), (INK, PAINT), weights="random")
    model.attributes, model.shape = NAMES, {"hidden": 8, "style": "plain", "dropout": 0.0}
    model.heads = {"attributes": mlp(model.dim, len(NAMES), **model.shape)}
    model.save(base / "run" / "model")
    table = str(base / "table.parquet")
    domains = {f"data.{side}": {"name": name, "train": table} for side, name in (("query", INK), ("gallery", PAINT))}
    RunConfig.build("tiny", domains).save(base / "run" / "config.yaml")
    return base / "run"


def test_a_run_with_an_attribute_head(run: Path) -> None:
    text = works("evaluate", run, "--attributes", *QUICK).stdout
    assert f"attributes read off {INK}" in text and f"attributes read off {PAINT}" in text
    assert "never vary here: never; known of no image: secret" in text and "7 ink images" in text
    stored = json.loads((run / "evaluation-test.json").read_text())["attributes"]
    model = IhdaModel.load(run)
    source = ImageSource(model.preprocessing, 0)
    for domain, name in enumerate((INK, PAINT)):
        images = [row for row in read_source(run.parent / name, name) if not row.path.endswith("0004.png")]
        views = torch.stack([source.test_view(row) for row in images])
        p = model.attribute_probabilities(views, domain).numpy()
        numbers = [int(Path(row.path).stem) for row in images]
        right = [(p[k, 0] >= 0.5) == bool(i % 2) for k, i in enumerate(numbers)]
        found = AttributeScores.from_dict(stored[name])
        assert [score.name for score in found.scores] == ["toe", "heel"]
        assert found.scores[0].accuracy == pytest.approx(np.mean(right))
    page = (run / "report-test.html").read_text()
    assert 'id="attributes"' in page and "balanced accuracy" in page and 'href="#attributes"' in page
    mean = found.means["balanced_accuracy"]
    assert f">{mean:.3f}<" in page
    works("evaluate", run, *QUICK)
    assert 'id="attributes"' not in (run / "report-test.html").read_text()


def test_attributes_over_several_runs(run: Path) -> None:
    """The second run is the first with another head and other means, so another model."""
    second = run.parent / "second"
    torch.manual_seed(1)
    model = IhdaModel.load(run)
    model.heads = {"attributes": mlp(model.dim, len(NAMES), **model.shape)}
    model.means = torch.full((2, 8), 0.01)
    model.centring = False
    model.save(second / "model")
    (second / "config.yaml").write_text((run / "config.yaml").read_text())
    both = answer_of("evaluate", run, second, "--attributes", "--no-centring", "--no-report", *QUICK)["summary"]["more"]
    each = [json.loads((x / "evaluation-test.json").read_text())["attributes"][INK]["means"] for x in (run, second)]
    assert both[f"attributes, {INK}/accuracy"]["values"] == [one["accuracy"] for one in each]


def test_what_has_no_attributes_to_measure(run: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    Model.create(Architecture("resnet10t", 8, 32), (INK, PAINT), weights="random").save(plain / "model")
    (plain / "config.yaml").write_text((run / "config.yaml").read_text())
    refused("evaluate", plain, "--attributes", *QUICK, says=("plain has no attribute head", "--method ihda"))
    refused("evaluate", run, plain, "--attributes", *QUICK, says=("plain has no attribute head",))
    folders = [f"{name}={run.parent / name}" for name in (INK, PAINT)]
    refused("evaluate", run, "--attributes", "--query-domain", folders[0], "--gallery-domain", folders[1], *QUICK,
            says=("toe, heel, never, secret", "attr:NAME"))  # fmt: skip
