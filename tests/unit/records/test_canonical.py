import enum
import json
import math
from collections import OrderedDict
from types import MappingProxyType

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidManifest, TooLarge
from llmartifacts.records.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, check_json, parse_json, plain_json

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not MAX_INTEGER < abs(x) < 1e21)
SCALARS = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | FLOATS | TEXT
JSON = st.recursive(SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(TEXT, x, max_size=4), max_leaves=20)


@given(JSON)
def test_the_canonical_form_is_that_of_rfc8785_and_reads_back(value):
    data = canonical_bytes(value)
    assert data == rfc8785.dumps(value)
    assert parse_json(data) == value
    assert canonical_bytes(parse_json(data)) == data


@given(st.dictionaries(TEXT, SCALARS, max_size=6))
def test_the_order_in_which_keys_were_given_does_not_matter(value):
    assert canonical_bytes(value) == canonical_bytes(dict(reversed(value.items())))


@given(JSON)
def test_a_plain_copy_is_equal_and_private(value):
    copy = plain_json(value)
    assert canonical_bytes(copy) == canonical_bytes(value)
    if isinstance(value, dict | list) and value:
        assert copy is not value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1.0, "a": ["é"]}, '{"a":["é"],"b":1}'),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (-0.0, "0"),
        (333333333.33333329, "333333333.3333333"),
        ('\u20ac$\u000f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ({"\ufb33": 2, "\U0001f600": 1}, '{"\U0001f600":1,"\ufb33":2}'),
    ],
)
def test_the_examples_of_the_standard_hold(value, text):
    assert canonical_bytes(value).decode() == text


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (math.nan, "x"),
        (math.inf, "x"),
        (-math.inf, "x"),
        (2**53, "x"),
        (-(2**53), "x"),
        (10**400, "x"),
        (1e16, "x"),
        (2.0**53, "x"),
        (-1e20, "x"),
        ("\ud800", "x"),
        (b"bytes", "x"),
        ({1, 2}, "x"),
        (Ellipsis, "x"),
        (Colour.RED, "x"),
        (1j, "x"),
        ({"a": [0, {"b": math.nan}]}, "x.a[1].b"),
        ([[], [2**60]], "x[1][0]"),
        ({"k": Ellipsis}, "x.k"),
    ],
    ids=lambda v: ascii(v)[:30],
)
def test_what_has_no_one_json_form_is_refused_and_the_field_named(value, field):
    for check in (canonical_bytes, check_json, plain_json):
        with pytest.raises(InvalidManifest) as caught:
            check(value, field="x")
        assert caught.value.field == field


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"a", Colour.RED, "\udfff", ("a",)], ids=ascii)
def test_a_key_that_is_no_text_is_refused_and_never_turned_into_text(key):
    for check in (canonical_bytes, check_json, plain_json):
        with pytest.raises(InvalidManifest):
            check({key: 1, "1": 2}, field="x")


def test_mappings_and_sequences_of_other_types_become_plain():
    made = plain_json(MappingProxyType({"a": (1, OrderedDict(b=[]))}))
    assert made == {"a": [1, {"b": []}]}
    assert type(made["a"]) is list
    assert type(made["a"][1]) is dict


def nested(depth, leaf=1):
    value = leaf
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_has_a_limit_that_is_the_same_going_out_and_coming_in():
    deepest = nested(MAX_DEPTH)
    assert parse_json(canonical_bytes(deepest)) == plain_json(deepest) == deepest
    too_deep = nested(MAX_DEPTH + 1)
    for check in (canonical_bytes, check_json, plain_json):
        with pytest.raises(InvalidManifest, match="nested deeper"):
            check(too_deep)
    with pytest.raises(InvalidManifest, match="nested deeper"):
        parse_json(json.dumps(too_deep))


def test_a_value_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    table = {}
    table["x"] = table
    for value in (loop, table):
        for check in (canonical_bytes, check_json, plain_json):
            with pytest.raises(InvalidManifest, match="nested deeper"):
                check(value)


@pytest.mark.parametrize("opened", ["[", '{"a":', "[[", '[{"a":['])
def test_endless_nesting_is_refused_without_a_crash(opened):
    with pytest.raises(InvalidManifest):
        parse_json(opened * 200_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "{'a': 1}",
        "nul",
        '{"a":1}x',
        "NaN",
        "Infinity",
        "-Infinity",
        "[NaN]",
        "01",
        "1.",
        "+1",
        ".5",
        '"\n"',
        '"\\x"',
        '"\\ud800"',
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":1}}',
        "9007199254740993",
        "1e400",
        "-1e400",
        "9" * 5000,
        "1e16",
        "\ufeff{}",
        "/* c */ {}",
    ],
    ids=lambda t: ascii(t)[:30],
)
def test_what_two_parsers_could_read_differently_is_refused(text):
    with pytest.raises(InvalidManifest) as caught:
        parse_json(text, origin="manifest.json")
    assert caught.value.origin == "manifest.json"


def test_a_double_key_is_named():
    with pytest.raises(InvalidManifest, match="'temperature' appears twice") as caught:
        parse_json('{"temperature":1,"temperature":2}')
    assert caught.value.field == "temperature"


def test_bytes_that_are_no_utf8_are_refused_with_their_place():
    with pytest.raises(InvalidManifest, match="UTF-8 at byte 2"):
        parse_json(b'{"\xff":1}')


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(data):
    try:
        value = parse_json(data)
    except InvalidManifest:
        return
    canonical_bytes(value)


def test_size_limits_hold_going_out_and_coming_in():
    with pytest.raises(TooLarge) as caught:
        canonical_bytes({"a": "x" * 100}, field="config", max_bytes=50)
    assert caught.value.field == "config"
    with pytest.raises(TooLarge):
        parse_json(b'"' + b"x" * 100 + b'"', max_bytes=50)
    assert parse_json(b'"xx"', max_bytes=4) == "xx"
