"""Outputs that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.evals.recorded import Recorded
from llmartifacts.kinds.eval_dataset.value import EvalDataset

ITEMS = list(EvalDataset([{"id": "q1", "input": "a"}, {"id": "q2", "input": "b"}]))


def outputs(made: Recorded, repeat: int = 0) -> list[Any]:
    return [a.error or a.output for a in made.answer(None, ITEMS, 0, repeat)]


def test_a_file_gives_each_item_its_output_by_id_and_repeat(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    lines = [
        '{"id": "q2", "output": ["x", null]}',
        "",
        '{"id": "q1", "output": "a", "seconds": 2}',
        '{"id": "q1", "output": "b", "repeat": 1}',
        '{"id": "other", "error": "out of memory"}',
    ]
    file.write_text("\n".join(lines))
    made = Recorded.from_file(file)
    made.prepare(None, ITEMS)
    assert outputs(made) == ["a", ["x", None]]
    assert made.answer(None, ITEMS, 0, 0)[0].seconds == 2.0
    assert outputs(made, 1) == ["b", "no output is recorded for its repeat 1"]
    assert "sha256:" in made.told


def test_an_item_without_a_record_is_an_error_of_that_item() -> None:
    made = Recorded.from_mapping({"q1": "a"})
    assert outputs(made) == ["a", "no output is recorded for it"]


def test_a_recorded_error_is_the_items_error() -> None:
    made = Recorded.from_bytes(b'{"id": "q1", "error": "timeout"}\n{"id": "q2", "output": 1}', "o.jsonl")
    assert outputs(made) == ["timeout", 1]


def test_a_record_of_other_items_is_refused_before_anything_runs() -> None:
    with pytest.raises(NotFound) as caught:
        Recorded.from_mapping({"q11": "a"}).prepare(None, ITEMS)
    assert caught.value.near == ("q11",)
    assert "'q1'" in caught.value.hint()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "not JSON"),
        ("[]", "names no item"),
        ('{"output": 1}', "names no item"),
        ('{"id": 3, "output": 1}', "names no item"),
        ('{"id": "q1"}', "either an output or an error"),
        ('{"id": "q1", "output": 1, "error": "x"}', "either an output or an error"),
        ('{"id": "q1", "output": 1, "repeat": -1}', "repeat"),
        ('{"id": "q1", "output": 1, "repeat": true}', "repeat"),
        ('{"id": "q1", "output": 1, "seconds": "2"}', "seconds"),
        ('{"id": "q1", "output": NaN}', "NaN"),
        ('{"id": "q1", "output": 1, "ouput": 2}', "unknown field 'ouput'"),
        ('{"id": "q1", "output": 2}', "a second output"),
    ],
)
def test_a_line_that_is_no_output_is_named(line: str, word: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Recorded.from_bytes(b'{"id": "q1", "output": 1}\n' + line.encode(), "o.jsonl")
    assert word in caught.value.message
    assert caught.value.origin == "o.jsonl, line 2"
    assert caught.value.field == "outputs.recorded"


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(InvalidValue, match="no output"):
        Recorded.from_bytes(b"\n\n", "o.jsonl")


def test_outputs_from_python_must_be_json() -> None:
    with pytest.raises(InvalidValue):
        Recorded.from_mapping({"q1": float("nan")})
    with pytest.raises(InvalidValue):
        Recorded.from_mapping({"q1": object()})
