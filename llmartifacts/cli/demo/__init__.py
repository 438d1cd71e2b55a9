"""`demo`: the whole story on real input, in a temporary directory, offline.

knowledge  the documentation strings of the standard library, as passages
story      the steps
service    the example service, in a process of its own
screen     how it is told
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from llmartifacts.cli.command import START, command
from llmartifacts.cli.context import Session
from llmartifacts.errors import Conflict


@command(
    "demo",
    panel=START,
    examples=("demo", "demo --keep /tmp/story"),
    shape='{"seconds", "recall": {reference: number}, "answers": [Answer], "steps": [{"step", "code", "checked"}]}',
)
def demo(
    session: Session,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Tell it in this new directory and keep that, registry and all."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Serve without FastAPI even if it is installed.")] = False,
) -> None:
    """The whole story in a temporary directory: log, compare, promote, serve, a mistake, and back in one call."""
    from llmartifacts.cli.demo.screen import Screen
    from llmartifacts.cli.demo.story import Story

    screen = Screen(session.out)
    with _folder(keep) as folder, _cache(folder / "cache"):
        told = Story(folder, screen, plain=plain, kept=keep is not None).tell()
    if session.out.json:
        session.out.document(told)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty directory, gone afterwards unless it is to be kept."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="llmartifacts-demo-", ignore_cleanup_errors=True) as made:
            yield Path(made).resolve()
        return
    folder = keep.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{keep} is not an empty directory", field="--keep", next_step="Name another, or empty it.")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


@contextmanager
def _cache(place: Path) -> Iterator[None]:
    """Keep the user's cache out of it: what is resolved meanwhile is cached in this place."""
    name = "LLMARTIFACTS_CACHE"
    before = os.environ.get(name)
    os.environ[name] = str(place)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
