"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
