"""The page on tracing is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import running

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "tracing.md"


@pytest.mark.slow
def test_a_request_is_traced_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with running.opened(PAGE, tmp_path) as page:
        assert page.run() >= 6
