import copy
import dataclasses
import inspect
import json
import pickle
import re
import traceback

import pytest

from llmartifacts import errors
from llmartifacts.errors import (
    AliasMoved,
    Damaged,
    InvalidValue,
    LlmartifactsError,
    MissingExtra,
    NotFound,
    ResolutionError,
    Yanked,
)

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, LlmartifactsError)]


@pytest.fixture(params=CLASSES, ids=lambda c: c.__name__)
def error(request):
    return request.param("it went wrong", field="files[3].path", origin="a.j2, line 12", next_step="Do this.")


def test_codes_are_distinct_and_plain_words():
    codes = [c.code for c in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", c) for c in codes)


def test_the_tree_in_the_documentation_is_the_tree():
    drawn = {}
    way = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            way[depth:] = [found[2]]
            drawn[found[2]] = way[depth - 1] if depth else None
    real = {c.__name__: (c.__base__.__name__ if c is not LlmartifactsError else None) for c in CLASSES}
    assert drawn == real


def test_an_error_says_where_and_what_to_do(error):
    assert str(error).startswith("it went wrong (field files[3].path, a.j2, line 12)")
    assert error.hint() == "Do this."
    assert error.details()["field"] == "files[3].path"
    json.dumps(error.details(), allow_nan=False)


def test_an_error_said_as_another_class_keeps_what_it_says_but_for_what_is_known_better(error):
    made = InvalidValue.of(error)
    assert type(made) is InvalidValue
    assert str(made) == "it went wrong (field files[3].path, a.j2, line 12)"
    assert made.hint() == "Do this."
    assert str(InvalidValue.of(error, field="model", origin="")) == "it went wrong (field model)"


def test_an_error_survives_a_trip_to_another_process(error):
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(made) is type(error)
        assert str(made) == str(error)
        assert made.details() == error.details()


def test_an_error_is_frozen_and_can_still_be_raised(error):
    with pytest.raises(dataclasses.FrozenInstanceError):
        error.message = "another"
    with pytest.raises(type(error)) as caught:
        try:
            raise error
        except LlmartifactsError as first:
            first.add_note("a note")
            raise first from ValueError("cause")
    assert caught.value is error
    assert isinstance(error.__cause__, ValueError)
    assert error.__notes__[-1] == "a note"


def test_a_traceback_shows_the_hint_below_the_message(error):
    shown = "".join(traceback.format_exception(error)).rstrip().split("\n")
    assert (shown[-1] == f"hint: {error.hint()}") is bool(error.hint())


def test_what_has_no_hint_has_no_note():
    assert not hasattr(NotFound("no"), "__notes__")


def test_replacing_a_field_keeps_the_others(error):
    made = dataclasses.replace(error, message="another")
    assert (made.message, made.field) == ("another", error.field)


def test_near_names_are_the_hint_of_what_is_not_found():
    assert NotFound("no", near=("support-agent", "support-kb")).hint() == "Did you mean support-agent or support-kb?"
    assert NotFound("no", near=("a",), next_step="Look.").hint() == "Look."
    assert NotFound("no").hint() == ""


def test_damage_names_the_versions_that_need_the_bytes():
    error = Damaged("one bit", digest="sha256:00", file="blobs/x", versions=("a:v1", "b:v2"))
    assert str(error).endswith("needed by a:v1, b:v2")
    assert error.hint()


def test_a_missing_extra_says_how_to_install_it():
    assert MissingExtra("no pyarrow", extra="parquet").hint() == "pip install 'llmartifacts[parquet]'"
    assert MissingExtra("x").hint() == ""


def test_a_failed_start_names_every_component_and_gathers_their_hints():
    failures = {"agent": NotFound("no prompt", near=("x",)), "kb": Yanked("withdrawn"), "old": Yanked("withdrawn too")}
    error = ResolutionError("the service cannot start", failures=failures)
    assert str(error).splitlines() == [
        "the service cannot start",
        "  agent: no prompt",
        "  kb: withdrawn",
        "  old: withdrawn too",
    ]
    assert error.hint().count("Choose another version") == 1
    assert "Did you mean x?" in error.hint()
    assert error.details()["failures"]["agent"]["code"] == "not_found"
    assert pickle.loads(pickle.dumps(error)).failures.keys() == failures.keys()


def test_details_are_plain_values():
    error = AliasMoved("moved", alias="a:prod", expected="v1", actual="v2")
    assert error.details() == {
        "field": "",
        "origin": "",
        "next_step": "",
        "alias": "a:prod",
        "expected": "v1",
        "actual": "v2",
    }


def test_an_error_without_a_place_is_its_message():
    assert str(InvalidValue("bad")) == "bad"
    assert repr(InvalidValue("bad", field="x")) == "InvalidValue('bad (field x)')"
