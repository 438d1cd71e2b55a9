"""Canonical JSON (RFC 8785) out, strict JSON in.

Out: one byte string for one value, so that a digest names the content. In: what two parsers could read differently is
refused: duplicate keys, NaN, lone surrogates, integers beyond 2^53-1, nesting beyond 64.

Source: RFC 8785, JSON Canonicalization Scheme; RFC 7493, I-JSON (the limits).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import rfc8785

from llmartifacts.errors import InvalidManifest, LlmartifactsError, TooLarge

MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1

Json = Any
"""A JSON value: None, bool, int, float, str, list, or dict with str keys."""


def canonical_bytes(value: Json, *, field: str = "", max_bytes: int | None = None) -> bytes:
    """The canonical form of a JSON value.

    Args:
        value: None, bool, int, float, str, list or tuple, and mappings with string keys.
        field: Name of the value in error messages.
        max_bytes: Limit of the result's length.

    Raises:
        InvalidManifest: A part is not JSON, NaN, beyond 2^53-1, a lone surrogate or nested too deep; names the field.
        TooLarge: The result is longer than `max_bytes`.

    Example:
        >>> canonical_bytes({"b": 1.0, "a": ["é"]}).decode()
        '{"a":["é"],"b":1}'
    """
    check_json(value, field=field)
    data = _ENCODER.encode(value).encode() if _is_simple(value) else rfc8785.dumps(value)
    if max_bytes is not None and len(data) > max_bytes:
        raise TooLarge(f"{field or 'the value'} takes {len(data)} bytes, the limit is {max_bytes}", field=field)
    return data


def check_json(value: Json, *, field: str = "", depth: int = 0) -> None:
    """Check that a value has exactly one JSON form.

    Raises:
        InvalidManifest: See `canonical_bytes`; the field is named as `config.parameters.top_p` or `items[3]`.
    """
    # Exact types: a subclass (an enum, numpy's float64) may print as something else.
    kind = type(value)
    if kind is str:
        if not value.isascii() and _has_surrogate(value):
            raise InvalidManifest("text holds a lone surrogate", field=field, next_step=_SURROGATE)
    elif kind is dict:
        if depth >= MAX_DEPTH:
            raise InvalidManifest(f"nested deeper than {MAX_DEPTH} levels", field=field)
        for key, item in value.items():
            check_key(key, field=field)
            check_json(item, field=f"{field}.{key}" if field else key, depth=depth + 1)
    elif kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise InvalidManifest(f"nested deeper than {MAX_DEPTH} levels", field=field)
        for i, item in enumerate(value):
            check_json(item, field=f"{field}[{i}]", depth=depth + 1)
    elif kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise InvalidManifest(
                f"the integer {value:.3e} is beyond 2^53-1" if abs(value) < 10**300 else "the integer is beyond 2^53-1",
                field=field,
                next_step=_BIG,
            )
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidManifest(f"{value} is not a JSON number", field=field, next_step="Leave it out, or use null.")
        # RFC 8785 writes these without an exponent, so that they come back as integers beyond 2^53-1.
        if MAX_INTEGER < abs(value) < 1e21:
            raise InvalidManifest(f"{value} is written as an integer beyond 2^53-1", field=field, next_step=_BIG)
    elif value is not None and kind is not bool:
        raise InvalidManifest(
            f"a {kind.__name__} is not JSON",
            field=field,
            next_step="Use text, numbers, true, false, null, lists and objects.",
        )


def parse_json(data: bytes | str, *, field: str = "", origin: str = "", max_bytes: int | None = None) -> Json:
    """Parse JSON strictly.

    Args:
        data: UTF-8 bytes or text.
        field: Name of the value in error messages.
        origin: Where it came from, such as a file and a line.
        max_bytes: Limit of the input's length.

    Raises:
        InvalidManifest: Not JSON, not UTF-8, duplicate keys, NaN, lone surrogates, big integers, or nested too deep.
        TooLarge: The input is longer than `max_bytes`.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise TooLarge(f"the document has {len(data)} bytes, the limit is {max_bytes}", field=field, origin=origin)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = decode_json(text)
        check_json(value, field=field)
    except InvalidManifest as error:
        raise InvalidManifest.of(error, field=error.field or field, origin=origin) from None
    except UnicodeDecodeError as error:
        raise InvalidManifest(f"not UTF-8 at byte {error.start}", field=field, origin=origin) from None
    return value


def decode_json(text: str) -> Json:
    """Decode JSON, refusing duplicate keys and NaN; what `check_json` refuses besides, such as big integers, stays.

    Raises:
        InvalidManifest: Not JSON, duplicate keys, NaN, or nested deeper than the decoder can follow.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InvalidManifest(f"nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise InvalidManifest(f"not JSON: {error.msg}, at {line}column {error.colno}") from None
    except ValueError as error:
        raise InvalidManifest(f"not JSON: {error}") from None


def plain_json(value: Any, *, field: str = "", depth: int = 0) -> Json:
    """A private copy of a JSON value with mappings and sequences turned into dicts and lists.

    Raises:
        InvalidManifest: As `check_json`.
    """
    if type(value) in _SCALARS or not isinstance(value, dict | list | tuple | Mapping):
        check_json(value, field=field)
        return value
    if depth >= MAX_DEPTH:
        raise InvalidManifest(f"nested deeper than {MAX_DEPTH} levels", field=field)
    if isinstance(value, list | tuple):
        return [plain_json(v, field=f"{field}[{i}]", depth=depth + 1) for i, v in enumerate(value)]
    for key in value:
        check_key(key, field=field)
    return {k: plain_json(v, field=f"{field}.{k}" if field else k, depth=depth + 1) for k, v in value.items()}


def check_key(key: object, *, field: str = "") -> None:
    """Check one key of an object. Raises `InvalidManifest`: it is not text (1 and "1" would become one key)."""
    if type(key) is not str:
        raise InvalidManifest(f"the key {key!r:.60} is not text", field=field)
    if not key.isascii():
        check_json(key, field=f"{field} (key {key!a:.60})")


def _is_simple(value: Json) -> bool:
    """Whether Python's own encoder, several times as fast, writes a checked value as RFC 8785 wants it.

    They differ in two things only: the form of numbers (`1.0` and `1`, `1e-07` and `1e-7`), and the order of keys,
    which the standard takes by their UTF-16 form.
    """
    kind = type(value)
    if kind is dict:
        return all(key.isascii() for key in value) and all(map(_is_simple, value.values()))
    if kind is list or kind is tuple:
        return all(map(_is_simple, value))
    return kind is not float or (1e-4 <= abs(value) < 1e15 and value % 1 != 0)


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


_SCALARS = frozenset({str, int, float, bool, type(None)})
_BIG = "Write it as text: JSON parsers disagree about integers of this size."
_SURROGATE = "Decode the text with the right encoding; a lone surrogate has no UTF-8 form."


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidManifest(f"the key {key!r:.60} appears twice", field=key)
            seen.add(key)
    return made


def _no_constant(name: str) -> LlmartifactsError:
    raise InvalidManifest(f"{name} is not a JSON number", next_step="Leave it out, or use null.")


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)
