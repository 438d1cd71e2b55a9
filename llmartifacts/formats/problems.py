"""What is wrong with a document that somebody wrote, told all at once: field, line, near names.

Example:
    >>> found = [Problem(("steps", 0), "is empty", "Write a step.")]
    >>> raise_problems(found, lines={("steps", 0): 4}, origin="a.yaml")
    Traceback (most recent call last):
        ...
    llmartifacts.errors.InvalidValue: is empty (field steps[0], a.yaml, line 4)
    hint: Write a step.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.formats.yaml import Lines, Place, line_of, located, place_text
from llmartifacts.records.names import did_you_mean
from llmartifacts.records.wording import printable

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")

MAX_PLACE = 200
MAX_TOLD = 10
"""Problems that one error lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: Where it stands in the document.
        message: What is wrong with it, without its name.
        next_step: How to mend it; empty if that is plain.
    """

    place: Place
    message: str
    next_step: str = ""

    @classmethod
    def of(cls, error: LlmartifactsError, place: Place) -> Problem:
        """What an error says; the field that it names lies below `place`."""
        inside = tuple(part for part in error.field.replace("[", ".").replace("]", "").split(".") if part)
        return cls((*place, *(int(p) if p.isdigit() else p for p in inside)), error.message, error.hint())


def raise_problems(problems: Iterable[Problem], *, lines: Lines | None = None, origin: str = "") -> None:
    """Refuse, if there is a problem: one error that tells all, in the order of their lines.

    Args:
        problems: What was found.
        lines: Line of each place, if the document was text.
        origin: Where it came from.

    Raises:
        InvalidValue: There is one. Its field, line and hint are those of the first; the message tells the others.
    """
    known = lines or {}
    ordered = sorted(dict.fromkeys(problems), key=lambda p: line_of(known, p.place) or 0)
    if not ordered:
        return
    first, *more = ordered
    told = [first.message]
    for other in more[: MAX_TOLD - 1]:
        line = line_of(known, other.place)
        where = _where(other.place)
        hint = f" ({other.next_step.rstrip('.')})" if other.next_step else ""
        told.append(f"{where}{f', line {line}' if line else ''}: {other.message}{hint}")
    if len(more) >= MAX_TOLD:
        told.append(f"and {len(more) - MAX_TOLD + 1} more")
    raise InvalidValue(
        "; ".join(told),
        field=_where(first.place),
        origin=located(origin, line_of(known, first.place)),
        next_step=first.next_step,
    )


def model_problems(error: ValidationError, model: type[BaseModel], *, below: Place = ()) -> Iterator[Problem]:
    """What pydantic found, in our words; a misspelt field comes with the near names.

    Args:
        error: What `model.model_validate` raised.
        model: The model.
        below: Where in the document the model stands.
    """
    for found in error.errors(include_url=False, include_input=False):
        place = (*below, *found["loc"])
        name = str(found["loc"][-1]) if found["loc"] else ""
        if found["type"] == "extra_forbidden":
            known = _fields_at(model, found["loc"][:-1])
            hint = did_you_mean(name, known, f"Known here: {', '.join(known)}." if known else "")
            yield Problem(place, f"there is no field {name!r:.80}", hint)
        elif found["type"] == "missing":
            # Its line is that of what lacks it.
            yield Problem(place, f"{name} is missing")
        else:
            yield Problem(place, _lowered(found["msg"].removeprefix("Value error, ")))


def try_model(document: Any, model: type[M], *, what: str = "document") -> tuple[M | None, list[Problem]]:
    """A document as its model, or what keeps it from being one.

    Args:
        document: Plain JSON.
        model: A pydantic model; what it forbids is a problem.
        what: What people call such a document.
    """
    from pydantic import ValidationError

    if not isinstance(document, Mapping):
        return None, [Problem((), f"a {what} is an object with fields")]
    try:
        return model.model_validate(dict(document)), []
    except ValidationError as error:
        return None, list(model_problems(error, model))


def check_model(
    document: Any, model: type[M], *, lines: Lines | None = None, origin: str = "", what: str = "document"
) -> M:
    """A document as its model.

    Args:
        document: Plain JSON.
        model: A pydantic model.
        lines: Line of each place, as `read_yaml_with_lines` gives them.
        origin: Where it came from.
        what: What people call such a document.

    Raises:
        InvalidValue: It does not fit; see `raise_problems`.
    """
    made, problems = try_model(document, model, what=what)
    raise_problems(problems, lines=lines, origin=origin)
    assert made is not None  # noqa: S101 - what is no model has problems
    return made


def _where(place: Place) -> str:
    """A place for people; whoever wrote the keys may have written anything."""
    text = printable(place_text(place))
    return text if len(text) <= MAX_PLACE else text[: MAX_PLACE - 1] + "…"


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Names of the fields that a model, or what lies in it at a place, takes."""
    here = [model]
    for part in loc:
        inner: list[Any] = []
        for one in here:
            by_alias = {field.alias or name: field for name, field in one.model_fields.items()}
            if isinstance(part, str) and part in by_alias:
                inner += _models_in(by_alias[part].annotation)
        here = inner or here  # an index, or a key of a mapping: the models are known already
    return sorted({field.alias or name for one in here for name, field in one.model_fields.items()})


def _models_in(annotation: Any) -> list[Any]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
