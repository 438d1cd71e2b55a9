"""What each scorer says where definitions usually leave it open: ties, None, empty answers, Unicode, wrong types."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts import plugins
from llmartifacts.errors import InvalidValue
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.scorers.isolated import ScorerFailed
from llmartifacts.evals.scorers.numeric import read_number
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.evals.scorers.similarity import cosine
from llmartifacts.evals.scorers.squad import f1
from llmartifacts.testing.scorers import item

NFD = unicodedata.normalize("NFD", "Größe café")
NFC = unicodedata.normalize("NFC", NFD)


def score(kind, output, of=None, took=0.0, baseline=None, **options):
    scorer = plugins.load("scorers", kind)(**options)
    try:
        return scorer.score(of or item(expected="Paris"), Answer(output, took), baseline)
    finally:
        scorer.close()


# --- where things are


def test_a_field_is_a_path_into_the_output():
    assert inside({"a": [{"b": 1}]}, "a.0.b") == 1
    assert inside('\n{"a": "x"} ', "a") == "x"
    for output in ("no json", '{"a": 1, "a": 2}', None, 3, [], {"b": 1}, "[" * 100):
        assert inside(output, "a") is None
    assert inside([1], "1") is None
    assert inside([1], "-1") is None


def test_a_column_wins_over_a_field_of_the_item():
    of = item(expected="x", **{"metadata": {"area": "a"}, "input": "column", "a.b": 3})
    assert wanted(of, "a.b") == 3
    assert wanted(of, "metadata.area") == "a"
    assert wanted(of, "nowhere.at.all") is None


# --- equals and contains


@pytest.mark.parametrize(
    ("output", "expected", "options", "found"),
    [
        ("Paris", "Paris", {}, 1),
        (" Paris\n", "Paris", {}, 1),
        (" Paris", "Paris", {"trim": False}, 0),
        ("paris", "PARIS", {}, 0),
        ("straße", "STRASSE", {"ignore_case": True}, 1),
        (NFD, NFC, {}, 1),
        (NFD, NFC, {"nfc": False}, 0),
        (NFD.upper(), NFC, {"ignore_case": True}, 1),
        ("a \t\n b", "a b", {}, 0),
        ("a \t\n b", "a b", {"whitespace": True}, 1),
        (" a  b", "a b", {"whitespace": True, "trim": False}, 0),
        ("", "", {}, 1),
        (None, "", {}, 1),
        (None, "x", {}, 0),
        ("b", ["a", "b"], {}, 1),
        ("c", ["a", "b"], {}, 0),
        (["a", "b"], ["a", "b"], {}, 1),
        (["b", "a"], ["a", "b"], {}, 0),
        (1, 1.0, {}, 1),
        (1, True, {}, 0),
        (True, True, {}, 1),
        ({"a": [1], "b": None}, {"b": None, "a": [1.0]}, {}, 1),
        ({"a": [1]}, {"a": [True]}, {}, 0),
        ({"a": 1}, {"a": 1, "b": 2}, {}, 0),
        (None, {"a": 1}, {}, 0),
        ("anything", None, {}, None),
        ('{"label": "x"}', "x", {"field": "label"}, 1),
        ("x", "x", {"field": "label"}, 0),
    ],
)
def test_equals(output, expected, options, found):
    assert score("equals", output, item(expected=expected), **options) == found


@pytest.mark.parametrize(("output", "expected"), [("4", 4), (4, "4"), ("true", True), ({"a": 1}, "a"), (["a"], "a")])
def test_a_text_against_another_type_is_an_error_and_not_a_zero(output, expected):
    with pytest.raises(TypeError, match="expected_output is"):
        score("equals", output, item(expected=expected))


@pytest.mark.parametrize(
    ("output", "expected", "options", "found"),
    [
        ("In Paris.", "Paris", {}, 1),
        ("In Parisian", "Paris", {}, 1),
        ("In paris.", "Paris", {}, 0),
        ("In paris.", "Paris", {"ignore_case": True}, 1),
        ("a and b", ["a", "b"], {}, 1),
        ("a", ["a", "b"], {}, 0),
        ("a", ["a", "b"], {"require": "any"}, 1),
        (NFD, "Größe", {}, 1),
        ("x", None, {}, None),
        ("x", [], {}, None),
        ("", "Paris", {}, 0),
        (None, "Paris", {}, 0),
        ("say me b", "ignored", {"any_of": ["b", "c"], "all_of": ["say", "me"]}, 1),
        ("say b", "ignored", {"any_of": ["b", "c"], "all_of": ["say", "me"]}, 0),
        ("say me", "ignored", {"any_of": ["b", "c"], "all_of": ["say", "me"]}, 0),
        ("b", None, {"any_of": ["b"]}, 1),
    ],
)
def test_contains(output, expected, options, found):
    assert score("contains", output, item(expected=expected), **options) == found


@pytest.mark.parametrize(("output", "expected"), [("x", " "), ("x", ["a", ""]), ("x", 3), (3, "x"), (["x"], "x")])
def test_contains_needs_texts(output, expected):
    with pytest.raises((TypeError, ValueError)):
        score("contains", output, item(expected=expected))


# --- regex and schema


@pytest.mark.parametrize(
    ("output", "options", "found"),
    [
        ("cites [a.b]", {"pattern": r"\[\w+\.\w\]"}, 1),
        ("xay", {"pattern": "a", "match": "fullmatch"}, 0),
        ("a\n", {"pattern": "a", "match": "fullmatch"}, 0),
        ("A", {"pattern": "a", "ignore_case": True}, 1),
        ("x\na", {"pattern": "^a$"}, 0),
        ("x\na", {"pattern": "^a$", "multiline": True}, 1),
        ("a\nb", {"pattern": "a.b", "dotall": True}, 1),
        (NFD, {"pattern": "Größe"}, 0),
        (NFD, {"pattern": "Größe", "nfc": True}, 1),
        (None, {"pattern": "^$"}, 1),
        ({"a": "x"}, {"pattern": "x", "field": "a"}, 1),
    ],
)
def test_regex(output, options, found):
    assert score("regex", output, **options) == found


def test_a_pattern_that_never_ends_is_an_error_and_the_next_item_is_scored():
    scorer = plugins.load("scorers", "regex")(pattern="(a+)+$", seconds=0.3)
    with pytest.raises(ScorerFailed, match=r"timeout: it took longer than 0\.3 s"):
        scorer.score(item(), Answer("a" * 40 + "b"))
    assert scorer.score(item(), Answer("aaa")) == 1
    scorer.close()


@pytest.mark.parametrize(
    ("output", "schema", "found"),
    [
        ('{"n": 1}', {"properties": {"n": {"type": "integer"}}, "required": ["n"]}, 1),
        ({"n": "1"}, {"properties": {"n": {"type": "integer"}}}, 0),
        ('```json\n{"n": 1}\n```', {"type": "object"}, 0),
        ('Here: {"n": 1}', {"type": "object"}, 0),
        ('{"n": 1, "n": 2}', {"type": "object"}, 0),
        ('{"n": NaN}', {"type": "object"}, 0),
        ("", {"type": "string"}, 0),
        ('"text"', {"type": "string"}, 1),
        (None, {"type": "null"}, 1),
        (None, {"type": "object"}, 0),
        ("[1, 2]", {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}, 0),
        ("3", {"$ref": "#/$defs/n", "$defs": {"n": {"minimum": 3}}}, 1),
    ],
)
def test_json_schema(output, schema, found):
    assert score("json-schema", output, schema=schema) == found


@pytest.mark.parametrize("place", ["https://example.com/schema.json", "file:///etc/passwd", "#/$defs/none"])
def test_a_schema_reaches_for_nothing_outside_itself(place):
    with pytest.raises(ScorerFailed, match="exception"):
        score("json-schema", "3", schema={"$ref": place})


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"$schema": "https://example.com/mine"}, "schema.$schema"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "schema.$schema"),
        ({"pattern": "(" * 3000 + ")" * 3000}, "schema"),
        ({"pattern": "("}, "schema.pattern"),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused_with_its_field(schema, field):
    with pytest.raises(InvalidValue) as caught:
        plugins.load("scorers", "json-schema")(schema=schema)
    assert caught.value.field == field


def test_a_schema_whose_pattern_never_ends_is_an_error():
    with pytest.raises(ScorerFailed, match="timeout"):
        score("json-schema", json.dumps("a" * 40 + "b"), schema={"pattern": "^(a+)+$"}, seconds=0.3)


# --- numbers


@pytest.mark.parametrize(
    ("text", "extract", "number"),
    [
        ("7", "whole", 7),
        (" -1,234.50\n", "whole", -1234.5),
        ("$1,000", "whole", 1000),
        ("50 %", "whole", 50),
        ("−3", "whole", -3),
        ("1e3", "whole", 1000),
        (".5", "whole", 0.5),
        ("7 eggs", "whole", None),
        ("1,23", "whole", None),
        ("٣", "whole", None),
        ("nan", "whole", None),
        ("", "whole", None),
        ("3 + 4 = 7.", "last", 7),
        ("it costs $1,234.50, all in", "last", 1234.5),
        ("from 10-20", "last", 20),
        ("version v2", "last", None),
        ("1/2", "last", 2),
        ("no number", "last", None),
        ("3 #### 5 or so #### 7 and 8", "gsm8k", 7),
        ("3 #### 1,300", "gsm8k", 1300),
        ("3 #### ", "gsm8k", None),
        ("3 then 4", "gsm8k", 4),
    ],
)
def test_a_number_is_read_where_it_is_declared_to_be(text, extract, number):
    assert read_number(text, extract) == number


@given(st.floats(-1e15, 1e15, allow_nan=False))
def test_every_number_that_python_writes_is_read(number):
    assert read_number(repr(number), "whole") == number
    assert read_number(f"it is {number!r}", "last") == number


@pytest.mark.parametrize(
    ("output", "expected", "options", "found"),
    [
        ("7.5", 7, {"absolute": 0.5}, 1),
        ("7.51", 7, {"absolute": 0.5}, 0),
        ("109", 100, {"relative": 0.1}, 1),
        ("110", 100, {"relative": 0.1}, 1),
        ("111", 100, {"relative": 0.1}, 0),
        ("-110", -100, {"relative": 0.1}, 1),
        ("0.1", 0, {"relative": 1}, 0),
        (7, "7", {}, 1),
        (None, 7, {}, 0),
        ("", 7, {}, 0),
        ("seven", 7, {}, 0),
        ("1e999", 7, {"absolute": 1}, 0),
        ("7", None, {}, None),
    ],
)
def test_numeric(output, expected, options, found):
    assert score("numeric", output, item(expected=expected), **options) == found


@pytest.mark.parametrize(("output", "expected"), [(True, 7), ([7], 7), ({"a": 7}, 7), ("7", "seven"), ("7", True)])
def test_what_is_no_number_and_no_text_is_an_error(output, expected):
    with pytest.raises((TypeError, ValueError)):
        score("numeric", output, item(expected=expected))


def test_every_answer_of_gsm8k_is_read_and_is_right_by_itself(shared_data):
    scorer = plugins.load("scorers", "numeric")(extract="gsm8k", expected="answer")
    lines = [json.loads(line) for line in (shared_data / "evals" / "gsm8k" / "test.jsonl").read_bytes().splitlines()]
    assert len(lines) == 1319
    for line in lines:
        of = item(answer=line["answer"])
        goal = float(line["answer"].rpartition("####")[2].replace(",", ""))
        assert read_number(line["answer"], "gsm8k") == goal
        assert scorer.score(of, Answer(f"So the answer is {goal:,.0f}.")) == 1
        assert scorer.score(of, Answer(f"So the answer is {goal + 1:,.0f}.")) == 0


# --- words and meaning


@pytest.mark.parametrize(
    ("output", "expected", "f", "exact"),
    [
        ("The Cat!", "cat", 1, 1),
        ("a cat sat", "the cat", 2 / 3, 0),
        ("cat cat", "cat", 2 / 3, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),
        ("cat", "", 0, 0),
        (None, "cat", 0, 0),
        ("U.S.", "US", 1, 1),
        ("rome", ["paris", "Rome"], 1, 1),
        ("rome", {"text": ["Rome"], "answer_start": [3]}, 1, 1),
        ("rome", {"text": [], "answer_start": []}, None, None),
        ("rome", None, None, None),
        ("anthem", "them", 0, 0),
    ],
)
def test_squad(output, expected, f, exact):
    assert score("squad_f1", output, item(expected=expected)) == (f if f is None else pytest.approx(f))
    assert score("squad_em", output, item(expected=expected)) == exact


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_overlap_of_words_is_symmetric_and_whole_with_itself(a, b):
    assert f1(a, b) == f1(b, a)
    assert 0 <= f1(a, b) <= 1
    assert f1(a, a) == 1


HASHING = "llmartifacts.integrations.hashing:HashingEmbeddings"


def test_similarity():
    def similar(output, expected, **options):
        return score("similarity", output, item(expected=expected), embeddings=HASHING, **options)

    assert similar("copy a file", "copy a file") == pytest.approx(1)
    near, far = similar("copy a file", "copy a folder"), similar("copy a file", "sort numbers")
    assert 1 > near > far >= 0
    assert similar("copy a file", ["sort numbers", "copy a folder"]) == near
    assert similar("", "copy") == 0
    assert similar(" ", "") == 1
    assert similar(None, ["copy", ""]) == 1
    assert similar("copy", ["", "copy"]) == pytest.approx(1)
    assert similar("copy", None) is None
    with pytest.raises(TypeError):
        similar(3, "copy")


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ([1, 0], [0, 1], 0),
        ([1, 1], [-1, -1], -1),
        ([0, 0], [1, 1], 0),
        ([1e-200, 0], [1e-200, 0], 1),
        ([1e200, 1e200], [1e200, 1e200], 1),
        ([3, 4], [4, 3], 24 / 25),
    ],
)
def test_the_cosine_of_two_vectors(a, b, found):
    assert cosine(a, b) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 2]), ([float("nan")], [1]), ([1], [float("inf")])])
def test_what_are_no_two_vectors_is_an_error(a, b):
    with pytest.raises(ValueError, match="finite vectors"):
        cosine(a, b)


# --- rankings and time


@pytest.mark.parametrize(
    ("labels", "options", "found"),
    [
        (["a", "z"], {}, 0.5),
        ({"a": 2, "z": 0}, {}, 1),
        ({"a": 0}, {}, None),
        ([], {}, None),
        (None, {}, None),
        (["a#1", "a#2"], {"whole": True}, 1),
        ({"a#1": 1, "z": 1}, {"whole": True}, 0.5),
    ],
)
def test_labels_are_ids_or_grades(labels, options, found):
    assert score("recall", ["a#3", "a", None, "b"], item(expected_ids=labels), k=4, **options) == found


def test_labels_are_looked_for_in_one_place_after_the_other():
    output = ["a"]
    assert score("hit", output, item(expected=["b"], expected_ids=["a"]), k=1) == 1
    assert score("hit", output, item(expected=["a"]), k=1) == 1
    assert score("hit", output, item(expected=["b"], expected_ids=None), k=1) is None
    assert score("hit", output, item(expected=["b"], gold="a"), k=1, labels="gold") == 1
    assert score("hit", output, item(metadata={"gold": ["a"]}), k=1, labels="metadata.gold") == 1
    assert score("hit", output, item(), k=1, labels="gold") is None


def test_a_ranking_is_ids_or_objects_with_ids_and_may_lie_inside_the_output():
    of = item(expected_ids=["b"])
    assert score("mrr", [{"id": "a", "text": "…"}, {"id": "b"}], of) == 0.5
    assert score("mrr", {"text": "…", "passages": [{"id": "b"}]}, of, field="passages") == 1
    assert score("mrr", {"text": "…"}, of, field="passages") == 0
    assert score("mrr", ["a#1", "b#2"], of, whole=True) == 0.5
    assert score("mrr", None, of) == 0


@pytest.mark.parametrize(
    ("output", "labels"),
    [
        ("a", ["a"]),
        ([1], ["a"]),
        ([{"text": "a"}], ["a"]),
        ({"a": 1}, ["a"]),
        (["a"], "a"),
        (["a"], [1]),
        (["a"], {"a": "1"}),
    ],
)
def test_what_is_no_ranking_or_no_label_is_an_error(output, labels):
    with pytest.raises(TypeError):
        score("recall", output, item(expected_ids=labels), k=1)


def test_an_overlap_needs_the_answer_of_the_baseline():
    assert score("overlap", ["a#1", "b"], baseline=Answer(["a#2", "c"]), k=2, whole=True) == 0.5
    assert score("overlap", ["a"], baseline=None, k=2) is None
    assert score("overlap", ["a"], baseline=Answer(error="crashed"), k=2) is None


def test_a_slow_answer_counts_as_the_cap():
    assert score("latency", None, took=0.5) == 0.5
    assert score("latency", None, took=50) == 10
    assert score("latency", None, took=50, cap=60) == 50
    for bad in (float("nan"), float("inf"), -1):
        with pytest.raises(ValueError, match="no time"):
            score("latency", None, took=bad)
