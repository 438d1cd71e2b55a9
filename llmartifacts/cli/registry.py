"""`init`: the registry itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from llmartifacts.cli.command import START, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN
from llmartifacts.cli.starter import starter as find_starter
from llmartifacts.errors import Conflict, InvalidInput

_STARTER = ("templates", "eval_suites", "policies")


@command(
    "init",
    panel=START,
    examples=("init", "init --starter", "init /srv/registry"),
    shape='{"location": text, "project": text, "copied": [text]}',
)
def init(
    session: Session,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="Directory to make.", show_default=".llmartifacts")
    ] = None,
    starter: Annotated[
        bool, typer.Option("--starter", help="Also copy templates/, eval_suites/ and policies/ to start from, here.")
    ] = False,
) -> None:
    """Make a registry: a directory with a database and files."""
    from llmartifacts.connect import DIRECTORY
    from llmartifacts.connect import init as make

    place = path or session.options.registry or DIRECTORY
    if "://" in place:
        raise InvalidInput(f"{place} is an address, and init makes a directory", field="path", next_step="Name a path.")
    sources = [_free(folder) for folder in (_STARTER if starter else ())]
    with make(place, project=session.options.project) as registry:
        made = {"location": registry.backend.location, "project": registry.project}
    copied = [path for source in sources for path in _copy(source)]
    out = session.out

    def text() -> None:
        out.line(("made ", GOOD), (place, NAME))
        for source in sources:
            out.line(("copied ", GOOD), (f"{source.name}/", NAME))
        first = "support-agent templates/support_agent.yaml" if starter else "hello hello.j2"
        out.line(("next: ", FAINT), f"llmartifacts log prompt {first}")
        if Path(place).resolve() != Path(DIRECTORY).resolve():
            out.line(("      ", FAINT), f"from elsewhere: --registry {place}, or LLMARTIFACTS_REGISTRY")
        if _names_another(place):
            out.line(("note: ", WARN), "later commands use $LLMARTIFACTS_REGISTRY, which names another registry")

    out.result({**made, "copied": copied}, text)


def _names_another(place: str) -> bool:
    """Whether `$LLMARTIFACTS_REGISTRY` is set, and to another place."""
    named = os.environ.get("LLMARTIFACTS_REGISTRY", "")
    return bool(named) and ("://" in named or Path(named).resolve() != Path(place).resolve())


def _free(folder: str) -> Path:
    """The starter folder of a name that is still free here."""
    if Path(folder).exists():
        raise Conflict(
            f"there is a {folder}/ here already", field="--starter", next_step="Move it, or leave out --starter."
        )
    return find_starter(folder)


def _copy(source: Path) -> list[str]:
    shutil.copytree(source, source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return sorted(p.as_posix() for p in Path(source.name).rglob("*") if p.is_file())
