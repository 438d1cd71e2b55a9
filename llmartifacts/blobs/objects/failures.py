"""What went wrong with an object store: read from what its library says, told without anything that may be secret.

The library's own messages hold addresses with signatures and whole answers, so none of them is passed on: only the
status, the store's own word for the failure, and what this program makes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from llmartifacts.errors import (
    BlobMissing,
    DeadlineExceeded,
    InvalidInput,
    LlmartifactsError,
    NotAllowed,
    Unreachable,
)


class Kind(Enum):
    """What a failure means."""

    MISSING = auto()
    """No such object."""
    NO_BUCKET = auto()
    EXISTS = auto()
    """There is such an object, or somebody is storing it."""
    DENIED = auto()
    """The credentials are none, wrong, expired, or not good for this."""
    FULL = auto()
    RANGE = auto()
    """The range lies behind the end."""
    MISUSED = auto()
    """The store does not take what is asked: another region, no such function."""
    BUSY = auto()
    """The store, or somebody on the way, says to come again."""
    LATE = auto()
    """No answer in time."""
    BROKEN = auto()
    """No answer, or not all of it."""


AGAIN = frozenset({Kind.BUSY, Kind.LATE, Kind.BROKEN})
"""Kinds after which the same is tried again."""


class CutShort(Exception):
    """An answer with fewer bytes than it should have, or others than were asked for."""


class Unsettled(Exception):
    """Somebody was storing the object, and it is not there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request.

    Attributes:
        kind: What it means.
        reason: Why, in few words, without secrets.
    """

    kind: Kind
    reason: str


_STATUS = re.compile(r"status code: ([0-9]{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>|\"(?:reason|code)\": *\"([A-Za-z0-9]{1,64})\"")
_OF_ONE = re.compile(r"DeleteObjects request failed for key [^\n]*\(code: ([A-Za-z0-9]{1,64})\)")
"""What an answer about many says of one; it comes with a good status."""
_DENIED = frozenset(
    {
        *("AccessDenied", "AuthenticationFailed", "AuthorizationFailure", "ExpiredToken", "ExpiredTokenException"),
        *(
            "InvalidAccessKeyId",
            "InvalidToken",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
        ),
    }
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "EntityTooLarge"})
_AGAIN_CODES = frozenset(
    {
        *("RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "SlowDown"),
        *("InternalError", "ServiceUnavailable"),
    }
)
_MANY = re.compile(r"DeleteObjects request failed for key|invalid DeleteObjects response")
_NO_CREDENTIALS = re.compile(
    r"Missing ?(AccessKeyId|SecretAccessKey)|169\.254\.1|latest/(api|meta-data)|metadata\.google|NoCredentials"
    r"|InvalidCredentials"
    r"|error performing token request|MissingAccountKey|Account must be specified|not valid PEM|AssumeRole",
    re.IGNORECASE,
)
_MISUSED = frozenset({"NotSupportedError", "InvalidPathError", "UnknownConfigurationKeyError"})
_ELSEWHERE = re.compile(r"BareRedirect|redirect without LOCATION", re.IGNORECASE)
_NONE = "there are no credentials"
_CERTIFICATE = re.compile(r"InvalidCertificate|certificate verify failed")
_LATE = re.compile(r"TimedOut|kind: Timeout|operation timed out|deadline has elapsed", re.IGNORECASE)


def read_failure(error: BaseException) -> Failure | None:
    """What an exception of the library means; None for one that is not the library's.

    Args:
        error: As it was raised.
    """
    if isinstance(error, CutShort):
        return Failure(Kind.BROKEN, "the answer was cut short")
    if isinstance(error, Unsettled):
        return Failure(Kind.BUSY, "somebody else was storing it")
    name = type(error).__name__
    module = type(error).__module__
    if not (module.startswith("obstore") or isinstance(error, FileNotFoundError)):
        return Failure(Kind.BROKEN, "its library failed") if name == "PanicException" else None
    text = str(error)[:20_000]
    named = _CODE.search(text)
    of_one = _OF_ONE.search(text)
    code = of_one[1] if of_one else (named[1] or named[2]) if named else ""
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    kind = _kind(name, status, code, text)
    if kind is Kind.DENIED and _NO_CREDENTIALS.search(text):
        return Failure(kind, _words(text))
    return Failure(kind, code or (f"status {status}" if status else _words(text)))


def _kind(name: str, status: int, code: str, text: str) -> Kind:
    if code in _NO_BUCKET or (status == 404 and "bucket does not exist" in text):
        return Kind.NO_BUCKET
    if code in _AGAIN_CODES:
        return Kind.BUSY
    if code in _FULL or status == 507:
        return Kind.FULL
    if code in _DENIED or name in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403):
        return Kind.DENIED
    if status == 400 and not code:
        return Kind.DENIED  # a HEAD has no body that would say so: S3 tells thus of a token that expired
    if name == "FileNotFoundError" or status in (404, 410) or code == "NoSuchKey":
        return Kind.MISSING
    if name in ("AlreadyExistsError", "PreconditionError", "NotModifiedError") or status in (409, 412):
        return Kind.EXISTS
    if status == 416 or "StartTooLarge" in text:
        return Kind.RANGE
    if status in (408, 425, 429) or (status >= 500 and status != 501):
        return Kind.BUSY
    if _NO_CREDENTIALS.search(text):
        return Kind.DENIED
    if status or _MANY.search(text) or _ELSEWHERE.search(text) or _CERTIFICATE.search(text) or name in _MISUSED:
        return Kind.MISUSED
    return Kind.LATE if _LATE.search(text) else Kind.BROKEN


def _words(text: str) -> str:
    """Why there was no answer."""
    if _NO_CREDENTIALS.search(text):
        return _NONE
    if _ELSEWHERE.search(text):
        return "it is in another region"
    if _CERTIFICATE.search(text):
        return "nobody vouches for its certificate"
    if _LATE.search(text):
        return "no answer in time"
    if "kind: Connect" in text or "dns error" in text:
        return "no connection"
    return "the connection broke off"


def as_error(failure: Failure, doing: str, where: str, bucket: str) -> LlmartifactsError:
    """The typed error that tells of a failure.

    Args:
        failure: What it was.
        doing: What was tried, such as `store`.
        where: The object.
        bucket: The store, for failures that are not the object's.
    """
    told = f"cannot {doing} {where}: {failure.reason}"
    kind = failure.kind
    if kind is Kind.MISSING:
        return BlobMissing(f"there is no object {where}", file=where)
    if kind is Kind.NO_BUCKET:
        step = "Make it, or correct the address of the blobs, then try again."
        return Unreachable(f"cannot {doing} {where}: there is no such bucket or container ({bucket})", next_step=step)
    if kind is Kind.DENIED:
        step = (
            "Look at the credentials in the environment of this process: whether they expired, and whether they may"
            " get, put, delete and list objects there. Then try again: nothing was left half-written."
        )
        if failure.reason != _NONE:
            told = f"cannot {doing} {where}: the store refuses ({failure.reason})"
        return NotAllowed(told, next_step=step)
    if kind is Kind.FULL:
        step = "Make room there, or raise the quota, and try again; nothing was left half-written."
        return NotAllowed(f"cannot {doing} {where}: the store is full ({failure.reason})", next_step=step)
    if kind in (Kind.MISUSED, Kind.EXISTS, Kind.RANGE):
        step = (
            "Look at the address of the blobs: its bucket, region, endpoint and style. Who vouches for a certificate of"
            " your own is said in the file that REQUESTS_CA_BUNDLE names."
        )
        return InvalidInput(told, field="blobs", next_step=step)
    step = "Look at the object store and the way there, then try again; nothing was left half-written."
    return DeadlineExceeded(told, next_step=step) if kind is Kind.LATE else Unreachable(told, next_step=step)
