import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidPath, InvalidReference
from llmartifacts.records.names import (
    check_alias,
    check_name,
    check_path,
    check_paths,
    check_tag,
    did_you_mean,
    is_alias,
    near_names,
    version_number,
)


@pytest.mark.parametrize("name", ["a", "A", "9", "support-agent", "Kb_1.2-x", "v1", "latest", "a" * 128])
def test_a_name_has_letters_digits_dots_and_hyphens(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 129,
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "a:b",
        "a@b",
        "a\n",
        "\na",
        "é",
        "а",
        "a\x00",
        "sha256",
        "SHA256",
        "Sha256",
        None,
        7,
        b"a",
    ],
)
def test_whatever_else_is_no_name_and_the_field_is_named(name):
    with pytest.raises(InvalidReference) as caught:
        check_name(name, field="components.x")
    assert caught.value.field == "components.x"
    assert caught.value.hint()


@pytest.mark.parametrize("alias", ["prod", "a", "1", "v", "v1a", "1v", "canary-2", "a" * 128])
def test_an_alias_is_a_name_in_lower_case(alias):
    assert check_alias(alias) == alias


@pytest.mark.parametrize(
    "alias", ["", "Prod", "v1", "v0", "v01", "v1234567890123", "latest", "a b", "-a", "prod\n", None]
)
def test_an_alias_is_never_a_version_number_nor_latest(alias):
    with pytest.raises(InvalidReference):
        check_alias(alias)


def test_latest_has_the_form_of_an_alias_and_cannot_be_set():
    assert is_alias("latest")
    with pytest.raises(InvalidReference, match="moves by itself"):
        check_alias("latest")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("v1", 1),
        ("v999999999", 999_999_999),
        ("v0", None),
        ("v01", None),
        ("v1000000000", None),
        ("1", None),
        ("V1", None),
        ("v١", None),
        ("v1\n", None),
    ],
)
def test_a_version_is_v_and_a_number_without_zeros_in_front(text, number):
    assert version_number(text) == number


@pytest.mark.parametrize("value", ["", "CHG-1042", "x" * 1024, "größer"])
def test_a_tag_has_a_printable_value(value):
    assert check_tag("ticket", value) == ("ticket", value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("", "x"), ("a b", "x"), ("a", "x" * 1025), ("a", "x\ny"), ("a", "\x1b"), ("a", 7), (7, "x"), ("a", None)],
)
def test_a_tag_that_is_no_label_is_refused(key, value):
    with pytest.raises(InvalidReference):
        check_tag(key, value)


@pytest.mark.parametrize(
    "path", ["a", "a/b/c.txt", ".hidden", "a.b/.c", "größe/日本.txt", "a b/c d", "~", "-rf", "a" * 255]
)
def test_a_plain_relative_path_is_taken(path):
    assert check_path(path) == path


def test_many_paths_are_checked_together():
    check_paths([f"d{i % 10}/f{i}" for i in range(1000)])
    check_paths([])


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        (["a", "a"], "appears twice"),
        (["README", "readme"], "case only"),
        (["straße", "STRASSE"], "case only"),
        (["Dir/a", "dir/b"], "folder 'dir' differs"),
        (["x/Dir/a", "x/dir/b"], "folder 'x/dir' differs"),
        (["x/Y/z/a", "x/y/z/b"], "folder"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b", "A"], "both a file and a folder"),
        (["a/b/c", "a/b"], "both a file and a folder"),
    ],
)
def test_paths_that_would_meet_on_some_file_system_are_refused(paths, match):
    with pytest.raises(InvalidPath, match=match):
        check_paths(paths)
    with pytest.raises(InvalidPath):
        check_paths(paths[::-1])


def test_the_place_of_a_bad_path_in_its_list_is_named():
    with pytest.raises(InvalidPath) as caught:
        check_paths(["ok", "../no"])
    assert caught.value.field == "files[1].path"


SEGMENT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(st.lists(SEGMENT, min_size=1, max_size=4).map("/".join))
def test_a_path_that_is_taken_stays_below_its_folder_and_means_one_thing(path):
    try:
        check_path(path)
    except InvalidPath:
        return
    assert not path.startswith("/")
    assert "\\" not in path
    assert "\x00" not in path
    assert all(s not in ("", ".", "..") and s == s.strip() for s in path.split("/"))
    assert unicodedata.is_normalized("NFC", path)
    assert path.isprintable() or all(unicodedata.category(c) in ("Zs", "Co", "Cn") for c in path if not c.isprintable())


@given(st.lists(st.lists(st.sampled_from("aAbß"), min_size=1, max_size=3).map("/".join), max_size=8))
def test_paths_that_are_taken_together_stay_apart_where_case_does_not_count(paths):
    try:
        check_paths(paths)
    except InvalidPath:
        return
    folded = [p.casefold() for p in paths]
    assert len(set(folded)) == len(paths)
    assert not any(a != b and b.startswith(a + "/") for a in folded for b in folded)
    spelled = {}
    for path in paths:
        parts = path.split("/")
        for i in range(1, len(parts)):
            folder = "/".join(parts[:i])
            assert spelled.setdefault(folder.casefold(), folder) == folder


def test_near_names_are_given_best_first_and_another_case_comes_first():
    known = ["support-agent", "support-kb", "Support-Eval", "other"]
    assert near_names("support-agnet", known)[0] == "support-agent"
    assert near_names("support-eval", known)[0] == "Support-Eval"
    assert near_names("zzz", known) == ()
    assert near_names("x", []) == ()
    assert len(near_names("support", known, limit=1)) <= 1


def test_a_hint_names_what_is_near_or_says_something_else():
    assert did_you_mean("promt", ["prompt", "files"]) == "Did you mean prompt?"
    assert did_you_mean(7, ["prompt"], "Kinds: prompt.") == "Kinds: prompt."
    assert did_you_mean("zzz", []) == ""
