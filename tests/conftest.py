"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_zoo import World

# No test needs a hub; where none can be reached, each try would wait the better part of a minute.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Workers side by side (pytest -n) share the cores, each with its part of them: read when torch is first imported.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images (`data/`, `weights/`); tests that need it skip where it is not named."""
    name = os.environ.get("ISTHMUS_TEST_DATA")
    if not name:
        pytest.skip("set ISTHMUS_TEST_DATA to the folder with data/ and weights/ to run the tests on real images")
    folder = Path(name).resolve()
    if not (folder / "data" / "pacs").is_dir():
        pytest.fail(f"ISTHMUS_TEST_DATA={name} holds no data/pacs")
    return folder


@pytest.fixture(scope="session")
def cli_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Images, translations, a run and a catalog for the tests of bad input: which lose nothing of it."""
    from cli_zoo import make_ready, unharmed

    folder = tmp_path_factory.mktemp("cli") / "world"
    world = make_ready(folder)
    with unharmed(folder):
        yield world
