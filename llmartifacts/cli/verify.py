"""`verify` and `repair`: whether everything is there and right, and making it so."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts import wire
from llmartifacts.cli import external as outside
from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD, FAINT, GOOD, WARN, Output
from llmartifacts.cli.plain import plain
from llmartifacts.cli.progress import measured
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmartifacts.errors import LlmartifactsError
    from llmartifacts.records.verification import Repaired, Verification

_PROBLEM = 'each problem {"code", "message", "digest", "file", "versions", "needed_by", "hint", …}'


@command(
    "verify",
    panel=KEEP,
    examples=("verify", "verify --read-data", "verify --read-data-subset 3/20", "verify support-kb --read-data"),
    shape=f'Verification, with "ok", and external where that was read; {_PROBLEM}',
)
def verify(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Collection whose bytes are checked, instead of all.")
    ] = None,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and hash every stored byte.")] = False,
    subset: Annotated[
        str,
        typer.Option(
            "--read-data-subset",
            metavar="N/T",
            help="Read and hash a part: 3/20 is the third of twenty, which together are all; 5% or 50G draw one.",
        ),
    ] = "",
    external: outside.ExternalOption = None,
) -> None:
    """Check that everything the versions need is there and right.

    Nothing is changed. Exit code 5 where something is damaged or missing, 10 where all that is wrong is that a newer
    release wrote it, 4 where somebody holds the registry, 3 where there is none.
    """
    out = session.out
    reads = read_data or bool(subset)
    label = "reading and hashing stored bytes" if reads else "checking that every file is there"
    with ExitStack() as stack:
        registry = stack.enter_context(session.open())
        progress = None
        if reads:
            progress = stack.enter_context(measured(out, label))
        else:
            stack.enter_context(out.working(label))
        found = registry.verify(name, read_data=reads, subset=subset, progress=progress)
        elsewhere = outside.check(registry, name, external, read_data=read_data)

    def text() -> None:
        _tell_found(out, found)
        outside.say(out, elsewhere)

    out.result({"ok": found.ok, **plain(found), **outside.plain(elsewhere)}, text)
    if not found.ok:
        raise typer.Exit(_code(found.problems))
    outside.refuse(elsewhere, external)


def _tell_found(out: Output, found: Verification) -> None:
    packs = f", {counted(found.packs, 'pack')}" if found.packs else ""
    done = "looked up"
    if found.read_data:
        done = f"looked up, part {found.part} of the bytes read and hashed" if found.part else "read and hashed"
    out.line(f"{counted(found.versions, 'version')}, {counted(found.blobs, 'blob')}{packs} {done}")
    if found.ok:
        out.line(("all well", GOOD), "" if found.read_data else ("; --read-data also reads every byte", FAINT))
        return
    out.line((f"{len(found.problems) + found.more:,} damaged", BAD))
    _tell_problems(out, found.problems, found.more)
    out.line(("llmartifacts repair mends what can be had elsewhere: --from URL", FAINT))


@command(
    "repair",
    panel=KEEP,
    examples=(
        "repair --dry-run",
        "repair --from https://registry.example.com",
        "repair --from ../other/.llmartifacts",
        "repair --from s3://bucket/blobs",
    ),
    shape=f'Repaired, with "ok"; {_PROBLEM}',
)
def repair(
    session: Session,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="Where damaged and missing bytes may be had: another registry (a directory or https://…), or a place"
            " of bytes (a folder, s3://…).",
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done, and what cannot be had.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look only for what is missing or cut short; read no data.")
    ] = False,
) -> None:
    """Make damaged and missing bytes right again, in place.

    Everything is taken by its SHA-256, and verified. It may be interrupted and called again. Exit code 5 where
    something is still wrong. Damaged records of the database are restored from a backup.
    """
    out = session.out
    with session.open() as registry, _opened(source, session) as there, measured(out, "looking for damage") as progress:
        done = registry.repair(there, dry_run=dry_run, read_data=not quick, progress=progress)
    out.result({"ok": done.ok, **plain(done)}, lambda: _tell_repaired(out, done))
    if not done.ok:
        raise typer.Exit(_code(done.problems))


def _tell_repaired(out: Output, done: Repaired) -> None:
    verb = "would be" if done.dry_run else "was"
    plural = "would be" if done.dry_run else "were"
    lines = [
        (done.blobs, f"{counted(done.blobs, 'blob')} ({size(done.size)}) {plural if done.blobs != 1 else verb} mended"),
        (done.packs, f"{counted(done.packs, 'pack')} {plural if done.packs != 1 else verb} mended"),
        (done.removed, f"{counted(done.removed, 'damaged pack')} that no version needs {plural} removed"),
        (done.manifests, f"{counted(done.manifests, 'manifest')} {plural if done.manifests != 1 else verb} put back"),
        (int(done.index), f"the index of chunks {verb} made anew"),
    ]
    for count, line in lines:
        if count:
            out.line((line, GOOD if not done.dry_run else WARN))
    if done.ok:
        out.line(("nothing is wrong", GOOD) if not any(count for count, _ in lines) else ("all well", GOOD))
        return
    out.line((f"{len(done.problems) + done.more:,} still damaged", BAD))
    _tell_problems(out, done.problems, done.more)
    if not done.source:
        out.line(("--from URL names another registry, or a copy of the bytes, that may have them", FAINT))


def _tell_problems(out: Output, problems: Sequence[LlmartifactsError], more: int) -> None:
    for problem in problems:
        tell(problem, out, as_result=True)
    if more:
        out.line((f"and {more:,} more", BAD))


def _code(problems: Sequence[LlmartifactsError]) -> int:
    """The gravest of what was found, damage first."""
    codes = {wire.exit_code(problem) for problem in problems}
    order = (wire.DAMAGED, wire.NEWER_FORMAT, wire.UNREACHABLE)
    return next((code for code in order if code in codes), wire.DAMAGED)


@contextmanager
def _opened(source: str, session: Session) -> Iterator[Any]:
    """The other place, closed at the end: a registry, or a store of bytes alone."""
    if not source:
        yield None
        return
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    folder = Path(source)
    if scheme in ("http", "https") or (not scheme and _is_registry(folder)):
        from llmartifacts.connect import connect

        with connect(source, project=session.options.project) as registry:
            yield registry
        return
    import tempfile

    from llmartifacts.versioning.place import open_place

    with tempfile.TemporaryDirectory(prefix="llmartifacts-") as scratch:
        yield open_place(source, Path(scratch))


def _is_registry(folder: Path) -> bool:
    return (folder / "registry.db").exists()
