"""Base of the scorers that run what others wrote, in processes with limits."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, StrictInt

from llmartifacts.evals.scorers.base import Options, OptionScorer
from llmartifacts.kinds.eval_suite.config import Number
from llmartifacts.limits import Workers

Seconds = Annotated[Number, Field(gt=0, le=3600)]
Megabytes = Annotated[StrictInt, Field(ge=128, le=1_000_000)]


class ScorerFailed(Exception):
    """The score could not be computed; the message begins with why: timeout, memory, crash or exception."""


IsolatedT = TypeVar("IsolatedT", bound=Options)


class IsolatedScorer(OptionScorer[IsolatedT]):
    """A scorer with processes of its own: as many as threads use it at a time, started when they are needed."""

    isolated: ClassVar[bool] = True
    _workers: Workers

    def prepare(self) -> None:
        """Declare the limits; nothing is started."""
        self._workers = Workers(seconds=self.seconds(), memory_bytes=self.megabytes() * 1_000_000)

    def seconds(self) -> float:
        """Time of one call."""
        return 5.0

    def megabytes(self) -> int:
        """Address space of a process."""
        return 2000

    def call(self, function: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a function in a process.

        Raises:
            ScorerFailed: It gave no answer.
        """
        outcome = self._workers.call(function, *arguments, keywords=keywords)
        if outcome.error is not None:
            raise ScorerFailed(f"{outcome.error}: {outcome.message}")
        return outcome.value

    def close(self) -> None:
        """End the processes."""
        self._workers.close()
