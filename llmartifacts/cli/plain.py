"""Records as plain JSON, and foreign text made safe for a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.lineage import Lineage
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import to_text
from llmartifacts.records.version import Version

# What a terminal acts on or hides: C0 but tab and line feed, DEL, C1, lone surrogates, line and paragraph separators,
# bidirectional controls (they make text read otherwise than it is), byte order mark, interlinear and tag characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    r"""Text that a terminal shows and never obeys; line feeds and tabs stay.

    Example:
        >>> clean("red \x1b[31malert\x07")
        'red \\x1b[31malert\\x07'
    """
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The first line of a text made safe, with an ellipsis if there is more."""
    first, _, rest = clean(text.strip()).partition("\n")
    return first.replace("\t", " ") + (" …" if rest.strip() else "")


def plain(value: Any) -> Any:
    """A record as JSON values: its fields are the keys, times are RFC 3339, references are text.

    A version has one key more, `reference`; a manifest is its canonical document. NaN and infinities become null.
    """
    match value:
        case None | bool() | int():
            return value
        case Enum():
            return value.value
        case str():
            return str(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return to_text(value)
        case Reference():
            return str(value)
        case Manifest():
            return json.loads(value.to_bytes())
        case Lineage():
            return value.to_dict()
        case LlmartifactsError():
            return plain({"code": value.code, "message": value.message, **value.details(), "hint": value.hint()})
        case Version():
            return {"reference": str(value), **_fields(value)}
        case Mapping() if not dataclasses.is_dataclass(value):
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        return _fields(value)
    return str(value)


def dumps(value: Any, *, ascii_only: bool = False) -> str:
    """Indented JSON of records, without any character that a terminal would obey.

    Args:
        value: Records or plain values.
        ascii_only: For a stream that is not UTF-8.
    """
    text = json.dumps(plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    return _UNSAFE.sub(_json_escaped, text)  # outside of strings JSON has none of these


def when(at: datetime) -> str:
    """A UTC time for people, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def minute(at: datetime) -> str:
    """A UTC time for a table, to the minute."""
    return f"{at:%Y-%m-%d %H:%M}"


def version_text(number: int | None) -> str:
    """`vN`; a dash for nothing."""
    return "-" if number is None else f"v{number}"


def _fields(record: Any) -> dict[str, Any]:
    return {f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _json_escaped(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]
