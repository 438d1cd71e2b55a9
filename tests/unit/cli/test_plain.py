from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.cli.plain import clean, dumps, one_line, plain
from llmartifacts.errors import NotFound
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version

ACTED_ON = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066", "\u2028", "\ud800"} - {"\n", "\t"}


@given(st.text(st.characters()))
def test_no_text_reaches_a_terminal_with_a_character_that_it_would_obey(text: str) -> None:
    assert not ACTED_ON & set(clean(text))
    assert not (ACTED_ON | {"\n", "\t"}) & set(one_line(text))


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_ordinary_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_an_escape_sequence_is_shown_by_its_code() -> None:
    assert clean("a\x1b]0;owned\x07b\x9bm\u202ec") == r"a\x1b]0;owned\x07b\x9bm\u202ec"


def test_windows_line_ends_are_line_ends() -> None:
    assert clean("a\r\nb\rc") == "a\nb\\x0dc"


def test_one_line_says_that_there_is_more() -> None:
    assert one_line("first\nsecond") == "first …"
    assert one_line("only\n\n") == "only"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, st.booleans())
def test_json_comes_back_as_it_was_and_holds_nothing_that_a_terminal_obeys(value: Any, ascii_only: bool) -> None:
    text = dumps(value, ascii_only=ascii_only)
    assert json.loads(text) == value
    assert not ACTED_ON & set(text)
    assert not ascii_only or text.isascii()


def test_what_json_has_no_word_for_becomes_null() -> None:
    assert json.loads(dumps({"a": float("nan"), "b": float("inf")})) == {"a": None, "b": None}


@dataclass(frozen=True)
class Record:
    at: datetime
    where: Path
    refs: tuple[Reference, ...]
    verdict: Verdict
    more: dict[int, float]


def test_the_fields_of_a_record_are_the_keys_of_its_json() -> None:
    at = datetime(2026, 3, 3, 10, tzinfo=timezone(timedelta(hours=1)))
    record = Record(at, Path("a/b"), (Reference.parse("p/kb:v2"),), Verdict.PASS, {1: 0.5})
    assert plain(record) == {
        "at": "2026-03-03T09:00:00.000000Z",
        "where": "a/b",
        "refs": ["p/kb:v2"],
        "verdict": "PASS",
        "more": {"1": 0.5},
    }


def test_a_version_says_its_reference_and_a_manifest_is_its_document() -> None:
    manifest = Manifest.build("files", {"a": 1})
    version = Version("acme", "kb", "files", 3, manifest.digest, datetime(2026, 1, 1, tzinfo=UTC))
    assert plain(version)["reference"] == "acme/kb:v3"
    assert plain(manifest) == json.loads(manifest.to_bytes())


def test_an_error_inside_a_record_keeps_its_code_and_hint() -> None:
    made = plain((NotFound("no x", near=("y",)),))[0]
    assert (made["code"], made["message"], made["hint"]) == ("not_found", "no x", "Did you mean y?")
