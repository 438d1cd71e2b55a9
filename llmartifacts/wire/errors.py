"""The one table of errors: code -> exit code of the command line and status of the HTTP API.

Read by the command line, the server and the client, so that all three say the same thing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from llmartifacts import errors
from llmartifacts.errors import GateRefused, LlmartifactsError, ResolutionError

DONE = 0
REFUSED = 1
WRONG_USE = 2
NOT_FOUND = 3
CONFLICT = 4
DAMAGED = 5
UNREACHABLE = 6
INCONCLUSIVE = 7
GATE_ERROR = 8
NOT_ALLOWED = 9
NEWER_FORMAT = 10
BUG = 70
INTERRUPTED = 130

TABLE: dict[str, tuple[int, int]] = {
    "error": (BUG, 500),
    "invalid_input": (WRONG_USE, 400),
    "invalid_reference": (WRONG_USE, 400),
    "invalid_path": (WRONG_USE, 400),
    "invalid_manifest": (WRONG_USE, 422),
    "invalid_value": (WRONG_USE, 422),
    "invalid_template": (WRONG_USE, 422),
    "missing_variable": (WRONG_USE, 422),
    "unexpected_variable": (WRONG_USE, 422),
    "render_limit_exceeded": (WRONG_USE, 422),
    "wrong_kind": (WRONG_USE, 422),
    "too_large": (WRONG_USE, 413),
    "missing_extra": (WRONG_USE, 501),
    "not_found": (NOT_FOUND, 404),
    "removed": (NOT_FOUND, 404),
    "conflict": (CONFLICT, 409),
    "alias_moved": (CONFLICT, 409),
    "busy": (CONFLICT, 503),
    "refused": (REFUSED, 403),
    "incompatible": (REFUSED, 409),
    "gate_refused": (REFUSED, 409),
    "yanked": (REFUSED, 409),
    "damaged": (DAMAGED, 500),
    "digest_mismatch": (DAMAGED, 500),
    "blob_missing": (DAMAGED, 500),
    "unsafe_content": (DAMAGED, 422),
    "unreachable": (UNREACHABLE, 503),
    "deadline_exceeded": (UNREACHABLE, 504),
    "resolution_failed": (UNREACHABLE, 503),
    "not_allowed": (NOT_ALLOWED, 403),
    "newer_format": (NEWER_FORMAT, 409),
}
"""Code -> (exit code, HTTP status)."""

MAX_MESSAGE = 16_384
"""Characters of a message, or of one text of its details, that are read of an answer."""
MAX_MEMBERS = 1_000
"""Members of one list of details that are read of an answer."""

_VERDICT_EXIT = {"FAIL": REFUSED, "INCONCLUSIVE": INCONCLUSIVE, "ERROR": GATE_ERROR, "TAMPERED": DAMAGED}
# A start that failed for several reasons exits with the gravest.
_GRAVEST_FIRST = (BUG, DAMAGED, NEWER_FORMAT, NOT_ALLOWED, REFUSED, WRONG_USE, NOT_FOUND, CONFLICT, UNREACHABLE)


def exit_code(error: LlmartifactsError) -> int:
    """Exit code of the command line for an error."""
    if isinstance(error, GateRefused):
        return _VERDICT_EXIT.get(error.verdict, REFUSED)
    if isinstance(error, ResolutionError) and error.failures:
        codes = {exit_code(e) for e in error.failures.values()}
        return next((c for c in _GRAVEST_FIRST if c in codes), min(codes))
    return TABLE.get(error.code, TABLE["error"])[0]


def verdict_code(verdict: str) -> int:
    """Exit code of the command line for a verdict: 0 for PASS."""
    return DONE if verdict == "PASS" else _VERDICT_EXIT.get(verdict, REFUSED)


def http_status(error: LlmartifactsError) -> int:
    """HTTP status for an error."""
    return TABLE.get(error.code, TABLE["error"])[1]


def error_item(error: LlmartifactsError) -> dict[str, Any]:
    """One error as plain JSON: `{"code", "message", "detail"}`; empty fields are left out."""
    detail = {k: v for k, v in error.details().items() if v not in ("", (), [], {}, None)}
    detail.pop("next_step", None)
    if error.hint():
        detail["hint"] = error.hint()
    return {"code": error.code, "message": error.message, "detail": detail}


def error_body(error: LlmartifactsError) -> dict[str, Any]:
    """The JSON body of an error: `{"errors": [{"code", "message", "detail"}]}`."""
    return {"errors": [error_item(error)]}


def error_from_body(status: int, body: Any) -> LlmartifactsError:
    """The typed error that an answer tells of, with its data fields.

    Nothing in the body is trusted: what does not fit is left out, long texts are cut, and a code that this release does
    not know becomes the class nearest to the status.

    Args:
        status: HTTP status of the answer.
        body: Its JSON, parsed; whatever it is.

    Example:
        >>> error_from_body(409, error_body(errors.AliasMoved("it moved", alias="kb:prod", actual="v2")))
        AliasMoved('it moved')
    """
    items = body.get("errors") if isinstance(body, Mapping) else None
    first = items[0] if isinstance(items, list) and items else None
    if not isinstance(first, Mapping) or not isinstance(first.get("message"), str) or not first["message"]:
        return _by_status(status)(f"the server answered {status}, and did not say why")
    return error_from_item(first, status)


def error_from_item(item: Mapping[str, Any], status: int = 500) -> LlmartifactsError:
    """One error of an answer; see `error_from_body`.

    Args:
        item: `{"code", "message", "detail"}`.
        status: HTTP status, for a code that this release does not know.
    """
    detail = item.get("detail")
    return _read(item.get("code"), item.get("message"), detail if isinstance(detail, Mapping) else {}, status, 0)


def _read(code: Any, message: Any, detail: Mapping[str, Any], status: int, depth: int) -> LlmartifactsError:
    cls = _CLASSES.get(code) if isinstance(code, str) else None
    made = cls or _by_status(status)
    values = {}
    for field in dataclasses.fields(made):
        given = detail.get(field.name)
        if field.name in ("message", "next_step") or given is None:
            continue
        value = _fitting(str(field.type), given, depth)
        if value is not None:
            values[field.name] = value
    told = _text(message) if isinstance(message, str) and message else "the server did not say what is wrong"
    error = made(told, **values)
    hint = detail.get("hint")
    if isinstance(hint, str) and _text(hint) != error.hint():
        error = made(told, **values, next_step=_text(hint))
    return error


def _fitting(kind: str, given: Any, depth: int) -> Any:
    """A value of the type that a data field has; None where it is of another."""
    if kind == "str":
        return _text(given) if isinstance(given, str) else None
    if kind == "int | None":
        return given if type(given) is int and 0 <= given < 2**53 else None
    if kind == "tuple[str, ...]":
        many = given[:MAX_MEMBERS] if isinstance(given, list) else []
        return tuple(_text(one) for one in many) if many and all(isinstance(one, str) for one in many) else None
    if kind == "Mapping[str, LlmartifactsError]" and isinstance(given, Mapping) and depth < _MAX_NESTING:
        failures = [(k, v) for k, v in given.items() if isinstance(k, str) and isinstance(v, Mapping)][:MAX_MEMBERS]
        return {_text(k): _read(v.get("code"), v.get("message"), v, 500, depth + 1) for k, v in failures}
    return None


def _text(value: str) -> str:
    """Text that can be shown: cut, and without control characters that a terminal would act on."""
    return _UNSHOWN.sub("\ufffd", value[:MAX_MESSAGE])


def _by_status(status: int) -> type[LlmartifactsError]:
    if status in _STATUSES:
        return _STATUSES[status]
    return errors.InvalidInput if 400 <= status < 500 else LlmartifactsError


def _classes(cls: type[LlmartifactsError]) -> dict[str, type[LlmartifactsError]]:
    made = {cls.code: cls}
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            made |= _classes(below)
    return made


_MAX_NESTING = 4
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_CLASSES = _classes(LlmartifactsError)
_STATUSES: dict[int, type[LlmartifactsError]] = {
    401: errors.NotAllowed,
    403: errors.NotAllowed,
    404: errors.NotFound,
    408: errors.DeadlineExceeded,
    409: errors.Conflict,
    412: errors.Conflict,
    413: errors.TooLarge,
    414: errors.TooLarge,
    429: errors.Busy,
    431: errors.TooLarge,
    501: errors.MissingExtra,
    502: errors.Unreachable,
    503: errors.Unreachable,
    504: errors.DeadlineExceeded,
}
