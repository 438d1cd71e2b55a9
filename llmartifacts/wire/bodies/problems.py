"""Errors inside answers: what a check found, and what took the place of a reference that could not be read."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from llmartifacts.errors import LlmartifactsError
from llmartifacts.wire.bodies.base import Body, Many, Model
from llmartifacts.wire.bodies.fields import Object
from llmartifacts.wire.errors import error_from_item, error_item


class Problem(Body[LlmartifactsError]):
    """One error.

    Attributes:
        code: What it is, such as `not_found`; stable.
        message: What happened, one sentence.
        detail: Its data fields, and `hint`: what to do next.
    """

    RECORD: ClassVar[type[Any]] = LlmartifactsError

    code: str
    message: str
    detail: Object

    @classmethod
    def of(cls, record: LlmartifactsError) -> Self:
        """The body of an error."""
        return cls.known(**error_item(record))

    def record(self) -> LlmartifactsError:
        """The typed error."""
        return error_from_item({"code": self.code, "message": self.message, "detail": self.detail})


class Problems(Model):
    """The body of every answer that is no success.

    Attributes:
        errors: What is wrong; the first is the one to show.
    """

    errors: Many[Problem]
