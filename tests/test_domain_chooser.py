"""The domain chooser: what it tells apart, how far its probabilities can be trusted, its file, its verb, and that
training is not changed by it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from training_zoo import INK, PAINT, draw, settings, world
from typer.testing import CliRunner

from isthmus import IsthmusError
from isthmus.data.images import ImageError
from isthmus.io import fingerprint
from isthmus.models.domain_statistics import NAMES, statistics
from isthmus.models.domains import FILE, DomainChooser
from isthmus.models.encoder import Model
from isthmus.models.logistic import calibrate, cross_validate, fit_line, sigmoid
from isthmus.train import run as run_module
from isthmus.train.run import train

DOMAINS = (INK, PAINT)


def pictures(style: str, start: int, count: int = 25) -> list[Image.Image]:
    return [draw(number, style) for number in range(start, start + count)]


@pytest.fixture(scope="module")
def chooser() -> DomainChooser:
    return DomainChooser.fit(pictures(INK, 0), pictures(PAINT, 100), DOMAINS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images, and a finished run on them."""
    folder = tmp_path_factory.mktemp("run")
    world(folder, 14)
    train(settings(folder, method="cds", data__synthetic=[], train__epochs=1), folder / "run")
    return folder, folder / "run"


def test_drawn_and_painted_figures_are_told_apart(chooser: DomainChooser) -> None:
    for style, start in ((INK, 500), (PAINT, 700)):
        choices = [chooser.choose(image) for image in pictures(style, start)]
        assert sum(domain == style for domain, _ in choices) >= 24
        assert all(0.5 <= probability < 1 for _, probability in choices)
        assert np.mean([chooser.is_sure(probability) for _, probability in choices]) > 0.8
    assert chooser.images == (25, 25) and chooser.accuracy >= 0.96
    assert sum(map(sum, chooser.confusion)) == 50
    assert chooser.sure >= 0.8


def test_equal_images_give_an_equal_chooser_and_any_form_of_an_image_an_equal_choice(
    chooser: DomainChooser, tmp_path: Path
) -> None:
    assert DomainChooser.fit(pictures(INK, 0), pictures(PAINT, 100), DOMAINS, workers=0) == chooser
    draw(900, INK).save(tmp_path / "a.png")
    expected = chooser.choose(draw(900, INK))
    assert chooser.choose(tmp_path / "a.png") == chooser.choose((tmp_path / "a.png").read_bytes()) == expected
    chalk = chooser.choose(ImageOps.invert(draw(900, INK)))
    assert chalk[0] == INK and chalk[1] == pytest.approx(expected[1], abs=0.02)  # white on black is a drawing too
    with pytest.raises(ImageError):
        chooser.choose(b"no image")


def test_domains_that_look_alike_are_never_a_sure_choice() -> None:
    alike = DomainChooser.fit(pictures(INK, 0, 60), pictures(INK, 100, 60), DOMAINS)
    assert 0.3 < alike.accuracy < 0.7
    chances = [alike.choose(image)[1] for image in pictures(INK, 300)]
    assert max(chances) < 0.8 and not any(map(alike.is_sure, chances))


def test_too_few_or_unreadable_images_are_told() -> None:
    bad: list[Any] = [b"broken"] * 20
    with pytest.raises(IsthmusError, match="needs 10 readable images of 'paint', and there are 9"):
        DomainChooser.fit(pictures(INK, 0), pictures(PAINT, 100, 9) + bad, DOMAINS)
    with pytest.raises(IsthmusError, match="'ink', and there are 0"):
        DomainChooser.fit([], pictures(PAINT, 100), DOMAINS)
    mixed = DomainChooser.fit(pictures(INK, 0) + bad, pictures(PAINT, 100), DOMAINS)
    assert mixed.images == (25, 25)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (700, 500)])
@pytest.mark.parametrize("colour", ["white", "black", (128, 0, 0)])
def test_the_figures_are_finite_for_any_image(size: tuple[int, int], colour: Any) -> None:
    values = statistics(Image.new("RGB", size, colour))
    assert values.shape == (len(NAMES),) and np.isfinite(values).all()
    named = dict(zip(NAMES, values.tolist(), strict=True))
    assert (named["edges"], named["grain"], named["flat"]) == pytest.approx((0, 0, 1), abs=1e-12)
    assert named["white"] == (0 if isinstance(colour, tuple) else 1)


def test_the_regression_is_the_minimum() -> None:
    from scipy.optimize import minimize

    dice = np.random.default_rng(0)
    values = dice.normal(size=(80, 3))
    truth = (dice.random(80) < sigmoid(2 * values[:, 0] - 1)).astype(float)
    weight = np.where(truth == 1, 0.5 / truth.sum(), 0.5 / (1 - truth).sum())

    def loss(line: Any) -> float:
        sums = values @ line[:3] + line[3]
        return float((weight * (np.logaddexp(0, sums) - truth * sums)).sum() + 0.005 * (line[:3] ** 2).sum())

    best = minimize(loss, np.zeros(4), tol=1e-12)
    line = fit_line(values, truth, 0.01)
    assert [*line.weights, line.bias] == pytest.approx(best.x.tolist(), abs=1e-4)
    apart = fit_line(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), 1e-4)  # separable: large, but finite
    assert 1 < apart.weights[0] < 50 and apart.bias == pytest.approx(0, abs=1e-6)


def test_probabilities_are_calibrated() -> None:
    dice = np.random.default_rng(1)
    truth = np.repeat([0.0, 1.0], 1500)
    values = np.column_stack([dice.normal(truth * 1.2), dice.normal(size=(3000, 9))])
    half = dice.permutation(3000)[:300]
    rest = np.setdiff1d(np.arange(3000), half)
    strength, sums = cross_validate(values[half], truth[half], np.arange(300) % 5)
    line, scaling = fit_line(values[half], truth[half], strength), calibrate(sums, truth[half])
    probability = sigmoid(scaling(line(values[rest])[:, None]))
    for low in (0.1, 0.3, 0.5, 0.7):
        inside = (probability >= low) & (probability < low + 0.2)
        assert truth[rest][inside].mean() == pytest.approx(probability[inside].mean(), abs=0.1)


def test_the_file_comes_back_and_damage_is_one_sentence(chooser: DomainChooser, tmp_path: Path) -> None:
    assert DomainChooser.load(tmp_path) is None
    chooser.save(tmp_path)
    assert DomainChooser.load(tmp_path) == chooser
    good = json.loads((tmp_path / FILE).read_text())
    changes: list[dict[str, Any]] = [
        {"weights": good["weights"][:-1]}, {"weights": ["a"] * len(NAMES)}, {"mean": None}, {"bias": float("nan")},
        {"domains": ["ink"]}, {"domains": ["ink", "ink"]}, {"sure": 7}, {"confusion": [1, 2]}, {"scale": [-1.0] * 29},
        {"figures": []}, {"format": 99}, {"look": {"line": 2, "margin": 0.1, "dark": False}}, {"look": {"line": 0.1}},
    ]  # fmt: skip
    for text in ("", "{", "[]", "null", *(json.dumps(good | change) for change in changes)):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(IsthmusError) as told:
            DomainChooser.load(tmp_path)
        assert FILE in str(told.value) and "\n" not in str(told.value)


def test_a_run_has_a_chooser_and_is_the_same_run(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = trained
    chooser = DomainChooser.load(out)
    assert chooser is not None and chooser.domains == DOMAINS and chooser.images == (13, 13)
    assert chooser == DomainChooser.load(out / "model")
    Model.load(out).save(folder / "copy")
    assert DomainChooser.load(folder / "copy") == chooser
    assert chooser.choose(draw(5000, INK))[0] == INK and chooser.choose(draw(5000, PAINT))[0] == PAINT
    monkeypatch.setattr(run_module, "keep_chooser", lambda *_: None)
    config = settings(folder, method="cds", data__synthetic=[], train__epochs=1)
    train(config, folder / "without")
    assert DomainChooser.load(folder / "without") is None
    for name in ("model/model.safetensors", "manifest.parquet", "config.yaml"):
        assert (folder / "without" / name).read_bytes() == (out / name).read_bytes()
    assert Model.load(folder / "without").fingerprint == Model.load(out).fingerprint
    untimed = [
        [line.split(",")[:3] for line in (run / "log.csv").read_text().splitlines()]
        for run in (out, folder / "without")
    ]
    assert untimed[0] == untimed[1]


def test_training_goes_on_where_there_can_be_no_chooser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world(tmp_path, 6)
    train(settings(tmp_path, method="pretrained", data__synthetic=[]), tmp_path / "run")
    assert DomainChooser.load(tmp_path / "run") is None and (tmp_path / "run/model/model.safetensors").is_file()
    told = capsys.readouterr().err
    assert "No domain chooser beside the model: Telling the domains apart needs 10" in told
    assert "isthmus domains RUN" in told


def cli(*arguments: str | Path) -> Any:
    import typer

    from isthmus.cli.domains import domains

    app = typer.Typer()
    app.command()(domains)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_verb_fits_an_older_run(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = trained
    made = DomainChooser.load(out)
    before = {path: fingerprint(path.read_bytes()) for path in (out / "model").iterdir() if path.name != FILE}
    (out / "model" / FILE).write_text("{broken")
    result = cli(out)
    assert result.exit_code == 0, result.output
    assert "is ink" in result.stdout and "taken for paint" in result.stdout and "accuracy" in result.stdout
    assert made is not None and made.images == (13, 13)
    assert DomainChooser.load(out) is not None
    assert before == {path: fingerprint(path.read_bytes()) for path in (out / "model").iterdir() if path.name != FILE}
    named = cli(
        out, "--query-domain", f"{INK}={folder / INK}", "--gallery-domain", f"{PAINT}={folder / PAINT}", "--json"
    )
    values = json.loads(named.stdout)
    assert values["domains"] == list(DOMAINS) and values["images"] == [14, 14] and values["accuracy"] > 0.8
    for arguments, said in (
        ((tmp_path,), "is no model"),
        ((out, "--query-domain", f"{PAINT}={folder / PAINT}"), "The model's domain is 'ink', not 'paint'"),
        ((out, "--split", "other"), "--split is train, val or test"),
        ((out / "model",), "add  --query-domain ink=PATH"),
        ((out, "--query-domain", f"{INK}={tmp_path / 'none'}"), "none"),
    ):
        failed = cli(*arguments)
        assert isinstance(failed.exception, IsthmusError) and said in str(failed.exception)


def test_real_sketches_and_photos_are_told_apart(shared_data: Path) -> None:
    for name, query, gallery in (
        ("pacs", "pacs/sketch", "pacs/photo"),
        ("shoes", "qmul_shoes/train/sketches", "qmul_shoes/train/images"),
    ):
        sides = []
        for folder in (query, gallery):
            files = sorted(path for path in (shared_data / "data" / folder).rglob("*") if path.is_file())
            random.Random(0).shuffle(files)
            sides.append(files[:120])
        chooser = DomainChooser.fit(sides[0][:60], sides[1][:60], ("sketch", "photo"))
        assert chooser.accuracy > 0.95, name
        choices = [
            (domain == truth, probability)
            for truth, files in zip(("sketch", "photo"), sides, strict=True)
            for domain, probability in map(chooser.choose, files[60:])
        ]
        right, probability = np.array(choices).T
        assert right.mean() > 0.95, name
        # What it calls sure is right, and what it promises comes true.
        sure = probability >= chooser.sure
        assert sure.mean() > 0.9 and right[sure].mean() > 0.98, name
        assert probability.mean() == pytest.approx(right.mean(), abs=0.04), name
