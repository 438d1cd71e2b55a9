"""The published schema of policies is the one that the model gives, and takes what the program takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llmartifacts.gates.policy import Policy
from llmartifacts.gates.schema import json_schema


def test_the_published_schema_is_up_to_date(repository: Path) -> None:
    published = json.loads((repository / "schemas" / "policy.schema.json").read_text())
    assert published == json_schema(), "run: python -m llmartifacts.gates.schema > schemas/policy.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


def test_the_starter_policy_fits_schema_and_program(repository: Path) -> None:
    data = (repository / "policies" / "production.yaml").read_bytes()
    jsonschema.validate(yaml.safe_load(data), json_schema())
    assert Policy.from_yaml(data, origin="production.yaml").protected == ("prod",)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "x", "aliases": {"prod": {"kinds": {"prompt": "approvals"}}}},
        {"name": "x", "aliases": {"prod": {"kinds": {"prompt": [{"approvals": {}, "ticket": {}}]}}}},
        {"name": "x", "aliases": {"prod": {"kinds": {"prompt": [{"any_of": []}]}}}},
        {"name": "x", "aliases": {"prod": {"gates": []}}},
    ],
)
def test_what_the_program_refuses_the_schema_refuses_too(body: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, json_schema())
    with pytest.raises(Exception, match=r"\S"):
        Policy.of(body)
