"""Errors, told in one code and one sentence."""

from __future__ import annotations

import pytest

from llmartifacts.errors import (
    DeadlineExceeded,
    DigestMismatch,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    ResolutionError,
    Unreachable,
    Yanked,
)
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.notices import code_of, lasting, reason_of, stood_in
from llmartifacts.runtime.revisions import WentBack

GONE = NotFound("kb has no alias prod", what="alias", name="prod")
DAMAGED = DigestMismatch("other bytes", digest="sha256:0")


def full_disk() -> NotAllowed:
    error = NotAllowed("the disk is full")
    error.__cause__ = OSError(28, "No space left on device")
    return error


def of(**failures: LlmartifactsError) -> ResolutionError:
    return ResolutionError("cannot start", failures=failures)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("connection refused"), "registry-unreachable"),
        (DeadlineExceeded("silent"), "registry-unreachable"),
        (OSError("a driver's own"), "registry-unreachable"),
        (NotFound("no registry", what="registry", name="x"), "registry-unreachable"),
        (of(a=Unreachable("refused"), b=DeadlineExceeded("late")), "registry-unreachable"),
        (NotAllowed("the token expired"), "registry-refused"),
        (of(a=NotAllowed("no right"), b=NotAllowed("no right")), "registry-refused"),
        (of(a=full_disk()), "newer-set-refused"),
        (of(a=NotAllowed("no right"), b=DAMAGED), "newer-set-refused"),
        (of(a=Unreachable("refused"), b=DAMAGED), "newer-set-refused"),
        (of(a=Yanked("withdrawn")), "newer-set-refused"),
        (of(), "newer-set-refused"),
        (of(a=GONE, b=DAMAGED), "alias-missing"),
        (NotFound("no project", what="project", name="x"), "alias-missing"),
        (WentBack("older"), "revision-went-back"),
    ],
)
def test_each_error_has_a_code(error: BaseException, code: str):
    assert code_of(error) == code
    assert stood_in(error).code == code


def test_every_component_is_named_and_no_reason_is_endless():
    assert reason_of(of(a=GONE, b=DAMAGED)).endswith("a: kb has no alias prod; b: other bytes")
    assert len(reason_of(Unreachable("x" * 100_000))) <= 2000


def test_what_is_said_of_the_components_stays_and_what_is_said_of_the_way_goes():
    about = Notice("index-dimension", "384", "kb")
    assert lasting([about, Notice("registry-unreachable", "x"), Notice("yanked", "x", "kb")]) == (about,)
