"""What a process is told before it computes: freed memory stays, threads stay awake."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from isthmus.process import _glibc, keep_memory

MEASURE = """
import json, resource, sys, threading
import numpy as np
from isthmus.process import keep_memory
kept = keep_memory()
faults = {}
def work(name):
    def once():
        a = np.ones(12_500_000)  # 100 MB, more than the library keeps by itself
        b = np.ones(1_000_000)
        return a.sum() + b.sum()
    once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        once()
    faults[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
work("main")
thread = threading.Thread(target=work, args=("thread",))
thread.start()
thread.join()
print(json.dumps({"kept": kept, **faults}))
"""
gnu = pytest.mark.skipif(_glibc() is None, reason="the GNU C library is not in use here")


def run(code: str, **environment: str) -> str:
    import os

    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "ISTHMUS_KEEP", "OMP_WAIT"))}
    clean |= {"NUMPY_MADVISE_HUGEPAGE": "0", **environment}  # else a fault may stand for 2 MB
    return subprocess.run([sys.executable, "-c", code], env=clean, check=True, capture_output=True, text=True).stdout


@gnu
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    kept, not_kept = (json.loads(run(MEASURE, ISTHMUS_KEEP_MEMORY=on)) for on in ("1", "0"))
    assert kept["kept"] and not not_kept["kept"]
    for where in ("main", "thread"):
        assert not_kept[where] > 5 * 100e6 / 4096 * 0.9  # each page anew, each time
        assert kept[where] < 0.02 * not_kept[where]


@gnu
@pytest.mark.parametrize(
    "chosen",
    [{"MALLOC_TRIM_THRESHOLD_": "1000"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}],
    ids=["variable", "tunable"],
)
def test_what_somebody_else_chose_stays(chosen: dict[str, str]) -> None:
    assert run("from isthmus.process import keep_memory; print(keep_memory())", **chosen) == "False\n"


@gnu
def test_memory_is_given_back_when_asked_for() -> None:
    code = """
import numpy as np
from isthmus.process import keep_memory, release_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
keep_memory()
a = [np.ones(1_000_000) for _ in range(30)]
last = np.ones(100)
del a
held = resident()
release_memory()
print(held - resident())
"""
    assert float(run(code)) > 150  # of 240 MB


def test_asking_twice_is_asking_once() -> None:
    assert keep_memory() == keep_memory()


def test_threads_wait_awake_only_where_torch_can_still_be_told() -> None:
    code = (
        "{}; from isthmus.process import wait_awake; wait_awake(); import os; print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    assert run(code.format("pass")) == "ACTIVE\n"
    assert run(code.format("pass"), OMP_WAIT_POLICY="PASSIVE") == "PASSIVE\n"
    assert run(code.format("import torch")) == "None\n"


def test_the_service_has_its_threads_wait_awake() -> None:
    code = """
import sys
from isthmus.cli.main import build
try:
    build()(["serve", "no-such-catalog", "--port", "0"], standalone_mode=False)
except BaseException:
    pass
import os
print(os.environ.get("OMP_WAIT_POLICY"))
"""
    assert run(code).endswith("ACTIVE\n")
