from __future__ import annotations

import re
from typing import get_args
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import Locked, Lockfile
from llmartifacts.runtime.generation import Generation, Notice
from llmartifacts.runtime.stamp import MAX_LENGTH, Source, Stamp, Stamped, find_stamp, parse_stamp

VISIBLE = re.compile(r"[A-Za-z0-9.;:=@%!+_~-]+")

shorts = st.text("0123456789abcdef", min_size=12, max_size=12)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
fields = st.one_of(names, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
codes = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
stamps = st.builds(
    Stamp,
    names,
    st.integers(0, 2**53 - 1),
    shorts,
    st.sampled_from(get_args(Source)),
    st.dictionaries(fields, st.builds(Stamped, names, st.integers(1, 999_999_999), shorts), max_size=60),
    st.just(0),
    st.lists(st.tuples(codes, st.one_of(st.just(""), fields)), max_size=30).map(tuple),
)


@given(stamps)
def test_what_a_stamp_says_is_read_back_and_what_has_no_room_is_counted(stamp: Stamp):
    line = str(stamp)
    assert len(line) <= MAX_LENGTH
    assert VISIBLE.fullmatch(line), "a header takes it as it is"
    back = parse_stamp(line)
    kept = list(stamp.components.items())[: len(back.components)]
    assert list(back.components.items()) == kept
    assert back.left_out == len(stamp.components) - len(kept)
    assert back.warnings == stamp.warnings[: len(back.warnings)]
    assert (back.project, back.revision, back.set_short, back.source) == (
        stamp.project,
        stamp.revision,
        stamp.set_short,
        stamp.source,
    )
    assert str(back) == line


@given(st.text())
def test_any_other_text_is_refused_or_is_a_stamp(text: str):
    try:
        read = parse_stamp(text)
    except InvalidInput:
        return
    assert parse_stamp(str(read)) == read


@given(stamps, st.data())
def test_a_damaged_stamp_is_refused_or_says_something_else(stamp: Stamp, data: st.DataObject):
    line = str(stamp)
    at = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters())
    damaged = line[:at] + other + line[at + 1 :]
    try:
        read = parse_stamp(damaged)
    except InvalidInput:
        return
    assert damaged == line or read != parse_stamp(line)


HEAD = "la1;default@r42;set=9f86d081884c;registry"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "la2;default@r42;set=9f86d081884c;registry",
        "la1;default@r42;set=9f86d081884c;elsewhere",
        HEAD + "x",
        HEAD + ";",
        HEAD + ";kb=support-kb:v0@ba9876543210",
        HEAD + ";kb=support-kb:v5@ba987654321",
        HEAD + ";kb=a:v1@ba9876543210;kb=a:v1@ba9876543210",
        HEAD + ";k%zz=a:v1@ba9876543210",
        HEAD + ";k%ff=a:v1@ba9876543210",
        HEAD + ";!UPPER",
        HEAD + ";+0",
        HEAD + "\n",
        HEAD + ";kb=a:v1@ba9876543210" * 200,
        None,
        b"la1",
    ],
)
def test_malformed_stamps_are_refused(text):
    with pytest.raises(InvalidInput) as caught:
        parse_stamp(text)
    assert caught.value.field == "stamp"


def generation(count: int, warnings: tuple[Notice, ...] = ()) -> Generation[None]:
    digest = digest_of(b"x")
    parts = {f"field{i}": Locked("support-agent:prod", "prompt", i + 1, digest, 10, 1) for i in range(count)}
    return Generation(7, None, Lockfile("default", 42, parts), "registry", warnings)


def test_a_generation_stamps_its_versions_and_warnings():
    made = generation(
        2, (Notice("yanked", "v2 was withdrawn: wrong", "field1"), Notice("registry-unreachable", "down"))
    )
    stamp = parse_stamp(made.stamp())
    assert {n: str(c) for n, c in stamp.components.items()} == {
        "field0": "support-agent:v1@2d711642b726",
        "field1": "support-agent:v2@2d711642b726",
    }
    assert stamp.warnings == (("yanked", "field1"), ("registry-unreachable", ""))
    assert (stamp.project, stamp.revision, made.revision) == ("default", 42, 42)
    assert made.lock.set_digest[7:19] == stamp.set_short


def test_a_stamp_of_very_many_components_stays_short_and_still_covers_all():
    first, second = generation(500), generation(501)
    stamp = parse_stamp(first.stamp())
    assert stamp.left_out + len(stamp.components) == 500
    assert stamp.left_out > 400
    assert stamp.set_short != parse_stamp(second.stamp()).set_short


# --- in a line


around = st.sampled_from(
    ["", " ", "(", '"', "X-LLM-Artifacts: ", '{"stamp":"', "served=", "2026-03-03T09:00:00Z INFO "]
)
after = st.sampled_from(["", " ", ")", '"}', ", took 3 ms", ".", "; done", "\r\n", "!", " la2;x"])


@given(stamps, around, after)
def test_a_stamp_is_found_in_whatever_line_holds_it(stamp: Stamp, before: str, behind: str) -> None:
    line = str(stamp)
    assert str(find_stamp(before + line + behind)) == line
    assert str(find_stamp(f"{before}{line} and again {line}{behind}")) == line


@given(stamps)
def test_a_stamp_that_is_percent_encoded_as_a_whole_is_found_too(stamp: Stamp) -> None:
    assert str(find_stamp(f"baggage: user=7,stamp={quote(str(stamp), safe='')},x=1")) == str(stamp)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no stamp"),
        ("GET / 200", "there is no stamp"),
        ("xla1;default@r42;set=9f86d081884c;registry", "there is no stamp"),
        (None, "is not a stamp"),
        ("served la1;default@r42 today", "does not begin as a stamp"),
        (f"{HEAD};kb=a:v1@ba98765432 cut short", "is no part of a stamp"),
        (f"{HEAD} and {HEAD.replace('r42', 'r43')}", "2 different stamps"),
        ("la1%3Bdefault%40r42%ff", "is not a stamp"),
    ],
)
def test_a_line_without_one_good_stamp_is_refused(text, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        find_stamp(text)
    assert caught.value.field == "stamp"


@given(st.text())
def test_any_line_is_refused_or_holds_a_stamp(text: str) -> None:
    try:
        found = find_stamp(text)
    except InvalidInput:
        return
    assert parse_stamp(str(found)) == found
