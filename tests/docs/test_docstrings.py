"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import llmartifacts


def _with_examples() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(llmartifacts.__path__, "llmartifacts.")]
    root = Path(llmartifacts.__file__).parent.parent

    def source(name: str) -> str:
        place = root.joinpath(*name.split("."))
        return (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")

    return [name for name in names if ">>> " in source(name)]


@pytest.mark.parametrize("name", _with_examples())
def test_the_examples_of_a_module_give_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
