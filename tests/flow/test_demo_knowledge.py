"""The demo's knowledge base and its questions: the same in every process, and they belong together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from llmartifacts.cli.demo.knowledge import CORE, PASSAGE_CHARS, SYSTEM, read_passages

QUESTIONS = Path(__file__).resolve().parents[2] / "eval_suites" / "stdlib_questions.jsonl"


def questions() -> list[dict[str, object]]:
    return [json.loads(line) for line in QUESTIONS.read_text().splitlines()]


def test_there_are_thousands_of_passages_each_with_an_id_of_its_own() -> None:
    passages = read_passages([*CORE, *SYSTEM])

    assert len(passages) > 4000
    assert len({p.id for p in passages}) == len(passages)
    assert all(p.text.strip() and p.id for p in passages)
    assert sorted(p.id for p in passages) == [p.id for p in passages]
    assert max(len(p.text) for p in passages) < 2 * PASSAGE_CHARS


def test_the_second_state_has_what_the_first_has_and_much_more() -> None:
    first, second = read_passages(CORE), read_passages([*CORE, *SYSTEM])

    # A method may move to the base class that the second state shows: pdb.Pdb.emptyline is cmd.Cmd.emptyline there.
    assert len({p.id for p in first} - {p.id for p in second}) < 20
    assert len(second) > 1.5 * len(first)


def test_two_processes_read_the_same_passages() -> None:
    code = (
        "import hashlib; from llmartifacts.cli.demo.knowledge import *;"
        "print(hashlib.sha256(repr(read_passages([*CORE, *SYSTEM])).encode()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }

    assert len(said) == 1


def test_passages_are_named_as_a_programmer_would_write_them() -> None:
    by_id = {p.id: p for p in read_passages([*CORE, *SYSTEM])}

    assert by_id["shutil.copytree"].text.startswith("shutil.copytree(src, dst,")
    assert by_id["str.split"].sort == "method"
    assert by_id["bisect.bisect_right"].module == "bisect"  # not `bisect.bisect`, its other name
    assert by_id["pathlib.Path.read_text"].sort == "method"
    assert by_id["json"].sort == "module"
    assert "0x" not in by_id["json.dumps"].text


def test_a_module_that_this_python_lacks_is_left_out() -> None:
    assert read_passages(["no_such_module_here"]) == []
    assert {p.module for p in read_passages(["no_such_module_here", "bisect"])} == {"bisect"}


def test_the_questions_are_many_and_distinct_and_answered_by_passages_that_exist() -> None:
    known = {p.id for p in read_passages([*CORE, *SYSTEM])}
    asked = questions()

    assert len(asked) >= 80
    assert len({q["id"] for q in asked}) == len({q["input"] for q in asked}) == len(asked)
    missing = {q["id"]: sorted(set(q["expected_ids"]) - known) for q in asked if not set(q["expected_ids"]) <= known}
    assert not missing
    assert all(q["expected_ids"] and q["metadata"]["area"] for q in asked)
