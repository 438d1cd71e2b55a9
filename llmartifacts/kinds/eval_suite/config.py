"""The fields of a suite: as people write them, and as a manifest keeps them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from llmartifacts.errors import InvalidReference
from llmartifacts.kinds.base import Config
from llmartifacts.records.canonical import MAX_INTEGER
from llmartifacts.records.evidence import MIN_SAMPLES
from llmartifacts.records.names import check_name, is_alias
from llmartifacts.records.reference import Reference

BASELINE = "prod"
NO_BASELINE = "none"
MAX_NAME = 200
MAX_DESCRIPTION = 16_384
MAX_SCORERS = 200

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def _named(text: str) -> str:
    try:
        return check_name(text)
    except InvalidReference as error:
        raise ValueError(f"{error.message}; {error.hint()}") from None


def _referring(text: str) -> str:
    try:
        return str(Reference.parse(text).or_latest())
    except InvalidReference as error:
        raise ValueError(f"{error.message}; {error.hint()}") from None


def _baseline(text: str | None) -> str | None:
    if text is None or text == NO_BASELINE:
        return None
    if ":" in text or "@" in text:
        return _referring(text)
    if not is_alias(text):
        raise ValueError(f"{text!r:.80} is neither an alias, nor a reference with a selector, nor none")
    return text


def _dotted(text: str) -> str:
    if not _DOTTED.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not package.module:name")
    return text


def _printable(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise ValueError(f"{text!r:.80} is not printable text without spaces at its ends")
    return text


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.40} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("the number is too large") from None


Name = Annotated[StrictStr, AfterValidator(_named)]
ReferenceText = Annotated[StrictStr, AfterValidator(_referring)]
Label = Annotated[StrictStr, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
Dotted = Annotated[StrictStr, Field(max_length=500), AfterValidator(_dotted)]
Number = Annotated[float, BeforeValidator(_number)]


class Retrieve(Config):
    """Outputs of a vector index: what it finds for each item.

    Attributes:
        embeddings: A LangChain `Embeddings` object, class or function that makes one, as `package.module:name`; it
            embeds each item's input.
        column: Column of the dataset that holds the query vectors; instead of `embeddings`.
        k: Neighbours; by default 10, or as many as the scorers look at.
    """

    embeddings: Dotted | None = None
    column: Label | None = None
    k: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Retrieve:
        if (self.embeddings is None) == (self.column is None):
            raise ValueError("give embeddings, or the column that holds the query vectors: one of them")
        return self


class Outputs(Config):
    """How the output for an item is made: exactly one of these.

    Attributes:
        runnable: `package.module:name` of a function `f(value, item) -> output`, or of a LangChain Runnable.
        recorded: A JSON Lines file, or a `files` reference, with `id`, `output` and perhaps `repeat` and `seconds`.
        retrieve: For a vector index.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    runnable: Dotted | None = None
    recorded: Annotated[StrictStr, Field(min_length=1, max_length=1024), AfterValidator(_printable)] | None = None
    retrieve: Retrieve | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Outputs:
        if sum(way is not None for way in (self.runnable, self.recorded, self.retrieve)) != 1:
            raise ValueError("give exactly one of runnable, recorded and retrieve")
        return self


class ThresholdFields(Config):
    """What must hold of one metric.

    Attributes:
        margin: The target may be worse than the baseline by at most so much of the metric's scale.
        min_samples: Items, or clusters of items, without which nothing passes.
        at_least: The metric must reach this, on its own scale; where more is better.
        at_most: The metric must not be above this; where less is better.
        estimate: `bound` holds the bound of the mean against `at_least` or `at_most`, `point` the mean itself.
    """

    margin: Annotated[Number, Field(gt=0, lt=1)] | None = None
    min_samples: Annotated[StrictInt, Field(ge=1, le=MAX_INTEGER)] = MIN_SAMPLES
    at_least: Number | None = None
    at_most: Number | None = None
    estimate: Literal["bound", "point"] = "bound"

    @model_validator(mode="after")
    def _says_something(self) -> ThresholdFields:
        if self.margin is None and self.at_least is None and self.at_most is None:
            raise ValueError("a threshold has a margin, at_least or at_most")
        return self


class SuiteFields(Config):
    """What a suite and its config have in common; see `EvalSuite`."""

    name: Name
    dataset: ReferenceText
    split: Label | None = None
    target: ReferenceText | None = None
    baseline: Annotated[StrictStr | None, AfterValidator(_baseline)] = BASELINE
    outputs: Outputs | None = None
    repeats: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    seed: Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER)] = 0
    timeout: Annotated[Number, Field(gt=0, le=86_400)] = 60.0
    cluster: Label | None = None
    on_error: Literal["error", "worst"] = "error"
    thresholds: dict[Label, ThresholdFields] = Field(default_factory=dict)


class SuiteDocument(SuiteFields):
    """A suite as people write it; scorers are checked by their own classes."""

    description: Annotated[StrictStr, Field(max_length=MAX_DESCRIPTION)] = ""
    concurrency: Annotated[StrictInt, Field(ge=1, le=256)] = 4
    scorers: Annotated[list[Any], Field(min_length=1, max_length=MAX_SCORERS)]


class ScorerEntry(Config):
    """One scorer of a config.

    Attributes:
        metric: Name of the metric it gives.
        type: Its name in the socket `scorers`.
        definition: Counts changes of what it computes.
        options: Every option that changes a score, defaults written out.
        lo: Lower end of its scale.
        hi: Upper end.
        higher_is_better: Whether more is better.
        source: SHA-256 of the code that it runs, for a function or a judge.
    """

    metric: Label
    type: Label
    definition: Annotated[StrictInt, Field(ge=1, le=MAX_INTEGER)]
    options: dict[StrictStr, Any]
    lo: Number
    hi: Number
    higher_is_better: StrictBool
    source: Annotated[StrictStr, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _has_a_scale(self) -> ScorerEntry:
        if not self.lo < self.hi:
            raise ValueError(f"the scale from {self.lo} to {self.hi} is empty")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; without a source, it is left out."""
        made = self.model_dump()
        if self.source is None:
            del made["source"]
        return made


class SuiteConfig(SuiteFields):
    """Config of an `eval_suite`; description and concurrency lie outside it, and so outside identity."""

    scorers: Annotated[list[ScorerEntry], Field(min_length=1, max_length=MAX_SCORERS)]
