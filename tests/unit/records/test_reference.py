import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidReference
from llmartifacts.records.names import ALIAS, NAME, check_name, is_alias
from llmartifacts.records.reference import Reference, parse_many, strings

DIGEST = "sha256:" + "0f" * 32


def fine_name(text):
    try:
        return bool(check_name(text))
    except InvalidReference:
        return False


NAMES = st.from_regex(NAME, fullmatch=True, alphabet=st.characters(codec="ascii")).filter(fine_name)
ALIASES = st.from_regex(ALIAS, fullmatch=True, alphabet=st.characters(codec="ascii")).filter(is_alias)
REFERENCES = st.builds(
    lambda name, project, selector, digest: Reference(name, project, *selector, digest),
    NAMES,
    st.none() | NAMES,
    st.just((None, None)) | ALIASES.map(lambda a: (a, None)) | st.integers(1, 999_999_999).map(lambda n: (None, n)),
    st.none() | st.just(DIGEST),
)


@given(REFERENCES)
def test_a_reference_reads_as_it_is_written(reference):
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference) is reference


@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.text("av1:/@sha256-", max_size=20))
def test_any_other_text_is_refused_or_means_what_it_says(text):
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("support-agent", Reference("support-agent")),
        ("support-agent:prod", Reference("support-agent", alias="prod")),
        ("support-agent:v3", Reference("support-agent", number=3)),
        ("support-agent:latest", Reference("support-agent", alias="latest")),
        ("acme/support-agent:staging", Reference("support-agent", "acme", alias="staging")),
        (f"support-agent@{DIGEST}", Reference("support-agent", digest=DIGEST)),
        (f"acme/a:v3@{DIGEST}", Reference("a", "acme", number=3, digest=DIGEST)),
    ],
)
def test_the_forms_of_the_design_are_read(text, expected):
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        ":a",
        "@",
        "a@",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "a:b:c",
        "a:Prod",
        "a:v0",
        "a:v01",
        "a:v1234567890",
        "a b",
        "a :prod",
        " a",
        "a\n",
        "a@sha256:ab",
        f"a@{DIGEST.upper()}",
        f"a@{DIGEST}0",
        f"@{DIGEST}",
        DIGEST,
        f"a@{DIGEST}@{DIGEST}",
        f"a@{DIGEST}:prod",
        "a@md5:00",
        None,
        7,
        b"a",
        ["a"],
    ],
)
def test_a_malformed_reference_is_refused_and_says_how_one_looks(text):
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text, field="inputs[2]")
    assert caught.value.field == "inputs[2]"
    assert caught.value.hint()


def test_a_version_that_is_required_and_not_there_is_refused_with_how_to_write_it():
    with pytest.raises(InvalidReference, match="promote wants") as caught:
        Reference.parse("agent").required("promote")
    assert "agent:v1" in caught.value.hint()
    for text in ("agent:prod", "agent:v1", f"agent@{DIGEST}"):
        assert str(Reference.parse(text).required("promote")) == text


def test_without_a_selector_latest_is_meant_where_a_verb_allows_it():
    assert str(Reference.parse("agent").or_latest()) == "agent:latest"
    assert str(Reference.parse("agent:prod").or_latest()) == "agent:prod"
    assert str(Reference.parse(f"agent@{DIGEST}").or_latest()) == f"agent@{DIGEST}"


def test_a_project_is_filled_in_and_never_replaced():
    assert str(Reference.parse("agent:prod").within("acme")) == "acme/agent:prod"
    assert str(Reference.parse("other/agent:prod").within("acme")) == "other/agent:prod"


@pytest.mark.parametrize(
    ("text", "selector"), [("a", ""), ("a:prod", "prod"), ("a:v3", "v3"), (f"a@{DIGEST}", "@0f0f0f0f0f0f")]
)
def test_the_selector_is_short_for_people(text, selector):
    assert Reference.parse(text).selector == selector


def test_one_string_is_a_list_of_one():
    assert parse_many("a:v1") == parse_many(["a:v1"]) == parse_many((Reference.parse("a:v1"),))
    assert strings("a") == strings(["a"]) == ["a"]


def test_the_bad_one_of_many_is_named_by_its_place():
    with pytest.raises(InvalidReference) as caught:
        parse_many(["a:v1", "b c"])
    assert caught.value.field == "references[1]"
    with pytest.raises(InvalidReference, match="no reference"):
        parse_many([])
