"""What all bodies share: strict models, records in and out, and typed errors for what does not fit."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from llmartifacts import errors
from llmartifacts.errors import InvalidInput, LlmartifactsError, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.canonical import parse_json

R = TypeVar("R")
T = TypeVar("T")
M = TypeVar("M", bound="Model")

MAX_BODY = 64 * 1024 * 1024
"""Bytes of one JSON body, both ways."""
MAX_PARTS = 3_000_000
"""Values of one JSON body, about: each takes memory, however short it is written, and more where it is wrong."""
MAX_WRONG = 100_000
"""Wrong fields of one body that are told apart."""
MAX_UNKNOWN = 1_000
"""Fields of one object beyond those that it may have: to tell of each would take the memory."""


class Model(BaseModel):
    """A body or the query of a request."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + MAX_UNKNOWN:
            raise PydanticCustomError("extra_forbidden", "unknown field")
        return value

    @classmethod
    def known(cls, **values: Any) -> Self:
        """One of values that were checked before."""
        made: Self = cls.model_construct(**values)  # type: ignore[assignment]
        return made

    def to_bytes(self) -> bytes:
        """The JSON of it."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True)

    def plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class Query(Model):
    """Query parameters; what is None is not sent."""

    def pairs(self) -> dict[str, str | list[str]]:
        """Name -> text, or the texts of one that is repeated; what has its default is left out."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        return {name: _query_text(value) for name, value in given.items()}


class Body(Model, Generic[R]):
    """The body that stands for a record of class `R`. Its fields have the record's names."""

    RECORD: ClassVar[type[Any]]

    @classmethod
    def of(cls, record: R) -> Self:
        """The body of a record of this side; it was checked when it was made."""
        return cls.known(**{name: out(getattr(record, name)) for name, (out, _) in _plan(cls).items()})

    def record(self) -> R:
        """The record; equal to the one that was sent."""
        made: R = self.RECORD(**{name: back(getattr(self, name)) for name, (_, back) in _plan(type(self)).items()})
        return made


Many = Annotated[tuple[T, ...], Strict(False), Field(fail_fast=True)]
"""A JSON list, looked at up to the first member that is wrong: to tell of a million of them would take the memory."""


class Page(Model, Generic[T]):
    """One page of a list.

    Attributes:
        items: Its members.
        next: What `after` or `before` must say for the page that follows; None where this is the last.
    """

    items: Many[T]
    next: str | None = None

    @classmethod
    def made(cls, items: Sequence[T], limit: int, key: Callable[[T], object]) -> Self:
        """A page of models.

        Args:
            items: Its members.
            limit: How many were asked for; fewer are the last page.
            key: Gives what `after` or `before` takes of a member.
        """
        more = len(items) >= limit and bool(items)
        return cls.known(items=tuple(items), next=str(key(items[-1])) if more else None)


Convert = Callable[[Any], Any]


@cache
def _plan(cls: type[Body[Any]]) -> dict[str, tuple[Convert, Convert]]:
    """Field -> how its value becomes a body's, and how it becomes a record's again."""
    return {name: _converters(info.annotation) for name, info in cls.model_fields.items()}


def _same(value: Any) -> Any:
    return value


def _converters(kind: Any) -> tuple[Convert, Convert]:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, Body):
        return kind.of, kind.record
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [_converters(one) for one in members if one is not type(None)]
        both = next((pair for pair in inner if pair[0] is not _same), (_same, _same))
        return both if both[0] is _same else (_unless_none(both[0]), _unless_none(both[1]))
    if origin is tuple and len(members) == 2 and members[1] is Ellipsis:
        out, back = _converters(members[0])
        return (tuple, tuple) if out is _same else (_each(out), _each(back))
    if origin is dict:
        out, back = _converters(members[1])
        return (dict, dict) if out is _same else (_values(out), _values(back))
    return _same, _same


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _each(convert: Convert) -> Convert:
    return lambda values: tuple([convert(value) for value in values])


def _values(convert: Convert) -> Convert:
    return lambda values: {key: convert(value) for key, value in values.items()}


def _query_text(value: Any) -> str | list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def json_parts(data: bytes) -> int:
    """How many values a JSON text has at most: what stands between them, counted."""
    return sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))


def read_body(
    model: type[M], data: bytes, *, field: str = "body", max_bytes: int = MAX_BODY, max_parts: int = MAX_PARTS
) -> M:
    """Read the JSON body of a request, refusing whatever two readers could take differently.

    Args:
        model: What it must be.
        data: Its bytes.
        field: Name of the whole in messages.
        max_bytes: Limit of its length.
        max_parts: Limit of `json_parts`.

    Raises:
        InvalidManifest: Not JSON, duplicate keys, NaN, or nested too deep.
        TooLarge: Longer than the limit, or of so many values that they take many times as many bytes.
        InvalidInput: A field is missing, unknown or of the wrong form; the field is named.
    """
    if json_parts(data) > max_parts:
        raise TooLarge(f"the {field} has more than {max_parts:,} values", field=field)
    return check(model, parse_json(data, field=field, max_bytes=max_bytes))


def check(model: type[M], value: Any, *, origin: str = "") -> M:
    """A model of plain JSON. Raises as `read_body`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refusal(_told(error), origin=origin) from None


def _told(error: ValidationError) -> list[Any]:
    """What pydantic found wrong. Raises `InvalidInput`: so much that to spell it out would take the memory."""
    if error.error_count() > MAX_WRONG:
        raise InvalidInput(f"{error.error_count():,} fields are wrong or unknown", field="body") from None
    return error.errors(include_url=False)


def read_answer(model: type[M], value: Any, *, origin: str = "") -> M:
    """A model of the JSON of an answer; fields that a newer server added are left out. Raises as `read_body`."""
    try:
        return model.model_validate(value, extra="ignore")
    except ValidationError as error:
        raise refusal(_told(error), origin=origin) from None


def refusal(told: list[Any] | list[Mapping[str, Any]], *, origin: str = "", field: str = "body") -> LlmartifactsError:
    """What pydantic found wrong, as a typed error that names the first field and says how many more there are.

    Args:
        told: What `ValidationError.errors()` gives.
        origin: Where the value came from.
        field: Name of the whole.
    """
    first = told[0]
    where = field_name(first["loc"]) or field
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    context = first.get("ctx") or {}
    cls = _TYPED.get(str(first["type"]), InvalidInput)
    if first["type"] == "extra_forbidden":
        message = f"unknown field{more}"
    elif first["type"] == "missing":
        message = f"the field is missing{more}"
    else:
        message = f"{context.get('message') or first['msg']}{more}"
    return cls(message, field=where, origin=origin, next_step=str(context.get("next_step", "")))


def field_name(place: tuple[int | str, ...]) -> str:
    """The place of a value, as people write it: `drafts[3].manifest.kind`."""
    made = ""
    for step in place:
        made += f"[{step}]" if isinstance(step, int) else f"{'.' if made else ''}{shown(step)[1:-1]}"
    return made


_TYPED: dict[str, type[LlmartifactsError]] = {
    cls.code: cls
    for cls in (
        errors.InvalidInput,
        errors.InvalidReference,
        errors.InvalidPath,
        errors.InvalidManifest,
        errors.InvalidValue,
        errors.TooLarge,
        errors.NewerFormat,
    )
}

MAX_PAGE = 1_000
"""Members of one page."""
DEFAULT_PAGE = 200

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A number of things or of bytes."""
