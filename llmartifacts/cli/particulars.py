"""What an entry of the audit tells, in words on one line. The whole of it is what `--json` and the export are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmartifacts.cli.plain import minute
from llmartifacts.records.rights import TokenScope
from llmartifacts.records.times import from_micros
from llmartifacts.records.wording import size

if TYPE_CHECKING:
    from llmartifacts.records.audit import AuditEvent

_LAST_MICRO = 253_402_300_799_999_999
"""The last microsecond of the year 9999, after which nothing is a time."""


def particulars(event: AuditEvent) -> str:
    """The most telling part of an entry on one line; of one that no release writes, all of it."""
    body = event.body
    moves = body.get("moves")
    told = [_move(m) for m in moves if isinstance(m, Mapping)] if isinstance(moves, list) else []
    if isinstance(body.get("subjects"), list):
        told += [f"{_words(body['subjects'])} -> {_text(body.get('alias'))}"]
    if event.verb in _GRANTS and _text(body.get("role")):
        told += [f"{body['role']} of {event.project or 'every project'}"]
    known = [show(body[name]) for name, show in _PARTICULARS if name in body]
    told += [text for text in known if text]
    if known:
        return ", ".join(told)
    return ", ".join(told) or ", ".join(f"{name}: {_plainly(value)}" for name, value in body.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _all(before: str = "", *, nothing: str = "") -> Callable[[Any], str]:
    """Shows a list of words, or the words of a mapping."""

    def show(value: Any) -> str:
        words = _words([f"{name}={text}" for name, text in value.items()] if isinstance(value, Mapping) else value)
        return before + words if words else nothing

    return show


def _words(value: Any) -> str:
    words = [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
    return " ".join(word.partition("@sha256:")[0] for word in words)


def _plainly(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_plainly(one)}" for name, one in value.items()) or "nothing"
    if isinstance(value, list):
        return " ".join(map(_plainly, value)) or "nothing"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "yes", False: "no"}[value]
    return str(value)


def _aliases(value: Any) -> str:
    words = _words(value)
    return "" if words in ("", "*") else f"aliases {words}"


def _scope(value: Any) -> str:
    """What a token is limited to; nothing of one that is not."""
    if not isinstance(value, Mapping):
        return ""
    named = [value.get(name) for name in ("projects", "roles")]
    projects, roles = (tuple(map(str, one)) if isinstance(one, list) else None for one in named)
    limits = TokenScope(projects, roles, value.get("read_only") is True)  # type: ignore[arg-type]  # only to be shown
    return "" if limits == TokenScope() else str(limits)


def _time(before: str) -> Callable[[Any], str]:
    """Shows microseconds since 1970 as a time, UTC."""

    def show(value: Any) -> str:
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_MICRO
        return f"{before} {minute(from_micros(value))}" if good else ""

    return show


def _number(before: str) -> Callable[[Any], str]:
    return lambda value: f"{before} {value}" if isinstance(value, int) and not isinstance(value, bool) else ""


def _size(told: str) -> Callable[[Any], str]:
    """Shows bytes."""
    return lambda value: told.format(size(value)) if isinstance(value, int) and not isinstance(value, bool) else ""


_GRANTS = ("grant", "grant-revoke")
_PARTICULARS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("created", lambda new: "the same as before" if new is False else ""),
    ("person", lambda name: f"as {name}" if _text(name) else ""),
    ("roles", _all("roles ")),
    ("replaces", lambda key: f"in the place of {key[:12]}" if _text(key) else ""),
    ("inputs", _all("from ")),
    ("tags", _all()),
    ("set", _all()),
    ("remove", _all("without ")),
    ("used", lambda one: _all("used ")([one])),
    ("name", _text),
    ("status", _text),
    ("reason", _text),
    ("message", _text),
    ("ticket", _text),
    ("break_glass", lambda broke: "broke the glass" if broke is True else ""),
    ("protects", _all("protects ")),
    ("kind", _text),
    ("member", _text),
    ("label", _text),
    ("token", lambda token: f"token {token}" if _text(token) else ""),
    ("scope", _scope),
    ("end", _time("until")),
    ("aliases", _aliases),
    ("grant", _number("grant")),
    ("issuer", _text),
    ("protected", _all("now ", nothing="nothing is protected")),
    ("before", _size("{} before")),
    ("after", _size("{} after")),
    ("digest", lambda digest: _text(digest).removeprefix("sha256:")[:12]),
)
"""What of an entry's body is shown in a table, and how; a value of another type, which no release writes, is not."""


def _move(move: Mapping[str, Any]) -> str:
    old, new = move.get("old"), move.get("new")
    place = f"{move.get('name')}:{move.get('alias')}"
    if new is None:
        return f"{place} v{old} removed"
    return f"{place} -> v{new}" if old is None else f"{place} v{old} -> v{new}"
