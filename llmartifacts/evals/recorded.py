"""Outputs that were made elsewhere and written down: a JSON Lines file, or a mapping."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmartifacts.errors import InvalidValue, LlmartifactsError, NotFound
from llmartifacts.evals.answers import plain_output
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.kinds.disk import AnyPath, find_regular, read_regular
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.names import near_names

MAX_BYTES = 512 * 1024 * 1024
_FIELDS = frozenset({"id", "output", "repeat", "seconds", "error"})
_FORM = (
    'Write one object a line: {"id": "q1", "output": "…"}; "repeat" counts from 0, "seconds" and "error" are optional.'
)


class Recorded:
    """Gives the output that is recorded for an item; an item without one is an error.

    Args:
        answers: Item id -> repeat, counted from 0 -> answer.
        told: What to call it.
        fields: Field of the suite that they come from, for messages.
    """

    batch = 1024
    takes_seed = False
    remarks: Sequence[str] = ()
    packages: Sequence[str] = ()
    identity: Mapping[str, Any] | None = None  # there is nothing to save: it is a record already

    def __init__(
        self, answers: Mapping[str, Mapping[int, Answer]], told: str, fields: str = "outputs.recorded"
    ) -> None:
        self._answers = answers
        self.told = told
        self._field = fields

    @classmethod
    def from_mapping(cls, outputs: Mapping[str, Any]) -> Recorded:
        """Recorded outputs from Python: item id -> output, one a repeat where several are asked for.

        Raises:
            InvalidValue: An output is no JSON.
        """
        plain = {str(item): plain_output(output) for item, output in outputs.items()}
        digest = hashlib.sha256(canonical_bytes(plain)).hexdigest()
        return cls({item: {0: Answer(o, None)} for item, o in plain.items()}, f"recorded sha256:{digest}", "outputs")

    @classmethod
    def from_file(cls, path: AnyPath, *, field: str = "outputs.recorded") -> Recorded:
        """Read a JSON Lines file.

        Raises:
            InvalidValue: A line is no output; it is named.
            NotFound: There is no such file.
        """
        return cls.from_bytes(read_regular(find_regular(path, field=field), MAX_BYTES, field=field), str(path), field)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str, field: str = "outputs.recorded") -> Recorded:
        """Read JSON Lines; arguments as in `from_file`."""
        if len(data) > MAX_BYTES:
            raise InvalidValue(f"more than {MAX_BYTES} bytes", field=field, origin=origin)
        answers: dict[str, dict[int, Answer]] = {}
        for where, body in _lines(data, origin, field):
            item, repeat, answer = _checked(body, where, field)
            if repeat in answers.setdefault(item, {}):
                raise InvalidValue(f"a second output of {item!r:.80}, repeat {repeat}", field=field, origin=where)
            answers[item][repeat] = answer
        if not answers:
            raise InvalidValue("there is no output", field=field, origin=origin, next_step=_FORM)
        return cls(answers, f"recorded sha256:{hashlib.sha256(data).hexdigest()}", field)

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Check that it is a record of these items. Raises `NotFound` if it has none of them."""
        if not any(item.id in self._answers for item in items):
            raise NotFound(
                f"none of the {len(items)} items has a recorded output",
                what="item",
                name=items[0].id,
                near=near_names(items[0].id, self._answers),
                field=self._field,
                next_step=f"Outputs are found by the id of the item, such as {items[0].id!r:.80}.",
            )

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """What is recorded for some items."""
        return [self._one(item.id, repeat) for item in items]

    def _one(self, item: str, repeat: int) -> Answer:
        found = self._answers.get(item)
        if found is None:
            return Answer(error="no output is recorded for it")
        return found.get(repeat) or Answer(error=f"no output is recorded for its repeat {repeat}")


def _lines(data: bytes, origin: str, field: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{origin}, line {number}"
        try:
            yield where, parse_json(line, origin=where)
        except LlmartifactsError as error:
            raise InvalidValue.of(error, field=field, next_step=_FORM) from None


def _checked(body: Any, where: str, field: str) -> tuple[str, int, Answer]:
    problem = ""
    if not isinstance(body, dict) or not isinstance(body.get("id"), str):
        problem = "the line names no item"
    elif unknown := body.keys() - _FIELDS:
        problem = f"unknown field {min(unknown)!r:.80}"
    elif ("output" in body and body["output"] is not None) == bool(body.get("error")):
        problem = "a line has either an output or an error"
    elif not isinstance(body.get("error", ""), str):
        problem = "error is no text"
    elif type(body.get("repeat", 0)) is not int or body.get("repeat", 0) < 0:
        problem = "repeat is no count from 0"
    elif type(body.get("seconds", 0)) not in (int, float) or body.get("seconds", 0) < 0:
        problem = "seconds is no time"
    if problem:
        raise InvalidValue(problem, field=field, origin=where, next_step=_FORM)
    seconds = float(body["seconds"]) if "seconds" in body else None
    answer = Answer(body.get("output"), seconds, body.get("error") or "")
    return body["id"], body.get("repeat", 0), answer
