"""What travels between a client and a server: errors, bodies and routes, read by both ends and by the command line.

`errors`   the one table of errors: code -> exit code and HTTP status; bodies of errors, written and read
`bodies/`  one pydantic model for each record, so that what the schema says is what is taken
`routes`   every route with its permission, query, body and result

Importing this package loads the table of errors only, and no pydantic.
"""

from __future__ import annotations

from llmartifacts.wire.errors import (
    BUG,
    CONFLICT,
    DAMAGED,
    DONE,
    GATE_ERROR,
    INCONCLUSIVE,
    INTERRUPTED,
    NEWER_FORMAT,
    NOT_ALLOWED,
    NOT_FOUND,
    REFUSED,
    TABLE,
    UNREACHABLE,
    WRONG_USE,
    error_body,
    error_from_body,
    error_item,
    exit_code,
    http_status,
    verdict_code,
)

__all__ = [
    "BUG",
    "CONFLICT",
    "DAMAGED",
    "DONE",
    "GATE_ERROR",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "NEWER_FORMAT",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "REFUSED",
    "TABLE",
    "UNREACHABLE",
    "WRONG_USE",
    "error_body",
    "error_from_body",
    "error_item",
    "exit_code",
    "http_status",
    "verdict_code",
]
