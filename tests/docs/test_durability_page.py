"""The page on verify and repair is executed from top to bottom."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import running

import llmartifacts as la
from llmartifacts import wire

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "durability.md"
ROT = """
from pathlib import Path

stored = sorted(p for p in Path(".llmartifacts/blobs").rglob("*") if p.is_file() and p.suffix in ("", ".recipe"))
first, second = stored
data = bytearray(first.read_bytes())
data[5] ^= 1
first.chmod(0o644)
first.write_bytes(data)
second.unlink()
"""


@pytest.mark.matrix
def test_damage_is_found_and_mended_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMARTIFACTS_REGISTRY", raising=False)
    here = tmp_path / "project"
    here.mkdir()
    (here / "rot.py").write_text(ROT)
    with la.init(here / ".llmartifacts") as registry:
        registry.log("note", la.Files({"note.txt": b"kept"}))
        registry.log("data", la.Files({"data.bin": random.Random(1).randbytes(1_300_000)}))
    with running.opened(PAGE, here, {"LLMARTIFACTS_CACHE": str(tmp_path / "cache")}) as page:
        assert page.run() >= 5


def test_the_page_tells_the_codes_of_the_one_table() -> None:
    text = PAGE.read_text()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`") and cells[2].isdigit():
            for code in cells[0].split(", "):
                assert wire.TABLE[code.strip("`")][0] == int(cells[2]), code
