"""What keeps a service from starting: every component with its own error, told at once."""

from __future__ import annotations

import copy
import dataclasses
import threading
from typing import Any

from llmartifacts.errors import (
    InvalidReference,
    InvalidValue,
    LlmartifactsError,
    NotFound,
    ResolutionError,
    WrongKind,
    Yanked,
)
from llmartifacts.runtime.spec import Spec


class Failures:
    """Errors by component or field, the first of each; may be filled from several threads."""

    def __init__(self, spec: Spec[Any]) -> None:
        self._spec = spec
        self._errors: dict[str, LlmartifactsError] = {}
        self._lock = threading.Lock()

    def add(self, name: str, error: BaseException) -> None:
        """Note an error of a component, a field or a role."""
        with self._lock:
            self._errors.setdefault(name, typed(error))

    def __contains__(self, name: str) -> bool:
        return name in self._errors

    def named(self) -> dict[str, LlmartifactsError]:
        """The errors so far, in the spec's order."""
        with self._lock:
            order = {name: i for i, name in enumerate([*self._spec.wanted, *self._spec.fields])}
            return dict(sorted(self._errors.items(), key=lambda item: order.get(item[0], len(order))))

    def refuse(self) -> None:
        """Raise `ResolutionError` if there is any."""
        errors = self.named()
        if errors:
            raise ResolutionError(f"{self._spec.title} cannot start", failures=errors)

    def so_far(self, error: BaseException) -> ResolutionError:
        """As `all`, for somebody who waits no longer: what is noted here stays as it is."""
        made = Failures(self._spec)
        for name, known in self.named().items():
            made.add(name, known)
        return made.all(error)

    def all(self, error: BaseException) -> ResolutionError:
        """One error of the whole set: said of every component that has none of its own."""
        for name in self._spec.wanted:
            self.add(name, error)
        return ResolutionError(f"{self._spec.title} cannot start", failures=self.named())


def not_swapped(error: LlmartifactsError) -> LlmartifactsError:
    """The error of a set, said of a service that runs, and goes on with what it has."""
    if isinstance(error, ResolutionError):
        return dataclasses.replace(
            error, message=error.message.replace(" cannot start", " cannot be brought up to date")
        )
    return error


def typed(error: BaseException) -> LlmartifactsError:
    """An error as one of this package's; a stranger's keeps its name and text."""
    if isinstance(error, LlmartifactsError):
        return error
    made = InvalidValue(f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made


def bare(error: LlmartifactsError) -> LlmartifactsError:
    """The same error without its traceback and its causes, which would keep alive whatever their frames hold.

    For an error that is kept, or raised in several threads.
    """
    made = copy.copy(error)
    if isinstance(made, ResolutionError):
        made = dataclasses.replace(made, failures={name: bare(inner) for name, inner in made.failures.items()})
    return made


def is_final(error: BaseException) -> bool:
    """Whether the registry has answered, and the answer is no: then an older set is not what was asked for.

    What is not there (an alias that was removed), withdrawn, of another kind, or asked for wrongly is final. What the
    registry cannot give now, or gives damaged, unreadable or misfitting, is not: the last-known-good set may stand in.
    """
    if isinstance(error, ResolutionError):
        return any(is_final(inner) for inner in error.failures.values())
    if isinstance(error, NotFound):
        return error.what != "registry"
    return isinstance(error, WrongKind | Yanked | InvalidReference)
