"""What the scorer `json-schema` lets its process with limits do; imported there, with jsonschema."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jsonschema
from referencing import Registry


def fits(schema: str, draft: str, value: Any) -> bool:
    """Whether a JSON value fits a JSON Schema, given as text. No reference leaves the schema."""
    return bool(_validator(schema, draft).is_valid(value))


@lru_cache(maxsize=4)
def _validator(schema: str, draft: str) -> Any:
    return getattr(jsonschema, draft)(json.loads(schema), registry=Registry())
