"""The page on what is kept is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import running

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "gc.md"


@pytest.mark.matrix
def test_what_is_kept_and_what_goes_is_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "ann")
    with running.opened(PAGE, tmp_path) as page:
        assert page.run() >= 9
