"""The JSON Schema of policies, for editors and other tools; published as `schemas/policy.schema.json`.

    python -m llmartifacts.gates.schema > schemas/policy.schema.json

It says which gates come with the package; a policy may also name gates of plug-ins, so it does not forbid others.
"""

from __future__ import annotations

import json
from typing import Any

from llmartifacts.gates.policy import MAX_GATES, PolicyBody
from llmartifacts.plugins import BUILT_IN


def json_schema() -> dict[str, Any]:
    """The schema, as plain JSON."""
    made = PolicyBody.model_json_schema()
    gate = {"$ref": "#/$defs/Gate"}
    gates = {"type": "array", "items": gate, "maxItems": MAX_GATES}
    made["$defs"]["Gate"] = {
        "description": "A gate by its name, or its name with its options.",
        "anyOf": [
            {"type": "string", "examples": sorted(BUILT_IN["gates"])},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {
                    "all_of": {**gates, "minItems": 1, "description": "Passes if all of them pass."},
                    "any_of": {**gates, "minItems": 1, "description": "Passes if one of them passes."},
                    **{name: {"type": ["object", "null"]} for name in sorted(BUILT_IN["gates"])},
                },
            },
        ],
    }
    rules = made["$defs"]["AliasRules"]["properties"]
    rules["kinds"] = {
        "type": "object",
        "description": "Kind, or * for every kind without gates of its own -> the gates that must all pass.",
        "additionalProperties": gates,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "llmartifacts/policy/1",
        **made,
        "title": "Policy",
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
