"""The page on backups, exports and imports is executed from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
import running

import llmartifacts as la

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "backup.md"


@pytest.mark.matrix
def test_backups_are_made_and_restored_as_their_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMARTIFACTS_REGISTRY", "LLMARTIFACTS_SERVE_DATABASE", "LLMARTIFACTS_SERVE_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    here = tmp_path / "project"
    here.mkdir()
    with la.init(here / ".llmartifacts") as registry:
        for text in (b"one", b"two"):
            registry.log("note", la.Files({"note.txt": text}))
    with running.opened(PAGE, here) as page:
        assert page.run() >= 5
