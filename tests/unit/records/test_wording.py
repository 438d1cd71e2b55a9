from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.records.wording import counted, printable, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_999, "10 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (768_000_000, "768 MB"),
        (2.5e12, "2.5 TB"),
        (4e18, "4000 PB"),
    ],
)
def test_sizes_read_well(count: float, text: str) -> None:
    assert size(count) == text


def test_one_is_not_many() -> None:
    assert [counted(n, "file") for n in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]


@given(st.text(st.characters()))
def test_foreign_text_is_one_line_without_anything_that_a_terminal_obeys(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


def test_what_is_printable_beside_what_is_not_stays_readable() -> None:
    assert printable("né\x1b[2J\n\u202e\ud800") == "né\\x1b[2J\\n\\u202e\\ud800"
