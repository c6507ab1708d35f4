"""The page on translators names every translator and every setting there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isthmus.translate.base import TRANSLATORS, translator_class

PAGE = (Path(__file__).parent.parent / "docs" / "translators.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([\w-]+)`", PAGE))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_each_translator_has_its_row(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_each_setting_is_named(name: str) -> None:
    settings = set(translator_class(name).settings_type.model_fields)
    assert settings - NAMED == set()
