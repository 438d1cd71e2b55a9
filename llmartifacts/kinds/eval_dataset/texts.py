"""Text as the comparisons of this folder read it: folded, in words, and found inside chat messages and lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

# Scripts written without blanks: one sign is one word, or a clause would be.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SIGN}]|[^\W{_SIGN}]+")
_NOT_THE_ITEM = frozenset({"system", "developer"})
_MESSAGE = (("role", "content"), ("from", "value"))
_PARTS = frozenset({"image", "image_url", "input_image", "audio", "input_audio", "file", "input_file"})


def fold(text: str) -> str:
    """A text without what seldom counts: Unicode NFC, case folded. White space stays as it is."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def one_spaced(folded: str) -> str:
    """A text with each run of white space as one blank, and none at its ends."""
    return " ".join(folded.split())


def words(folded: str) -> list[str]:
    """The words of a folded text: runs of letters, digits and underscores; each Chinese or Japanese sign is one."""
    return _WORD.findall(folded)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts inside a JSON value, in order, each with its place, such as `[1].content`.

    Of a chat message (`role` and `content`, or `from` and `value`) the role is no text; images, sounds and files given
    as parts of a message are none either.

    Args:
        value: Plain JSON.
        path: Where it stands.
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in _PARTS:
            return
        skipped = {role for role, content in _MESSAGE if role in value and content in value}
        if isinstance(kind, str) and "text" in value:
            skipped.add("type")
        for key, item in value.items():
            if key not in skipped:
                yield from leaves(item, f"{path}.{key}" if path else key)


def text_of(value: Any, *, instructions: bool = True) -> str:
    """All text inside a JSON value, parts on lines of their own; empty if there is none.

    Args:
        value: Plain JSON, such as text or a list of chat messages.
        instructions: Whether messages of the roles `system` and `developer` count. Without them, a value that has no
            other text still counts whole.
    """
    if isinstance(value, str):
        return value
    if not instructions and isinstance(value, list | tuple):
        others = [m for m in value if not (isinstance(m, dict) and m.get("role", m.get("from")) in _NOT_THE_ITEM)]
        found = text_of(others)
        if found:
            return found
    return "\n".join(text for _, text in leaves(value))
