"""Where the registry of a service is, and the one that is held open between two looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from llmartifacts.connect import DIRECTORY, connect, find, home_project
from llmartifacts.errors import NotFound
from llmartifacts.registry import Registry
from llmartifacts.runtime.task import Task

IDENTITY_SECONDS = 1.0
"""Seconds to wait for a registry to say which one it is: it is good to know, and nothing is given up for it."""
_MAX_IDENTITY = 256


@dataclass(frozen=True)
class Place:
    """Where the registry is: an open one, a location, or None for what `connect()` finds."""

    given: Registry | str | os.PathLike[str] | None = None

    @contextmanager
    def opened(self) -> Iterator[Registry]:
        """The registry, open; closed again if it was opened here."""
        held = Held(self)
        try:
            yield held.registry()
        finally:
            held.drop()

    def prepare(self) -> None:
        """Import what speaks to it: on a busy machine that takes seconds, which are no silence of the registry."""
        if isinstance(self.given, Registry):
            return
        remote = self.locations()[0].startswith(("http://", "https://"))
        import_module("llmartifacts.client.backend" if remote else "llmartifacts.versioning.embedded")

    @property
    def project(self) -> str:
        """What names without a prefix mean."""
        if isinstance(self.given, Registry):
            return self.given.project
        return home_project()

    def locations(self) -> list[str]:
        """Where it is, absolute; where it has gone and nobody said where it was, every place it can have been."""
        if isinstance(self.given, Registry):
            return [_absolute(self.given.backend.location)]
        try:
            return [_absolute(find(self.given))]
        except NotFound:
            here = Path.cwd()
            return [_absolute(folder / DIRECTORY) for folder in (here, *here.parents)]


class Held:
    """A registry that stays open from one use to the next; one that was given open is left as it is.

    Args:
        place: Where it is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._opened: Registry | None = None

    def registry(self) -> Registry:
        """The registry, opened if it is not. Raises what `connect` raises."""
        given = self._place.given
        if isinstance(given, Registry):
            return given
        if self._opened is None:
            self._opened = connect(given)
        return self._opened

    def drop(self) -> None:
        """Close it, so that the next use opens it anew."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def forget(self) -> None:
        """Let go of it without closing it: a forked child has a copy of what is its parent's."""
        self._opened = None


def identity(registry: Registry, seconds: float = IDENTITY_SECONDS) -> str:
    """Which registry it is, by its own word; empty where it does not say so in a moment."""
    asking = Task(lambda _: registry.backend.identity(), "llmartifacts-identity").begin()
    asking.wait(seconds)
    asking.give_up()
    told = asking.result() if asking.ended and asking.error is None else ""
    return told if isinstance(told, str) and len(told) <= _MAX_IDENTITY and told.isprintable() else ""


def _absolute(location: str | os.PathLike[str]) -> str:
    text = os.fspath(location)
    return text if text.startswith(("http://", "https://")) else os.path.abspath(text)
