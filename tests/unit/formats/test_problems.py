"""Everything that is wrong with a document is told at once, with field, line and near names."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmartifacts.errors import InvalidReference, InvalidValue
from llmartifacts.formats.problems import MAX_TOLD, Problem, check_model, raise_problems, try_model
from llmartifacts.formats.yaml import read_yaml_with_lines


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    command: str
    seconds: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _no_noise(self):
        if self.command == "noise":
            raise ValueError("Noise is no command")
        return self


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    mode: Literal["fast", "slow"] = "fast"
    steps: list[Step] = []
    named: dict[str, Step | None] = {}


def refusal(text: str) -> InvalidValue:
    document, lines = read_yaml_with_lines(text.encode(), origin="plan.yaml")
    with pytest.raises(InvalidValue) as caught:
        check_model(document, Plan, lines=lines, origin="plan.yaml", what="plan")
    return caught.value


def test_a_document_that_fits_is_the_model():
    assert check_model({"name": "a", "steps": [{"command": "x"}]}, Plan).steps[0].command == "x"
    assert try_model({"name": "a"}, Plan) == (Plan(name="a"), [])


@pytest.mark.parametrize(
    ("text", "field", "line", "message", "hint"),
    [
        ("name: a\nstep: []", "step", 2, "there is no field 'step'", "Did you mean steps?"),
        (
            "name: a\nsteps:\n- comand: x\n  command: y",
            "steps[0].comand",
            3,
            "no field 'comand'",
            "Did you mean command",
        ),
        (
            "name: a\nnamed:\n  b:\n    command: x\n    second: 1",
            "named.b.second",
            5,
            "no field",
            "Did you mean seconds",
        ),
        ("name: a\nqqq: 1", "qqq", 2, "there is no field", "Known here: mode, name, named, steps."),
        ("mode: fast", "name", 1, "name is missing", ""),
        ("name: a\nsteps:\n- seconds: 1", "steps[0].command", 3, "command is missing", ""),
        ("name: a\nmode: quick", "mode", 2, "input should be 'fast' or 'slow'", ""),
        (
            "name: a\nsteps:\n- command: x\n- command: x\n  seconds: 0",
            "steps[1].seconds",
            5,
            "greater than or equal to 1",
            "",
        ),
        ("name: a\nsteps:\n- command: noise", "steps[0]", 3, "noise is no command", ""),
        ("- a", "", 1, "a plan is an object with fields", ""),
    ],
)
def test_a_problem_is_told_with_its_field_and_line_and_how_to_mend_it(text, field, line, message, hint):
    error = refusal(text)
    assert error.field == field
    assert error.origin == f"plan.yaml, line {line}"
    assert message in error.message
    assert hint in error.hint()


def test_several_problems_are_told_in_the_order_of_their_lines():
    error = refusal("steps:\n- command: x\n  seconds: 0\nmode: quick\nnam: a\n")
    assert error.field == "name"
    assert error.message.startswith("name is missing; steps[0].seconds, line 3: ")
    assert "; mode, line 4: " in error.message
    assert "; nam, line 5: there is no field 'nam' (Did you mean name or named?)" in error.message


def test_only_so_many_problems_are_told():
    many = [Problem((f"f{i}",), "is wrong") for i in range(30)]
    with pytest.raises(InvalidValue) as caught:
        raise_problems(many)
    assert caught.value.message.count("is wrong") == MAX_TOLD
    assert caught.value.message.endswith(f"and {30 - MAX_TOLD} more")


def test_no_problem_is_no_error():
    raise_problems([])


def test_a_problem_is_made_of_an_error_whose_field_lies_below_a_place():
    error = InvalidReference("bad", field="options[2].name", next_step="Mend it.")
    assert Problem.of(error, ("scorers", 1)) == Problem(("scorers", 1, "options", 2, "name"), "bad", "Mend it.")


def test_what_was_written_never_acts_on_a_terminal():
    error = refusal('name: a\n"x\\e[2J": 1')
    assert str(error).isprintable()
    assert len(str(refusal("name: a\n" + "x" * 900 + ": 1"))) < 600
