"""Types of fields, each with exactly one JSON form, and schemas that say what the validators take."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, GetPydanticSchema, StringConstraints
from pydantic_core import PydanticCustomError, core_schema

from llmartifacts.errors import InvalidInput, InvalidManifest, LlmartifactsError
from llmartifacts.records.arguments import MAX_COUNT, MAX_LINE, MAX_TEXT, check_line, check_text
from llmartifacts.records.canonical import check_json
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.names import (
    MAX_TAG_VALUE,
    MAX_TAGS,
    check_alias,
    check_name,
    check_tag,
    is_alias,
)
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import parse_time, to_text
from llmartifacts.wire.bodies.base import MAX_PAGE

T = TypeVar("T")

NAME_PATTERN = r"^(?![sS][hH][aA]256$)[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ALIAS_PATTERN = r"^(?!v[0-9]+$)[a-z0-9][a-z0-9._-]{0,127}$"
SETTABLE_PATTERN = r"^(?!v[0-9]+$|latest$)[a-z0-9][a-z0-9._-]{0,127}$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
REFERENCE_PATTERN = (
    r"^((?![sS][hH][aA]256/)[A-Za-z0-9][A-Za-z0-9._-]{0,127}/)?(?![sS][hH][aA]256(:|@|$))[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
    r"(:(v[1-9][0-9]{0,8}|(?!v[0-9]+(@|$))[a-z0-9][a-z0-9._-]{0,127}))?(@sha256:[0-9a-f]{64})?$"
)
TIME_PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z$"
)
TEXT_PATTERN = "^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]*$"
LINE_PATTERN = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
BASE64_PATTERN = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
MAX_REFERENCE = 128 + 1 + 128 + 1 + 128 + 1 + 71
_TIME = re.compile(TIME_PATTERN[:-1])


def told(check: Callable[..., T], *values: Any, **options: Any) -> T:
    """What a validator of the records makes of a value; its typed error keeps its class, its message and its hint."""
    try:
        return check(*values, **options)
    except LlmartifactsError as error:
        raise PydanticCustomError(
            error.code,
            "{message}",
            {"message": error.message, "next_step": error.next_step or error.default_hint},
        ) from None


def text_form(
    check: Callable[[str], Any], write: Callable[[Any], str] | None, *, made: type = str, **schema: Any
) -> GetPydanticSchema:
    """The JSON form of a value that is text there: how it is read, how it is written, and what the schema says.

    Args:
        check: Makes the value of its text.
        write: Makes the text of the value; None where it is the text.
        made: Class of the value; one that is made already, as no JSON can be, is taken as it is.
        **schema: What the schema says besides.
    """

    def read(value: Any) -> Any:
        if made is not str and isinstance(value, made):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("invalid_input", "{message}", {"message": f"a {type(value).__name__} is no text"})
        return told(check, value)

    writer = None if write is None else core_schema.plain_serializer_function_ser_schema(write, when_used="json")
    return GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(read, serialization=writer),
        lambda _schema, _handler: {"type": "string", **schema},
    )


def _reference(text: str) -> Reference:
    return Reference.parse(text)


def _alias(text: str) -> str:
    if not is_alias(text):
        check_alias(text)
    return text


def _time(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise InvalidInput("no time in UTC", next_step="Write it like 2026-03-03T09:00:00.000000Z.")
    return parse_time(text)


def _bytes(text: str) -> bytes:
    try:
        made = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        made = None
    if made is None or base64.b64encode(made).decode() != text:
        raise InvalidInput("no base64, in the standard alphabet with padding")
    return made


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


Ref = Annotated[
    Reference,
    text_form(
        _reference,
        str,
        made=Reference,
        pattern=REFERENCE_PATTERN,
        maxLength=MAX_REFERENCE,
        examples=["support-agent:prod"],
    ),
]
"""A reference, as its text."""
DigestText = Annotated[
    Digest,
    text_form(parse_digest, None, pattern=DIGEST_PATTERN, examples=["sha256:" + "0" * 64], minLength=71, maxLength=71),
]
Name = Annotated[str, text_form(check_name, None, pattern=NAME_PATTERN, minLength=1, maxLength=128)]
"""The name of a project, a collection or a kind."""
AnyAlias = Annotated[str, text_form(_alias, None, pattern=ALIAS_PATTERN, minLength=1, maxLength=128)]
"""An alias, `latest` included."""
Alias = Annotated[str, text_form(check_alias, None, pattern=SETTABLE_PATTERN, minLength=1, maxLength=128)]
"""An alias that can be set."""
Time = Annotated[datetime, text_form(_time, to_text, made=datetime, format="date-time", pattern=TIME_PATTERN)]
"""RFC 3339 in UTC, with microseconds where written."""
Bytes = Annotated[bytes, text_form(_bytes, _encoded, made=bytes, contentEncoding="base64", pattern=BASE64_PATTERN)]
Text = Annotated[
    str,
    text_form(lambda text: check_text(text, field="text"), None, pattern=TEXT_PATTERN, maxLength=MAX_TEXT),
]
"""What people write for people: a message, a reason."""
Line = Annotated[
    str,
    text_form(lambda text: check_line(text, field="text"), None, pattern=LINE_PATTERN, maxLength=MAX_LINE),
]
"""A short printable text on one line."""


def _filled(text: str) -> str:
    if not check_text(text, field="reason").strip():
        raise InvalidInput("a reason is needed", next_step="Say why.")
    return text


Reason = Annotated[str, text_form(_filled, None, pattern=TEXT_PATTERN, minLength=1, maxLength=MAX_TEXT)]
"""Why; never empty."""
Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$", max_length=64)]
"""Id of a git commit; empty if unknown."""
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$", max_length=64)]
Id = Annotated[
    str, text_form(lambda text: check_line(text, field="id"), None, pattern=LINE_PATTERN, minLength=1, maxLength=160)
]
"""The id of a promotion or of an approval."""
Limit = Annotated[int, Field(ge=1, le=MAX_COUNT)]


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise PydanticCustomError("invalid_input", "{message}", {"message": "tags are an object of texts"})
    if len(value) > MAX_TAGS:
        raise PydanticCustomError("too_large", "{message}", {"message": f"{len(value)} tags, the limit is {MAX_TAGS}"})
    return dict(told(check_tag, key, one) for key, one in value.items())


TAGS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "maxProperties": MAX_TAGS,
    "propertyNames": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
    "additionalProperties": {"type": "string", "maxLength": MAX_TAG_VALUE, "pattern": LINE_PATTERN},
}
Tags = Annotated[
    dict[str, str],
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(_tags),
        lambda _schema, _handler: dict(TAGS_SCHEMA),
    ),
]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("invalid_input", "{message}", {"message": "not an object"})
    try:
        check_json(value)
    except InvalidManifest as error:
        inner = {"message": f"{error.message} (at {error.field})" if error.field else error.message}
        raise PydanticCustomError("invalid_manifest", "{message}", {**inner, "next_step": error.next_step}) from None
    return value


Object = Annotated[
    dict[str, Any],
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(_object),
        lambda _schema, _handler: {"type": "object", "additionalProperties": True},
    ),
]
"""A JSON object of any content that has one form."""


def _digits(value: Any) -> Any:
    """A number of a query: digits only, where pydantic would take `1_0` and ` 1 ` too."""
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value):
            raise PydanticCustomError("invalid_input", "{message}", {"message": "no whole number"})
        return int(value)
    return value


_DIGITS = re.compile("0|[1-9][0-9]{0,15}")


def _flag(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


QueryLimit = Annotated[int, BeforeValidator(_digits), Field(ge=1, le=MAX_COUNT)]
"""At most so many, in a query string."""
QueryPage = Annotated[int, BeforeValidator(_digits), Field(ge=1, le=MAX_PAGE)]
"""Members of one page, in a query string."""
QueryCount = Annotated[int, BeforeValidator(_digits), Field(ge=0, le=2**53 - 1)]
QueryFlag = Annotated[bool, BeforeValidator(_flag)]
"""`true` or `false`, in a query string."""
