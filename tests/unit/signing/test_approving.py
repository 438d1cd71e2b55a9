"""What a registry hands over to be signed: only what was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmartifacts.errors import Damaged
from llmartifacts.records.approval import Binding, Serving, Subject
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.signing.approving import check_asked

ONE, TWO, OTHER = digest_of(b"1"), digest_of(b"2"), digest_of(b"3")
AGENT, KB = Subject("agent", 2, ONE), Subject("kb", 5, TWO)
BOUND = Binding("default", "prod", (AGENT, KB), {"agent": Serving(OTHER, 4), "kb": Serving()})
ASKED = [Reference.parse("kb:staging"), Reference.parse(f"agent:v2@{ONE}")]


def test_what_was_asked_for_is_handed_on() -> None:
    assert check_asked([BOUND], "default", ASKED, ["prod"]) == [BOUND]
    both = [BOUND, replace(BOUND, alias="eu")]
    assert check_asked(both, "default", ASKED, ["prod", "eu", "prod"]) == both


@pytest.mark.parametrize(
    "other",
    [
        [],
        [BOUND, BOUND],
        [replace(BOUND, project="acme")],
        [replace(BOUND, alias="staging")],
        [replace(BOUND, subjects=(AGENT,))],
        [replace(BOUND, subjects=(AGENT, KB, Subject("more", 1, OTHER)))],
        [replace(BOUND, subjects=(replace(AGENT, number=3), KB))],
        [replace(BOUND, subjects=(replace(AGENT, digest=OTHER), KB))],
        [replace(BOUND, serving={"agent": Serving()})],
    ],
    ids=["nothing", "twice", "project", "alias", "fewer", "more", "number", "digest", "serving"],
)
def test_a_registry_that_hands_over_anything_else_gets_no_signature(other: list[Binding]) -> None:
    with pytest.raises(Damaged, match="something else to be signed than was asked for"):
        check_asked(other, "default", ASKED, ["prod"])
