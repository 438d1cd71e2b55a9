import dataclasses
import inspect
import json

import pytest

from llmartifacts import errors, wire
from llmartifacts.errors import (
    Damaged,
    GateRefused,
    LlmartifactsError,
    NotFound,
    ResolutionError,
    TooLarge,
    Unreachable,
)

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, LlmartifactsError)]


def test_every_error_has_its_row_and_every_row_its_error():
    assert {c.code for c in CLASSES} == set(wire.TABLE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_exit_codes_and_statuses_are_those_of_the_design(cls):
    error = cls("x")
    assert wire.exit_code(error) in {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 70}
    assert 400 <= wire.http_status(error) <= 599


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Refused", 1),
        ("Incompatible", 1),
        ("Yanked", 1),
        ("InvalidReference", 2),
        ("WrongKind", 2),
        ("NotFound", 3),
        ("Conflict", 4),
        ("AliasMoved", 4),
        ("Busy", 4),
        ("DigestMismatch", 5),
        ("BlobMissing", 5),
        ("UnsafeContent", 5),
        ("Unreachable", 6),
        ("DeadlineExceeded", 6),
        ("NotAllowed", 9),
        ("NewerFormat", 10),
        ("LlmartifactsError", 70),
    ],
)
def test_the_exit_code_says_what_happened(name, code):
    assert wire.exit_code(getattr(errors, name)("x")) == code


@pytest.mark.parametrize(
    ("verdict", "code"), [("FAIL", 1), ("INCONCLUSIVE", 7), ("ERROR", 8), ("TAMPERED", 5), ("odd", 1)]
)
def test_a_refusing_gate_exits_with_its_verdict(verdict, code):
    assert wire.exit_code(GateRefused("no", verdict=verdict)) == code


def test_a_failed_start_exits_with_the_gravest_of_its_reasons():
    assert wire.exit_code(ResolutionError("x")) == 6
    assert wire.exit_code(ResolutionError("x", failures={"a": Unreachable("x"), "b": NotFound("x")})) == 3
    assert wire.exit_code(ResolutionError("x", failures={"a": NotFound("x"), "b": Damaged("x")})) == 5
    inner = GateRefused("x", verdict="INCONCLUSIVE")
    assert wire.exit_code(ResolutionError("x", failures={"a": inner})) == 7


def test_a_plug_ins_own_error_is_a_bug_until_it_is_in_the_table():
    class Odd(LlmartifactsError):
        code = "odd"

    assert (wire.exit_code(Odd("x")), wire.http_status(Odd("x"))) == (70, 500)


def test_a_body_has_the_form_of_the_design_and_no_empty_fields():
    body = wire.error_body(NotFound("no collection 'a'", what="collection", name="a", near=("b",)))
    assert body == {
        "errors": [
            {
                "code": "not_found",
                "message": "no collection 'a'",
                "detail": {"what": "collection", "name": "a", "near": ["b"], "hint": "Did you mean b?"},
            }
        ]
    }


def test_a_body_of_many_failures_is_json():
    failures = {"kb": Damaged("x", versions=("a:v1",)), "agent": TooLarge("x", field="y")}
    body = json.loads(json.dumps(wire.error_body(ResolutionError("x", failures=failures))))
    assert body["errors"][0]["detail"]["failures"]["kb"]["versions"] == ["a:v1"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_has_a_body(cls):
    body = wire.error_body(cls("x", field="f", next_step="Do this."))
    assert json.loads(json.dumps(body))["errors"][0]["detail"] == {"field": "f", "hint": "Do this."} | (
        {"verdict": "FAIL"} if cls is GateRefused else {}
    )


def told(error):
    return type(error), str(error), error.details(), error.hint()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("given", [{}, {"field": "a[3].b", "origin": "x.yaml", "next_step": "Do this."}])
def test_every_error_comes_back_as_it_was_sent(cls, given):
    values = dict(given)
    for field in dataclasses.fields(cls):
        if field.name not in ("message", "field", "origin", "next_step"):
            values[field.name] = {
                "str": "text",
                "int | None": 7,
                "tuple[str, ...]": ("a", "b"),
                "Mapping[str, LlmartifactsError]": {"kb": NotFound("gone", near=("x",))},
            }[field.type]
    error = cls("what happened", **values)
    body = json.loads(json.dumps(wire.error_body(error)))
    assert told(wire.error_from_body(wire.http_status(error), body)) == told(error)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "InvalidInput"),
        (401, "NotAllowed"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "TooLarge"),
        (418, "InvalidInput"),
        (429, "Busy"),
        (500, "LlmartifactsError"),
        (502, "Unreachable"),
        (504, "DeadlineExceeded"),
        (200, "LlmartifactsError"),
    ],
)
def test_a_code_of_a_newer_release_becomes_the_class_nearest_to_the_status(status, name):
    body = {
        "errors": [{"code": "brand_new", "message": "it is so", "detail": {"field": "x", "other": [1], "hint": "So."}}]
    }
    error = wire.error_from_body(status, body)
    assert (type(error).__name__, error.message, error.field, error.hint()) == (name, "it is so", "x", "So.")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        3,
        {},
        {"errors": None},
        {"errors": []},
        {"errors": [None]},
        {"errors": [{}]},
        {"errors": [{"code": [], "message": 5}]},
        {"errors": [{"code": "not_found", "message": ""}]},
        {"errors": [{"code": "not_found", "message": "x", "detail": 5}]},
        {"errors": [{"code": "not_found", "message": "x", "detail": {"near": "text", "name": 5, "what": None}}]},
        {"errors": [{"code": "resolution_failed", "message": "x", "detail": {"failures": {"a": 5, "b": {"code": 1}}}}]},
    ],
    ids=repr,
)
def test_whatever_a_body_is_it_becomes_an_error(body):
    error = wire.error_from_body(404, body)
    assert isinstance(error, LlmartifactsError)
    assert error.message
    assert json.dumps(wire.error_body(error))


def test_hostile_errors_are_cut_and_cannot_act_on_a_terminal():
    inner: dict = {"code": "not_found", "message": "x"}
    for _ in range(50):
        inner = {"code": "resolution_failed", "message": "x", "failures": {"a": inner}}
    detail = {
        "near": ["n"] * 5_000,
        "field": "\x1b[31m" + "f" * 100_000,
        "failures": {"a": inner},
        "hint": "h" * 100_000,
    }
    for code in ("not_found", "resolution_failed"):
        body = {"errors": [{"code": code, "message": "m\x9b" + "m" * 100_000, "detail": detail}] * 50}
        error = wire.error_from_body(404, body)
        assert len(json.dumps(wire.error_body(error))) < 200_000
        assert not {"\x1b", "\x9b"} & set(str(error) + error.hint())
