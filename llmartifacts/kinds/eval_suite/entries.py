"""Scorers of a suite: from what people write to the entry that a config keeps.

An *entry* is `{"metric", "type", "definition", "options", "lo", "hi", "higher_is_better"[, "source"]}`: all that
decides a score. Its digest is the identity of the scorer in a report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from llmartifacts import plugins
from llmartifacts.errors import InvalidInput, InvalidValue, LlmartifactsError, NotFound
from llmartifacts.records.canonical import canonical_bytes, plain_json
from llmartifacts.records.digest import Digest, digest_of

SOCKET = "scorers"
MAX_TYPE = 200
"""Characters of a scorer's name."""
_SHORT = re.compile(r"([^@\s]+)(?:@([0-9]{1,9}))?", re.ASCII)


def read_scorer(written: Any) -> dict[str, Any]:
    """The entry of a scorer as people write it.

    Args:
        written: `equals`, `recall@5`, or a mapping with `type` (either of these), `metric` and the scorer's options.

    Raises:
        InvalidValue: There is no such scorer, or its options do not fit; the field is named within the scorer.
    """
    fields = {"type": written} if isinstance(written, str) else written
    if not isinstance(fields, Mapping):
        hint = "Write a name such as recall@5, or {type: equals, …}."
        raise InvalidValue(f"a {type(written).__name__} is no scorer", next_step=hint)
    if "type" not in fields:
        raise InvalidValue("type is missing", field="type", next_step=f"One of: {', '.join(plugins.names(SOCKET))}.")
    given = plain_json(fields)
    options = {name: value for name, value in given.items() if name not in ("type", "metric")}
    name, metric = given["type"], given.get("metric")
    short = _SHORT.fullmatch(name) if isinstance(name, str) else None
    if short is None or len(name) > MAX_TYPE:
        raise InvalidValue(f"{name!r:.80} is no name of a scorer", field="type")
    if metric is not None and not isinstance(metric, str):
        raise InvalidValue("metric is not text", field="metric")
    if short[2] is not None:
        if "k" in options:
            raise InvalidValue(f"k is said twice, here and in {name!r:.80}", field="k")
        options["k"] = int(short[2])
    return entry_of(_made(short[1], metric, options))


def entry_of(scorer: Any) -> dict[str, Any]:
    """The entry of a scorer object.

    Raises:
        InvalidValue: What it says of itself is no entry: its scale is empty, an option is no JSON.
    """
    entry: dict[str, Any] = {
        "metric": scorer.metric,
        "type": scorer.type,
        "definition": scorer.definition,
        "options": plain_json(dict(scorer.options()), field="options"),
        "lo": float(scorer.lo),
        "hi": float(scorer.hi),
        "higher_is_better": bool(scorer.higher_is_better),
    }
    if not (math.isfinite(entry["lo"]) and math.isfinite(entry["hi"]) and entry["lo"] < entry["hi"]):
        raise InvalidValue(f"the scale from {entry['lo']} to {entry['hi']} is empty", field="lo")
    if source := getattr(scorer, "source", ""):
        entry["source"] = source
    return entry


def compares(entry: Mapping[str, Any]) -> bool:
    """Whether the scorer of an entry, which is installed here, needs the baseline's answers."""
    return bool(getattr(plugins.load(SOCKET, entry["type"]), "compares", False))


def digest_of_entry(entry: Mapping[str, Any]) -> Digest:
    """The identity of a scorer: the digest of its entry's canonical bytes."""
    return digest_of(canonical_bytes(plain_json(entry)))


def _made(name: str, metric: str | None, options: Mapping[str, Any]) -> Any:
    try:
        made = plugins.load(SOCKET, name)
    except NotFound as error:
        raise InvalidValue(error.message, field="type", next_step=error.hint()) from None
    except InvalidInput as error:
        raise InvalidValue(error.message, field="type") from None
    try:
        return made(metric=metric, **options)
    except LlmartifactsError as error:
        hint = error.hint() or (f"Write {name}@5." if error.field == "k" else "")
        raise InvalidValue.of(error, next_step=hint) from None
    except (TypeError, ValueError) as error:  # a class of another package
        raise InvalidValue(f"{name}: {error}") from None
