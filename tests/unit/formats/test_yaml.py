import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, LlmartifactsError, TooLarge
from llmartifacts.formats.yaml import MAX_NODES, line_of, located, parse_yaml, place_text, read_yaml_with_lines


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 1.5, true, null]", {"a": 1, "b": ["x", 1.5, True, None]}),
        ("\ufeffa: größe", {"a": "größe"}),
        ("prompt: support-agent:v2", {"prompt": "support-agent:v2"}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ],
)
def test_yaml_becomes_plain_json(text, value):
    assert parse_yaml(text.encode()) == value


def test_yaml_acts_on_nothing_and_grows_into_nothing():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    for text, error in (
        (bomb, InvalidValue),
        ("a: !!python/object/apply:os.system [echo]", InvalidValue),
        ("a: !Template x", InvalidValue),
        ("[" * 70 + "]" * 70, TooLarge),
        ("[" * 100_000, LlmartifactsError),
        ("- x\n" * (MAX_NODES + 1), TooLarge),
        ("x" * 300_000, TooLarge),
        ("a: 1\na: 2", InvalidValue),
        ("a: {b: 1, b: 2}", InvalidValue),
        ("? [a]\n: b", InvalidValue),
        ("1: a", InvalidValue),
        ("on: a", InvalidValue),
        ("a: 2024-01-01", InvalidValue),
        ("a: 2024-99-99", InvalidValue),
        ("a: .nan", InvalidValue),
        ("a: 99999999999999999999", InvalidValue),
        ("a: 'x", InvalidValue),
        ("\x00", InvalidValue),
        ("{a: b", InvalidValue),
        ("<<: {a: 1}", InvalidValue),
        ("--- a\n--- b", InvalidValue),
    ):
        with pytest.raises(error):
            parse_yaml(text.encode(), origin="x.yaml")
    with pytest.raises(InvalidValue, match="UTF-8"):
        parse_yaml(b"\xff\xfe")


def test_a_yaml_error_names_the_line():
    with pytest.raises(InvalidValue) as caught:
        parse_yaml(b"a: 1\nb: 2\na: 3\n", origin="bundle.yaml")
    assert caught.value.origin == "bundle.yaml, line 3"


def test_every_value_has_the_line_of_its_key_or_of_itself():
    text = (
        b"# note\nname: a\nscorers:\n  - recall@5\n  - type: equals\n    options: {a: 1,\n      b: [x,\n          y]}\n"
    )
    value, lines = read_yaml_with_lines(text)
    assert value["scorers"][1]["options"] == {"a": 1, "b": ["x", "y"]}
    assert lines["name",] == 2
    assert lines["scorers", 0] == 4
    assert lines["scorers", 1, "type"] == 5
    assert lines["scorers", 1, "options"] == 6
    assert lines["scorers", 1, "options", "b", 1] == 8
    assert set(lines) == set(places(value))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text("aé: #-\n'\"{", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.: ", max_size=4), inner, max_size=4),
    max_leaves=15,
)


@given(plain, st.booleans())
def test_whatever_yaml_writes_is_read_again_and_every_value_has_a_line(value, flow):
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=flow)
    read, lines = read_yaml_with_lines(text.encode())
    assert read == value
    assert set(lines) == set(places(value))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    for place, line in lines.items():
        if place and isinstance(place[-1], str) and place[-1].isalpha():
            assert place[-1] in text.splitlines()[line - 1]


def places(value, place=()):
    yield place
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*place, key))


def test_what_has_no_line_of_its_own_has_that_of_what_is_around_it():
    lines = read_yaml_with_lines(b"a:\n  b: 1\n")[1]
    assert line_of(lines, ("a", "b", "c", 3)) == 2
    assert line_of(lines, ("nowhere",)) == 1
    assert line_of({}, ("a",)) is None
    assert read_yaml_with_lines(b"") == (None, {})


def test_a_place_is_told_as_code_writes_it():
    assert place_text(("scorers", 2, "type")) == "scorers[2].type"
    assert place_text(()) == ""
    assert located("suite.yaml", 3) == "suite.yaml, line 3"
    assert located("", 3) == "line 3"
    assert located("suite.yaml", None) == "suite.yaml"


def test_a_value_that_is_no_json_is_told_with_its_line():
    with pytest.raises(InvalidValue) as caught:
        parse_yaml(b"a: 1\nb:\n  when: 2024-01-01\n", origin="x.yaml")
    assert caught.value.origin == "x.yaml, line 3"
    assert caught.value.field == "b.when"
