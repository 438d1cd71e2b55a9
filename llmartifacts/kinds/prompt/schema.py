"""JSON Schema for one variable: a small part of it, and whatever is not in that part is refused, never ignored.

Keywords: type, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, pattern, items,
minItems, maxItems, properties, required, additionalProperties (true or false); title, description, default and
examples say something to people only. `pattern` is a regular expression of Rust's `regex` (no backreferences, no
look-around), which takes linear time whatever the text. Source: JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.prompt.values import is_number

_TYPES: Mapping[str, Any] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: is_number(v) and float(v).is_integer(),
    "number": is_number,
    "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "null": lambda v: v is None,
}
_NOTES = frozenset({"title", "description", "default", "examples", "$comment"})
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_LENGTHS = {"minLength", "maxLength", "minItems", "maxItems"}
_KNOWN = _NOTES | _NUMBERS | _LENGTHS
_KNOWN |= {"type", "enum", "const", "pattern", "items", "properties", "required", "additionalProperties"}
_MAX_DEPTH = 16


def check_schema(schema: Any, field: str, depth: int = 0) -> None:
    """Refuse a schema that cannot be held against a value.

    Raises:
        InvalidValue: A keyword is unknown here, or its own value is wrong; the field is named.
    """
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        raise InvalidValue("a schema is a JSON object, at most 16 levels deep", field=field)
    for key, value in schema.items():
        where = f"{field}.{key}"
        if key not in _KNOWN:
            raise InvalidValue(
                f"the JSON Schema keyword {key!r} is not supported",
                field=where,
                next_step=f"Supported: {', '.join(sorted(_KNOWN))}.",
            )
        names = value if isinstance(value, list) else [value]
        good = True
        if key == "type":
            good = bool(names) and all(isinstance(n, str) and n in _TYPES for n in names)
        elif key == "enum":
            good = isinstance(value, list) and bool(value)
        elif key in _NUMBERS:
            good = is_number(value)
        elif key in _LENGTHS:
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        elif key == "required":
            good = isinstance(value, list) and all(isinstance(n, str) for n in value)
        elif key == "additionalProperties":
            good = isinstance(value, bool)
        elif key == "items":
            check_schema(value, where, depth + 1)
        elif key == "properties":
            good = isinstance(value, dict)
            for name, inner in value.items() if good else ():
                check_schema(inner, f"{where}.{name}", depth + 1)
        elif key == "pattern":
            good = isinstance(value, str)
            if good:
                _pattern_or_refuse(value, where)
        if not good:
            raise InvalidValue(f"the JSON Schema keyword {key!r} has a wrong value: {value!r:.60}", field=where)


def check_value(value: Any, schema: Mapping[str, Any], field: str) -> None:
    """Hold a JSON-plain value against a schema that `check_schema` took.

    Raises:
        InvalidValue: It does not fit; the field is named, such as `user.age`.
    """
    problem = _problem(value, schema)
    if problem:
        raise InvalidValue(f"{problem}, not {value!r:.60}", field=field)
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            check_value(item, schema["items"], f"{field}[{i}]")
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                raise InvalidValue(f"the field {name!r} is missing", field=field)
        for name, item in value.items():
            if name in inner:
                check_value(item, inner[name], f"{field}.{name}")
            elif schema.get("additionalProperties") is False:
                raise InvalidValue(f"the field {name!r} is not foreseen", field=field)


def _problem(value: Any, schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    if kinds is not None:
        names = kinds if isinstance(kinds, list) else [kinds]
        if not any(_TYPES[name](value) for name in names):
            return f"must be {' or '.join(names)}"
    if "enum" in schema and not any(_same(value, v) for v in schema["enum"]):
        return f"must be one of {schema['enum']!r:.80}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"must be {schema['const']!r:.60}"
    if is_number(value):
        for key, holds in _BOUNDS.items():
            if key in schema and not holds(value, schema[key]):
                return f"breaks {key} {schema[key]}"
    for kind, unit in ((str, "Length"), (list, "Items")):
        if isinstance(value, kind):
            low, high = schema.get(f"min{unit}", 0), schema.get(f"max{unit}")
            if len(value) < low or (high is not None and len(value) > high):
                return f"breaks min{unit} or max{unit}"
    if isinstance(value, str) and "pattern" in schema:
        try:
            _pattern(schema["pattern"]).validate_python(value)
        except ValidationError:
            return f"must match {schema['pattern']!r:.60}"
    return ""


_BOUNDS: Mapping[str, Any] = {
    "minimum": lambda v, bound: v >= bound,
    "maximum": lambda v, bound: v <= bound,
    "exclusiveMinimum": lambda v, bound: v > bound,
    "exclusiveMaximum": lambda v, bound: v < bound,
}


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _pattern_or_refuse(pattern: str, field: str) -> None:
    try:
        _pattern(pattern)
    except SchemaError as error:
        raise InvalidValue(f"the pattern does not parse: {str(error).splitlines()[-1].strip()}", field=field) from None
