"""The records held against the audit, over each database."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.records.reference import Reference


@pytest.fixture
def used(short: Any) -> Any:
    """Something of every change that moves or marks a version."""
    for content in "123":
        short.log("a", content)
    short.log("a", "1", message="again")
    short.promote("a:v1", reason="first", ticket="CHG-1")
    short.promote("a:v2", reason="second")
    short.rollback("a:prod")
    short.backend.remove_alias("default", Reference.parse("a:prod"), reason="gone", actor="ann")
    short.backend.yank("default", Reference.parse("a:v3"), reason="leaks", actor="ann")
    return short


def test_records_that_nobody_altered_say_what_the_audit_says(used: Any) -> None:
    assert used.backend.verify().problems == ()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update version set author = 'eve' where number = 1", "a:v1: the author is not what the audit says"),
        ("update version set yank_reason = 'none' where number = 3", "a:v3: the reason is not what the audit says"),
        (
            "update version set yanked_at = 1 where number = 1",
            "there are 2 withdrawn versions, and the audit tells of 1",
        ),
        ("update promotion set reason = 'x' where revision = 2", "default@r2: the reason is not what the audit says"),
        ("update promotion set undoes = null", "default@r3: the undone promotion is not what the audit says"),
        ("update move set new = 3 where alias = 'prod' and number = 2", "move 2 of a:prod: the goal is not what"),
        ("delete from move where alias = 'prod' and number = 1", "move 1 of a:prod is missing, and the audit tells"),
        ("update audit set entry = '{}' where verb = 'yank'", "cannot be read"),
        ("update project set revision = 9", "the project default is at revision 9, and has not as many promotions"),
        ("update collection set latest = 2", "a:latest is v2, but its last move went to v1"),
        ("update move set undone_by = 1 where alias = 'prod' and number = 1", "move 1 of a:prod does not belong to"),
    ],
)
def test_what_was_altered_by_hand_is_named(used: Any, sql: str, told: str) -> None:
    with used.backend._parts.metadata.writing() as s:
        s.run(sql)
    problems = [str(p) for p in used.backend.verify().problems]
    assert any(told in problem for problem in problems), problems
