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


# Files that train on real images, longest first: begun last, one of them would keep a single worker busy at the end.
LONG = (
    "test_cut_learning", "test_data_free_real", "test_ihda_domain", "test_learning_real", "test_trainer_resume",
    "test_learning_icons", "test_translate_ray", "test_index_ray", "test_ihda_learning", "test_ihda_real",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in our order: pytest-xdist takes those with most tests first, which are quick ones."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the others stay as they are."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


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
