"""`init`, `verify`, `stats`: the registry itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.command import KEEP, START, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, Column
from llmartifacts.cli.plain import plain
from llmartifacts.cli.starter import starter as find_starter
from llmartifacts.errors import Conflict, InvalidInput
from llmartifacts.records.wording import counted, size

_STARTER = ("templates", "eval_suites")


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
        bool, typer.Option("--starter", help="Also copy templates/ and eval_suites/ worth starting from, here.")
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

    out.result({**made, "copied": copied}, text)


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


@command(
    "verify",
    panel=KEEP,
    examples=("verify", "verify --read-data"),
    shape='Verification, with "ok"; each problem {"code", "message", "digest", "file", "versions", "hint", …}',
)
def verify(
    session: Session,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and hash every stored byte.")] = False,
) -> None:
    """Check that everything the versions need is there and right; exit code 5 if not."""
    out = session.out
    label = "reading and hashing every stored byte" if read_data else "checking that every file is there"
    with session.open() as registry, out.working(label):
        found = registry.verify(read_data=read_data)

    def text() -> None:
        done = "read and hashed" if read_data else "looked up"
        out.line(f"{counted(found.versions, 'version')}, {counted(found.blobs, 'blob')} {done}")
        if found.ok:
            out.line(("all well", GOOD), "" if read_data else ("; --read-data also reads every byte", FAINT))
            return
        out.line((f"{len(found.problems)} damaged", BAD))
        for problem in found.problems:
            tell(problem, out, as_result=True)

    out.result({"ok": found.ok, **plain(found)}, text)
    if not found.ok:
        raise typer.Exit(wire.DAMAGED)


@command("stats", panel=KEEP, examples=("stats",), shape="Stats; all sizes in bytes")
def stats(session: Session) -> None:
    """Sizes: what the versions hold, and what is stored for it."""
    with session.open() as registry:
        found = registry.stats()
    out = session.out

    def text() -> None:
        out.table(
            (
                Column("collection", NAME, wraps=True),
                Column("kind", optional=True),
                Column("versions", right=True),
                Column("logical", right=True),
                Column("stored", right=True),
            ),
            [(c.name, c.kind, str(c.versions), size(c.logical), size(c.stored)) for c in found.collections],
        )
        if found.collections:
            out.line()
        out.fields(
            (
                ("logical", size(found.logical)),
                ("stored", f"{size(found.stored)} in {counted(found.blobs, 'blob')} and the manifests"),
                ("database", size(found.database)),
            ),
            indent=0,
        )

    out.result(found, text)
