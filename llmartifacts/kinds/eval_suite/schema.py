"""The published JSON Schema of a suite, made of the models, so that an editor completes and checks `*.yaml`.

    python -m llmartifacts.kinds.eval_suite.schema > schemas/eval_suite.schema.json

It says what the models say. What holds between fields (a threshold's metric, a scale) is checked when a suite is read.
Scorers of other packages pass it, whatever their options are.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

from llmartifacts import plugins
from llmartifacts.kinds.eval_suite.config import SuiteDocument
from llmartifacts.kinds.eval_suite.entries import SOCKET
from llmartifacts.kinds.eval_suite.value import EvalSuite

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def suite_schema() -> dict[str, Any]:
    """The JSON Schema of a suite, with the options of the built-in scorers."""
    schema = SuiteDocument.model_json_schema()
    parts = schema.pop("$defs")
    for part in parts.values():
        _describe(part, part.get("description", ""))
    _describe(schema, inspect.getdoc(EvalSuite) or "")
    schema["description"] = "A suite of llmartifacts: what is measured, on which items, by which scorers."
    cases = []
    for name in sorted(plugins.BUILT_IN[SOCKET]):
        own, definitions = _scorer(name)
        parts |= definitions
        parts[f"scorer.{name}"] = own
        said = {"properties": {"type": {"pattern": f"^{re.escape(name)}(@[1-9][0-9]*)?$"}}}
        cases.append({"if": said, "then": {"$ref": f"#/$defs/scorer.{name}"}})
    parts["Scorer"] = {
        "anyOf": [
            {"type": "string", "pattern": r"^[^@\s]+(@[1-9][0-9]*)?$", "examples": ["equals", "recall@5", "latency"]},
            {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"type": "string"}, "metric": _METRIC},
                "allOf": cases,
            },
        ]
    }
    schema["properties"]["scorers"]["items"] = {"$ref": "#/$defs/Scorer"}
    return {"$schema": DRAFT, "title": "Evaluation suite", **_untitled(schema), "$defs": _untitled(parts)}


_METRIC = {"type": "string", "minLength": 1, "maxLength": 200, "description": "Name of the metric that it gives."}


def _scorer(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    made = plugins.load(SOCKET, name)
    schema = made.Model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    for part in definitions.values():
        _describe(part, part.get("description", ""))
    for model in made.Model.__mro__:
        _describe(schema, inspect.getdoc(model) or "")
    schema["description"] = (inspect.getdoc(made) or "").partition("\n")[0]
    schema.setdefault("properties", {}).update({"type": {"type": "string"}, "metric": _METRIC})
    # `recall@5` says k by itself
    schema["required"] = ["type", *(field for field in schema.get("required", ()) if field != "k")]
    return schema, definitions


def _describe(schema: dict[str, Any], doc: str) -> None:
    """Give each property what the docstring says of it, where nothing is said yet."""
    for name, told in _told(doc).items():
        field = schema.get("properties", {}).get("schema" if name == "json_schema" else name)
        if field is not None:
            field.setdefault("description", told)
    if "description" in schema:
        schema["description"] = schema["description"].partition("\n")[0]


def _told(doc: str) -> dict[str, str]:
    """Name -> text of the sections `Args` and `Attributes` of a docstring."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in doc.splitlines():
        if not line.startswith(" "):
            inside = line in ("Args:", "Attributes:") or (inside and not line)
        elif inside and (entry := re.match(r" {4}(\w+): (.+)", line)):
            name = entry[1]
            found.setdefault(name, entry[2])
        elif inside and name and line.startswith(" " * 8) and name in found:
            found[name] += " " + line.strip()
    return found


_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""What pydantic writes as bounds of a number that it checks by a function first -> what JSON Schema calls them."""


def _untitled(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, and with bounds that JSON Schema knows."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
        named = {_BOUNDS.get(key, key) if type(value) in (int, float) else key: value for key, value in kept.items()}
        return {key: _untitled(value) for key, value in named.items()}
    return [_untitled(part) for part in schema] if isinstance(schema, list) else schema


def schema_text() -> str:
    """The schema as the published file has it."""
    return json.dumps(suite_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
