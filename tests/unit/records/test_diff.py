import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.diff import Change, Diff, diff_components, diff_files, diff_json, excluding
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Component, Descriptor, Manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text("ab", max_size=2),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text("ab", max_size=2), x, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_values_differ_where_their_canonical_forms_do(a, b):
    changes = list(diff_json(a, b))
    assert bool(changes) is (canonical_bytes(a) != canonical_bytes(b))
    assert [(c.path, c.before, c.after) for c in diff_json(b, a)] == [(c.path, c.after, c.before) for c in changes]


def test_changes_are_named_by_their_path():
    before = {"model": {"t": 0.2, "gone": 1}, "tools": ["a", "b"], "same": [1]}
    after = {"model": {"t": 0.9, "new": True}, "tools": ["a"], "same": [1]}
    assert [str(c) for c in diff_json(before, after)] == [
        "- model.gone: 1",
        "+ model.new: True",
        "~ model.t: 0.2 -> 0.9",
        "- tools[1]: b",
    ]


def test_true_is_not_one():
    assert [c.op for c in diff_json({"a": True}, {"a": 1})] == ["changed"]


def d(text):
    return digest_of(text)


def test_files_are_compared_by_digest_and_address():
    before = Manifest.build(
        "files", {}, [Descriptor("a", d(b"1"), 1), Descriptor("b", d(b"2"), 1), Descriptor("c", d(b"3"), 1, "s3://x/c")]
    )
    after = Manifest.build(
        "files", {}, [Descriptor("a", d(b"1"), 1), Descriptor("d", d(b"2"), 1), Descriptor("c", d(b"3"), 1, "s3://y/c")]
    )
    assert [(c.op, c.path) for c in diff_files(before, after)] == [
        ("removed", "files/b"),
        ("changed", "files/c.url"),
        ("added", "files/d"),
    ]
    assert list(diff_files(before, before)) == []


def test_parts_are_compared_by_role():
    before = Manifest.build("bundle", {}, (), [Component("p", "prompt", d(b"1")), Component("q", "prompt", d(b"1"))])
    after = Manifest.build("bundle", {}, (), [Component("p", "prompt", d(b"2"))])
    assert [(c.op, c.path) for c in diff_components(before, after)] == [
        ("changed", "components.p"),
        ("removed", "components.q"),
    ]


def test_paths_can_be_left_out():
    changes = [Change("a.b", 1, 2, "changed"), Change("files/x", 1, 2, "changed")]
    assert list(excluding(changes, "files/")) == changes[:1]


def test_a_difference_is_true_if_there_is_one():
    assert not Diff("prompt", "a:v1", "a:v2")
    assert str(Diff("prompt", "a:v1", "a:v2")) == "no difference"
    assert Diff("prompt", "a:v1", "a:v2", text="-a\n+b\n")
    assert str(Diff("prompt", "", "", (Change("a", 1, 2, "changed"),), "text")) == "~ a: 1 -> 2\ntext"


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb", "a\rb", "\u202e", "\x9b31m"])
def test_what_was_logged_never_acts_on_a_terminal(hostile):
    for change in (
        Change("a", hostile, "x", "changed"),
        Change("a", None, hostile, "added"),
        Change("a", {"k": hostile}, None, "removed"),
        Change(hostile, 1, 2, "changed"),
    ):
        assert str(change).isprintable()


def test_a_long_value_is_shortened():
    assert len(str(Change("a", "x" * 500, "y" * 500, "changed"))) < 200
