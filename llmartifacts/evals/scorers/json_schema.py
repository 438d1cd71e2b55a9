"""Scorer `json-schema`: 1 if the output fits a JSON Schema, else 0.

An output that is text is read as strict JSON (no duplicate keys, no NaN); what is none does not fit, an empty text
included. Code fences and prose around the JSON do not fit either: who parses the answer would fail too. An output that
is JSON already is taken as it is; no output (None) is null. `format` is not checked, and no `$ref` leaves the schema.
The draft is the one that `$schema` names, else 2020-12. A schema may hold patterns, so it is checked in a process with
limits.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Field

from llmartifacts.errors import InvalidManifest, InvalidValue
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.scorers.isolated import IsolatedScorer, Seconds
from llmartifacts.evals.scorers.places import MAX_OUTPUT, inside
from llmartifacts.evals.scorers.texts import FieldOptions
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.records.canonical import canonical_bytes, parse_json

_FITS = "llmartifacts.evals.scorers.fitting:fits"
_DRAFTS = ("Draft202012Validator", "Draft201909Validator", "Draft7Validator", "Draft6Validator", "Draft4Validator")


class SchemaOptions(FieldOptions):
    """Options of `json-schema`.

    Attributes:
        json_schema: The schema; in a suite its name is `schema`.
        seconds: How long one check may take.
    """

    json_schema: Annotated[dict[str, Any], Field(alias="schema", min_length=1)]
    seconds: Seconds = 5.0


class JsonSchema(IsolatedScorer[SchemaOptions]):
    """Whether the output fits a JSON Schema."""

    type = "json-schema"
    Model = SchemaOptions

    def prepare(self) -> None:
        """Check the schema against its draft."""
        super().prepare()
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for

        given = self.given.json_schema
        validator = cast(Any, validator_for)(given, default=None if "$schema" in given else Draft202012Validator)
        if getattr(validator, "__name__", "") not in _DRAFTS:
            raise InvalidValue(f"{given.get('$schema')!r:.80} is no draft that is known", field="schema.$schema")
        try:
            cast(Any, validator).check_schema(given, format_checker=validator.FORMAT_CHECKER)
        except SchemaError as error:
            where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.path)
            raise InvalidValue(f"no JSON Schema: {error.message:.200}", field=f"schema{where}") from None
        except (RecursionError, OverflowError) as error:  # a pattern is read, or the schema itself is nested too deep
            raise InvalidValue(f"no JSON Schema that can be read: {error}", field="schema") from None
        self._schema, self._draft = canonical_bytes(given).decode(), validator.__name__

    def seconds(self) -> float:
        """As the suite says."""
        return self.given.seconds

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float:
        """1 if it fits, 0 if not."""
        found = inside(answer.output, self.given.field)
        if isinstance(found, str):
            try:
                found = parse_json(found.strip(), max_bytes=MAX_OUTPUT)
            except InvalidManifest:
                return 0.0
        return float(self.call(_FITS, self._schema, self._draft, found))
