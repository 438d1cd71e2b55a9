"""What a library's exception means, and that nothing of its text is told but a word of the store's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.objects.failures import CutShort, Failure, Kind, as_error, read_failure
from llmartifacts.blobs.objects.patience import Patience
from llmartifacts.errors import BlobMissing, DeadlineExceeded, InvalidInput, NotAllowed, Unreachable


def of_the_library(text: str, name: str = "GenericError") -> Exception:
    made: Any = type(name, (Exception,), {"__module__": "obstore.exceptions"})
    error: Exception = made(text)
    return error


def answered(status: int, code: str = "") -> str:
    body = f"<Error><Code>{code}</Code></Error>" if code else ""
    return (
        f"Error performing GET http://x/?X-Amz-Signature=abc - Server returned non-2xx status code: {status} X: {body}"
    )


def of_many(code: str) -> str:
    return f"Generic S3 error: DeleteObjects request failed for key a/404: told (code: {code})"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (answered(404, "NoSuchKey"), Kind.MISSING),
        (answered(404, "NoSuchBucket"), Kind.NO_BUCKET),
        (answered(404, "ContainerNotFound"), Kind.NO_BUCKET),
        (answered(400, "ExpiredToken"), Kind.DENIED),
        (answered(400), Kind.DENIED),
        (answered(401), Kind.DENIED),
        (answered(403, "RequestTimeTooSkewed"), Kind.DENIED),
        (answered(403, "QuotaExceeded"), Kind.FULL),
        (answered(409), Kind.EXISTS),
        (answered(409, "OperationAborted"), Kind.BUSY),
        (answered(412), Kind.EXISTS),
        (answered(416, "InvalidRange"), Kind.RANGE),
        (answered(400, "RequestTimeout"), Kind.BUSY),
        (answered(400, "AuthorizationHeaderMalformed"), Kind.MISUSED),
        (answered(429), Kind.BUSY),
        (answered(500), Kind.BUSY),
        (answered(501), Kind.MISUSED),
        (answered(503, "SlowDown"), Kind.BUSY),
        ("Missing AccessKeyId", Kind.DENIED),
        ("Error performing token request: GET http://169.254.169.254/ error sending request", Kind.DENIED),
        (f"Error performing token request: {answered(503)}", Kind.BUSY),
        ("error sending request: kind: Timeout", Kind.LATE),
        ("kind: Connect", Kind.BROKEN),
        ("error decoding response body", Kind.BROKEN),
        ("Received redirect without LOCATION", Kind.MISUSED),
        ("InvalidCertificate(UnknownIssuer)", Kind.MISUSED),
        ("Wanted range: StartTooLarge", Kind.RANGE),
        (of_many("NoSuchKey"), Kind.MISSING),
        (of_many("AccessDenied"), Kind.DENIED),
        (of_many("InternalError"), Kind.BUSY),
        (of_many("ObjectLocked"), Kind.MISUSED),
        ("Generic S3 error: Got invalid DeleteObjects response: missing field `$value`", Kind.MISUSED),
    ],
)
def test_what_a_store_answers_is_understood(text: str, kind: Kind) -> None:
    found = read_failure(of_the_library(text))
    assert found is not None
    assert found.kind is kind
    assert "Signature" not in found.reason


def test_what_is_not_the_librarys_is_left_alone() -> None:
    for error in (ValueError("x"), KeyboardInterrupt(), NotAllowed("x"), PermissionError(13, "x")):
        assert read_failure(error) is None
    assert read_failure(CutShort()) == Failure(Kind.BROKEN, "the answer was cut short")
    panic: Any = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    found = read_failure(panic("secret"))
    assert found is not None
    assert "secret" not in found.reason


@given(st.text(), st.sampled_from(list(Kind)))
def test_no_text_of_the_library_is_told(text: str, kind: Kind) -> None:
    found = read_failure(of_the_library(text))
    assert found is not None
    assert re.fullmatch(r"[A-Za-z0-9 ]{1,64}", found.reason)
    error = as_error(Failure(kind, found.reason), "read", "s3://bucket/key", "s3://bucket")
    assert "s3://bucket" in error.message
    assert isinstance(error, BlobMissing | Unreachable | NotAllowed | InvalidInput)
    assert error.hint() or isinstance(error, BlobMissing)


class Work:
    """Fails as often as it is told, then gives an answer."""

    def __init__(self, *failures: str) -> None:
        self.left = list(failures)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.left:
            raise of_the_library(self.left.pop(0))
        return "done"


def patience(seconds: float, renewed: list[int] | None = None) -> Patience:
    return Patience("s3://bucket", seconds, lambda: (renewed if renewed is not None else []).append(1))


def test_what_passes_is_waited_for_and_what_does_not_is_told_at_once() -> None:
    work = Work(answered(503), "kind: Connect", "kind: Timeout")
    assert patience(30).call("read", "k", work) == "done"
    assert work.tries == 4
    work = Work(answered(501), "never")
    with pytest.raises(InvalidInput):
        patience(30).call("read", "k", work)
    assert work.tries == 1


def test_credentials_are_read_anew_once() -> None:
    renewed: list[int] = []
    assert patience(30, renewed).call("read", "k", Work(answered(403))) == "done"
    assert renewed == [1]
    work = Work(answered(403), answered(403), "never")
    with pytest.raises(NotAllowed):
        patience(30, renewed).call("read", "k", work)
    assert (work.tries, renewed) == (2, [1, 1])


@pytest.mark.parametrize(("text", "kind"), [("kind: Timeout", DeadlineExceeded), ("kind: Connect", Unreachable)])
def test_after_its_time_it_is_given_up_with_the_number_of_tries(text: str, kind: type[Unreachable]) -> None:
    with pytest.raises(kind, match=r"after \d+ tr(y|ies) in 0 s"):
        patience(0.1).call("read", "k", Work(*[text] * 100))
    with pytest.raises(kind, match="after 1 try"):
        patience(0).call("read", "k", Work(text))
