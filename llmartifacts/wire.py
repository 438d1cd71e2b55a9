"""The one table of errors: code -> exit code of the command line and status of the HTTP API.

Read by the command line, the server and the client, so that all three say the same thing.
"""

from __future__ import annotations

from typing import Any

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


def error_body(error: LlmartifactsError) -> dict[str, Any]:
    """The JSON body of an error: `{"errors": [{"code", "message", "detail"}]}`."""
    detail = {k: v for k, v in error.details().items() if v not in ("", (), [], {}, None)}
    detail.pop("next_step", None)
    if error.hint():
        detail["hint"] = error.hint()
    return {"errors": [{"code": error.code, "message": error.message, "detail": detail}]}
