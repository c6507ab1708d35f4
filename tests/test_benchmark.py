"""The ablation benchmark: rows, their settings and budgets, runs that are never done twice, and step 1 shared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_zoo import SETTINGS, SOURCE, protocol, tables
from training_zoo import INK, PAINT, command, environment, same
from typer.testing import CliRunner

from isthmus.benchmark.jobs import Job, perform
from isthmus.benchmark.plan import Planner
from isthmus.benchmark.prints import part_of
from isthmus.benchmark.protocol import Budget, Split
from isthmus.benchmark.queue import Queue
from isthmus.benchmark.rows import VARIANTS, choose
from isthmus.benchmark.runner import lock, run_jobs
from isthmus.cli.main import build
from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.methods.ihda import IHDA
from isthmus.models.ihda import IhdaModel
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.interrupt import Interrupted
from isthmus.train.run import train

ROWS = {row.name: row for row in VARIANTS}
ALL = ["ihda", "no-domain", "no-attributes", "harmful", "pairs-50", "target-only", "joint", "source-only",
       "backbone-only", "inverted-domain"]  # fmt: skip


def planner(folder: Path, splits: int = 1, **changes: Any) -> Planner:
    return Planner(protocol(folder, splits, **changes), folder / "results", folder / "work")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    """Ten rows on one split with one seed, done."""
    made = planner(tmp_path_factory.mktemp("benchmark"))
    made.write_queries()
    assert run_jobs(made.jobs([ROWS[name] for name in ALL], [0]), say=lambda _: None) == []
    return made


def record(done: Planner, row: str) -> dict[str, Any]:
    return dict(json.loads((done.results / row / "0-0.json").read_text()))


def config(done: Planner, row: str) -> RunConfig:
    return RunConfig.load(done.work / "runs" / row / "0-0" / "config.yaml")


def test_every_row_differs_from_the_whole_method_in_what_its_name_says(done: Planner) -> None:
    whole = config(done, "ihda")
    assert whole.ihda.attributes == ["-bad"]
    assert whole.ihda.stages == "target" and whole.ihda.start is not None
    changed = {
        "no-domain": {"domain_weight"},
        "inverted-domain": {"ablation"},
        "no-attributes": {
            "source_attribute_weight",
            "attribute_weight",
            "entropy_weight",
            "consistency_weight",
            "start",
        },
        "harmful": {"attributes", "start"},
        "pairs-50": set(),
    }
    for row, names in changed.items():
        other = config(done, row)
        differ = {name for name, value in other.ihda if value != getattr(whole.ihda, name)}
        assert differ == names, row
        assert other.train == whole.train and other.model == whole.model and other.augment == whole.augment
        assert other.data.source == whole.data.source
    assert config(done, "harmful").ihda.attributes == []


def test_baselines_take_as_many_steps_as_both_steps_together(done: Planner) -> None:
    both = record(done, "ihda")["steps"] + record(done, "ihda")["step_1_steps"]
    assert both == 2 * 2 + 1 * 2
    for row in ("target-only", "joint", "source-only"):
        assert record(done, row)["steps"] == both, row
    assert record(done, "backbone-only")["steps"] == 0
    assert config(done, "target-only").data.source is None
    assert config(done, "joint").data.source is not None


@pytest.mark.parametrize(
    ("budget", "wanted"), [((4, 10, 4, 10), (8, 10)), ((20, 4, 10, 6), (28, 5)), ((1, 3, 1, 4), (1, 7))]
)
def test_a_budget_is_spent_exactly(budget: tuple[int, int, int, int], wanted: tuple[int, int]) -> None:
    made = Budget(*budget)
    assert made.alone() == wanted
    assert wanted[0] * wanted[1] == made.total == budget[0] * budget[1] + budget[2] * budget[3]


def test_rows_with_the_same_step_1_share_it(done: Planner) -> None:
    starts = {row: str(config(done, row).ihda.start) for row in ALL if ROWS[row].kind == "both"}
    shared = {row for row, start in starts.items() if start == starts["ihda"]}
    assert shared == {"ihda", "no-domain", "pairs-50", "inverted-domain"}
    assert len(set(starts.values())) == 3  # and one of no-attributes, one of harmful
    assert len(list((done.work / "step1").iterdir())) == 3


@pytest.mark.parametrize("one_encoder", [False, True])
def test_a_shared_step_1_is_the_first_stage_of_one_run(
    one_encoder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; what differs afterwards is step 2's draws, which depend on the number of the epoch in its run."""
    made = planner(tmp_path, ihda__shared=one_encoder)
    split = made.protocol.splits[0]
    found: dict[str, Any] = {}
    enter = IHDA.enter

    def spy(self: IHDA, stage: int) -> None:
        enter(self, stage)
        if stage:
            found.update({name: part.state_dict() for name, part in self.model.modules().items()})
            found.update({name: {k: v.clone() for k, v in part.items()} for name, part in found.items()})

    monkeypatch.setattr(IHDA, "enter", spy)
    train(made.protocol.base(split, 0), tmp_path / "both")
    job = made.of(ROWS["ihda"], split, 0)[0]
    assert job.result is None
    perform(job)
    model = IhdaModel.load(job.run)
    assert found and model.attributes == ("even", "third")
    assert list(model.encoders()) == (["encoder"] if one_encoder else ["query", "gallery"])
    for name, part in model.encoders().items():
        assert same(dict(part.state_dict()), found[name]), name
    assert same(dict(model.heads["attributes"].state_dict()), found["attributes"])
    assert not (job.run / "checkpoints").exists()


def test_results_are_small_and_runs_keep_no_weights(done: Planner) -> None:
    for row in ALL:
        assert (done.results / row / "0-0.json").stat().st_size < 20_000
        kept = {path.name for path in (done.work / "runs" / row / "0-0").iterdir()}
        assert kept == {"config.yaml", "log.csv", "train.log"}
    assert not list(done.work.rglob("*.safetensors")) and not list(done.work.rglob("*.pt"))


def test_a_result_holds_what_the_table_needs(done: Planner) -> None:
    found = record(done, "ihda")
    assert found["setting"] == "centred"
    assert [(side["direction"], side["setting"]) for side in found["sides"]] == [
        ("ink->paint", "centred"), ("paint->ink", "centred"), ("ink->paint", "plain"), ("paint->ink", "plain"),
    ]  # fmt: skip
    side = found["sides"][0]
    assert side["scores"]["R@1"] == pytest.approx(sum(rank == 1 for rank in side["ranks"]) / 8)
    assert side["scores"]["mAP@all"] == pytest.approx(sum(1 / rank for rank in side["ranks"]) / 8, abs=1e-5)
    assert set(found["attributes"]) == {INK, PAINT} and set(found["attributes"][INK]["accuracy"]) == {"even", "third"}
    assert set(record(done, "harmful")["attributes"][INK]["accuracy"]) == {"even", "third", "bad"}
    assert record(done, "target-only")["attributes"] is None
    assert 0 <= found["probe"]["balanced_accuracy"] <= 1
    assert found["human"] is None and found["machine"] and found["date"]


def test_a_finished_run_is_never_done_again(done: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.benchmark.jobs.train", lambda *_: pytest.fail("trained again"))
    jobs = done.jobs([ROWS[name] for name in ALL], [0])
    assert run_jobs(jobs) == []
    assert Queue(jobs).finished == len(ALL)


def test_another_setting_or_table_is_refused(done: Planner, tmp_path: Path) -> None:
    folder = done.results.parent
    other = Planner(protocol(folder, 1, train__lr=0.5), done.results, done.work)
    with pytest.raises(IsthmusError, match="other settings"):
        run_jobs(other.jobs([ROWS["ihda"]], [0]))
    rows = Manifest.load(folder / "pairs-0.parquet")
    Manifest([row for row in rows if row.identity != "n100"]).save(tmp_path / "pairs-0.parquet")
    fewer = protocol(folder, 1)
    object.__setattr__(fewer.splits[0], "pairs", tmp_path / "pairs-0.parquet")
    with pytest.raises(IsthmusError, match="other tables"):
        run_jobs(Planner(fewer, done.results, done.work).jobs([ROWS["ihda"]], [0]))


def test_results_of_two_settings_make_no_table(done: Planner) -> None:
    folder = done.results.parent
    done.write_queries()
    with pytest.raises(IsthmusError, match="make no table"):
        Planner(protocol(folder, 1, train__lr=0.5), done.results, done.work).write_queries()
    with pytest.raises(IsthmusError, match="make no table"):
        Planner(protocol(folder, 1, harmful=()), done.results, done.work).write_queries()


def test_sizes_of_a_split_share_their_step_1(tmp_path: Path) -> None:
    whole = protocol(tmp_path).splits[0]
    jobs: list[Job] = []
    for share in (0.5, 1.0):
        few = tmp_path / f"few-{share}.parquet"
        part_of(whole.rows, share, 0).save(few)
        made = replace(protocol(tmp_path, 1), splits=(Split("0", few, whole.source, first=whole.pairs),))
        one = Planner(made, tmp_path / f"r{share}", tmp_path / f"w{share}", shared=tmp_path / "step1")
        jobs += one.jobs([ROWS["ihda"]], [0])
    assert jobs[0].run == jobs[2].run
    lines: list[str] = []
    assert run_jobs([jobs[0], jobs[1], jobs[3]], say=lines.append) == []
    assert [line.split(":")[0] for line in lines] == ["[0/2] step 1 of 0-0", "[1/2] ihda 0-0", "[2/2] ihda 0-0"]
    assert not list((tmp_path / "step1").rglob("*.safetensors"))  # removed after its last user, and not before


def test_parts_of_the_pairs_are_nested_and_of_the_seed(tmp_path: Path) -> None:
    pairs, _ = tables(tmp_path, 0, train=20)
    rows = Manifest.load(pairs)

    def kept(share: float, seed: int) -> set[str | None]:
        part = part_of(rows, share, seed)
        assert len(part.select(split="test")) == 16
        names = {row.identity for row in part.select(split="train", domain=INK)}
        assert names == {row.identity for row in part.select(split="train", domain=PAINT)}
        return names

    assert len(kept(0.5, 0)) == 10 and len(kept(0.8, 0)) == 16
    assert kept(0.5, 0) < kept(0.8, 0)
    assert kept(0.5, 0) != kept(0.5, 1)


def test_a_failed_run_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planner(tmp_path)
    jobs = made.jobs([ROWS["ihda"], ROWS["backbone-only"]], [0])

    def fail(job: Job) -> dict[str, Any]:
        if not job.row:
            raise IsthmusError("The loss became nan.")
        return perform(job)

    monkeypatch.setattr("isthmus.benchmark.runner.perform", fail)
    lines: list[str] = []
    failed = run_jobs(jobs, say=lines.append)
    assert failed == ["step 1 of 0-0: The loss became nan.", "ihda 0-0: its step 1 failed"]
    assert (made.results / "backbone-only" / "0-0.json").is_file()
    assert "left" in lines[-1]


def arguments(folder: Path, splits: int = 1, **changes: Any) -> list[str]:
    made = [tables(folder, k) for k in range(splits)]
    named = [f"--pairs={pairs}" for pairs, _ in made] + [f"--source={source}" for _, source in made]
    values = {**SETTINGS, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [
        "benchmark", "ihda-ablation", *named, f"--out={folder / 'out'}", f"--query-domain-name={INK}",
        f"--gallery-domain-name={PAINT}", f"--source-domain-name={SOURCE}", "--seeds=0",
        *[f"--set={name}={value}" for name, value in values.items()],
    ]  # fmt: skip


def epochs_in(log: Path) -> int:
    return len(log.read_text().splitlines()) - 1 if log.is_file() else 0


def wait_for(log: Path, epochs: int) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and epochs_in(log) < epochs:
        time.sleep(0.05)
    assert epochs_in(log) >= epochs


def test_a_killed_benchmark_goes_on(tmp_path: Path) -> None:
    """SIGKILL of the first process in the midst of a run: its process ends too, and the same command does the rest."""
    words = arguments(tmp_path, train__epochs=60)
    first = CliRunner().invoke(build(), [*words, "--rows=backbone-only"])
    assert first.exit_code == 0, first.stderr
    both = [*words, "--rows=target-only,backbone-only", "--jobs=2"]
    process = subprocess.Popen(command(*both), env=environment(), stderr=subprocess.PIPE, text=True)
    run = tmp_path / "out" / "runs" / "target-only" / "0-0"
    wait_for(run / "log.csv", 3)
    process.kill()
    assert process.stderr is not None
    process.stderr.read()  # until the last process that writes here is gone
    process.wait()
    results = tmp_path / "out" / "results"
    done = results / "backbone-only" / "0-0.json"
    stamp, before = done.stat().st_mtime_ns, load_checkpoint(run / "checkpoints" / "last.pt")["progress"]["epoch"]
    assert before > 0 and not (results / "target-only").exists()
    again = CliRunner().invoke(build(), [*words, "--rows=target-only,backbone-only"])
    assert again.exit_code == 0, again.stderr
    assert done.stat().st_mtime_ns == stamp
    record = json.loads((results / "target-only" / "0-0.json").read_text())
    assert record["steps"] == 2 * 2 + 60 * 2
    assert (tmp_path / "out" / "table.html").is_file() and "pairs alone" in again.stdout


def test_a_stop_is_passed_on_and_nothing_is_lost(tmp_path: Path) -> None:
    made = planner(tmp_path, train__epochs=400)
    jobs = made.jobs([ROWS["target-only"]], [0])

    def interrupt() -> None:
        wait_for(jobs[0].run / "log.csv", 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match="Stopped; 0 of 1 results are there"):
        run_jobs(jobs, processes=2, say=lambda _: None)
    progress = load_checkpoint(jobs[0].run / "checkpoints" / "last.pt")["progress"]
    assert 0 < progress["epoch"] < 400
    assert not jobs[0].done()


def test_two_benchmarks_in_one_folder_are_refused(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(IsthmusError, match="Another benchmark works in"):
        lock(tmp_path)
    held.close()
    lock(tmp_path).close()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--rows=ihda,no-such"], "There is no row 'no-such'; choose --rows from: ihda, "),
        (["--rows=harmful"], "The row 'harmful' needs attributes"),
        (["--harmful=nope"], "--harmful names 'nope', which"),
        (["--pairs=missing.parquet"], "missing.parquet"),
        (["--source=a.parquet", "--source=b.parquet"], "There are 1 --pairs and 3 --source; name one source"),
        (["--seeds=0,x"], "--seeds is '0,x'"),
        (["--seeds=1,1"], "--seeds is '1,1'"),
        (["--jobs=0"], "--jobs is 0"),
        (["--gallery-domain-name=oil"], "has no images of 'oil' (it has: ink, paint)"),
        (["--set=ihda.stages=source"], "leave them out of --set"),
        (["--set=train.no=1"], "there is no setting 'train.no'"),
        (["--triplets=none.csv"], "There is no file none.csv"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, more: list[str], sentence: str) -> None:
    result = CliRunner().invoke(build(), [*arguments(tmp_path), *more])
    assert result.exit_code == 2
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()[-1:]) == 1


def test_harmful_is_left_out_with_a_sentence() -> None:
    rows, notes = choose(None, [])
    assert "harmful" not in [row.name for row in rows] and len(rows) == len(VARIANTS) - 1
    assert notes == ["The row 'harmful' is left out, as no attributes are named with --harmful."]


def test_a_plan_trains_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), [*arguments(tmp_path), "--rows=ihda,target-only", "--plan", "--json"])
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["units"] == 2 and plan["unit"] == "results from 3 runs" and plan["seconds"] > 0
    assert not (tmp_path / "out").exists()
