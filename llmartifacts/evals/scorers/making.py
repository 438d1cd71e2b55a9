"""From the entry of a suite back to the scorer, which must be the one it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmartifacts import plugins
from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.evals.scorers.base import Scorer
from llmartifacts.kinds.eval_suite.entries import SOCKET, entry_of
from llmartifacts.records.canonical import plain_json

_CHANGED = {
    "definition": "Read the suite again from its file: it is then another version, and its scores new evidence.",
    "source": "The code was changed since the suite was read; read it again from its file, which gives a new version.",
}


def make(entry: Mapping[str, Any]) -> Scorer:
    """See `make_scorer`."""
    known = plain_json(entry)
    found = plugins.load(SOCKET, str(known.get("type")))
    try:
        made = cast(Scorer, found(metric=known["metric"], **known["options"]))
    except LlmartifactsError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValue(f"the entry of the scorer {known.get('type')!r:.80} does not fit: {error}") from None
    now = entry_of(made)
    for field in sorted(now.keys() | known.keys()):
        if now.get(field) != known.get(field):
            made.close()
            told = f"the scorer {known['metric']!r:.80} is not what the suite was read with: its {field} changed"
            raise InvalidValue(told, field=field, next_step=_CHANGED.get(field, _CHANGED["definition"]))
    return made


def make_all(entries: Iterable[Mapping[str, Any]]) -> list[Scorer]:
    """See `make_scorers`; if one cannot be made, those before it are closed."""
    made: list[Scorer] = []
    try:
        for entry in entries:
            made.append(make(entry))  # noqa: PERF401 - those before it are to be closed
    except BaseException:
        for scorer in made:
            scorer.close()
        raise
    if any(scorer.type == "judge" for scorer in made):
        from llmartifacts.evals.scorers.judge import share

        share(made)
    return made
