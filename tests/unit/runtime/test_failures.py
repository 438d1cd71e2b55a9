from __future__ import annotations

import pytest

from llmartifacts import errors
from llmartifacts.errors import ResolutionError
from llmartifacts.runtime.failures import Failures, is_final, typed
from llmartifacts.runtime.spec import parse_spec

SPEC = parse_spec({"agent": "agent:prod", "kb": "kb:prod"})


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (errors.NotFound("no alias", what="alias"), True),
        (errors.NotFound("no collection", what="collection"), True),
        (errors.NotFound("no project", what="project"), True),
        (errors.WrongKind("a prompt"), True),
        (errors.Yanked("withdrawn"), True),
        (errors.InvalidReference("malformed"), True),
        (errors.NotFound("no registry", what="registry"), False),
        (errors.Unreachable("down"), False),
        (errors.DeadlineExceeded("slow"), False),
        (errors.Busy("locked"), False),
        (errors.DigestMismatch("altered"), False),
        (errors.BlobMissing("gone"), False),
        (errors.Incompatible("misfit"), False),
        (errors.InvalidValue("refused by its probes"), False),
        (errors.NewerFormat("newer"), False),
        (errors.NotAllowed("no right"), False),
        (OSError("disk"), False),
    ],
)
def test_an_answer_of_no_is_final_and_a_registry_that_cannot_answer_is_not(error: Exception, final: bool):
    assert is_final(error) is final
    inside = ResolutionError("cannot start", failures={"a": errors.Unreachable("x"), "b": typed(error)})
    assert is_final(inside) is final


def test_the_first_error_of_a_component_is_kept_and_all_come_in_the_spec_s_order():
    failures = Failures(SPEC)
    failures.refuse()
    failures.add("kb", errors.BlobMissing("first"))
    failures.add("kb", errors.BlobMissing("second"))
    failures.add("agent", KeyError("x"))
    with pytest.raises(ResolutionError) as caught:
        failures.refuse()
    told = caught.value.failures
    assert list(told) == ["agent", "kb"]
    assert told["kb"].message == "first"
    assert "KeyError" in told["agent"].message
    assert isinstance(told["agent"].__cause__, KeyError)


def test_an_error_of_the_whole_set_is_said_of_every_component_that_has_none():
    failures = Failures(SPEC)
    failures.add("kb", errors.BlobMissing("gone"))
    error = failures.all(errors.Unreachable("down"))
    assert {n: type(e) for n, e in error.failures.items()} == {"agent": errors.Unreachable, "kb": errors.BlobMissing}
