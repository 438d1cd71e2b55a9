"""`lock`, `install`: what a service starts from, written down and laid out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.command import SERVE, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.gc import length
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.cli.plain import version_text
from llmartifacts.cli.progress import measured
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import short
from llmartifacts.records.lock import FILE_NAME, Lockfile
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.reference import Reference
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.runtime.lockfile import Difference


LeaseOption = Annotated[
    str | None,
    typer.Option(
        "--lease",
        metavar="TIME",
        help="Hold what the lockfile names for this long, such as 90d: no gc rule removes it.",
    ),
]
HolderOption = Annotated[
    str | None,
    typer.Option("--holder", metavar="NAME", help="Who holds it; else named after the lockfile and its folder."),
]


def _hold(session: Session, locked: Lockfile, path: Path, lease: str | None, holder: str | None) -> None:
    """Take the lease on what a lockfile names, or renew it."""
    lasts = length(lease, "--lease")
    if lasts is None:
        return
    project = None if locked.project == DEFAULT_PROJECT else locked.project
    named = [Reference(one.name, project, number=one.number, digest=one.digest) for one in locked.components.values()]
    with session.open() as registry:
        registry.lease(named, holder=holder or f"{path.resolve().parent.name}/{path.name}", length=lasts)


@command(
    "lock",
    panel=SERVE,
    examples=(
        "lock app.service:Support",
        "lock agent=support-agent:prod kb=support-kb:prod",
        "lock --check",
        "lock --upgrade kb --dry-run",
        "lock --check --lease 90d",
    ),
    shape='{"path": text, "written": bool, "lockfile": Lockfile, "differences": [Difference]}',
)
def lock(
    session: Session,
    spec: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPEC", help="package.module:Class, or role=reference …; not with --upgrade."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if the lockfile is behind.")
    ] = False,
    upgrade: Annotated[
        list[str] | None, typer.Option("--upgrade", metavar="NAME", help="Move this component only. Repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; show what would change.")] = False,
    bundle: Annotated[
        str | None, typer.Option("--bundle", metavar="REF", help="Bundle whose roles are the fields of SPEC.")
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="ALIAS", help="Selector of references that have none.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The lockfile.")] = Path(FILE_NAME),
    lease: LeaseOption = None,
    holder: HolderOption = None,
) -> None:
    """Write down the exact versions that a service resolves to."""
    from llmartifacts.runtime import lockfile as lockfiles

    _refuse_mixtures(bool(spec), check, bool(upgrade), dry_run)
    if spec:
        before = lockfiles.read(output) if check or output.exists() else None
        made, moved = _from_spec(session, spec, before, bundle, alias)
    else:
        made, moved = _from_lockfile(session, lockfiles.read(output), upgrade or [])
    writes = not (check or dry_run)
    if writes:
        lockfiles.write(made, output)
    if not dry_run:
        _hold(session, made, output, lease, holder)
    data = {"path": str(output), "written": writes, "lockfile": made, "differences": moved or []}
    told = "wrote " if writes else "checked " if check else "not written: "
    session.out.result(data, lambda: _show(session.out, output, made, moved, told))
    if check and moved:
        raise typer.Exit(wire.REFUSED)


def _from_spec(
    session: Session, words: list[str], before: Lockfile | None, bundle: str | None, alias: str | None
) -> tuple[Lockfile, list[Difference] | None]:
    """What a spec resolves to now, and what of it moved; None if there was no lockfile."""
    from llmartifacts.runtime import lockfile as lockfiles
    from llmartifacts.runtime.spec import parse_spec_text

    spec = parse_spec_text(words)
    with session.open() as registry:
        made = lockfiles.lock(spec, registry, bundle=bundle, alias=alias)
    return made, None if before is None else lockfiles.differences(before, made)


def _from_lockfile(session: Session, before: Lockfile, names: list[str]) -> tuple[Lockfile, list[Difference]]:
    """The lockfile with the named components moved, or as it is; and what moved."""
    from llmartifacts.runtime import lockfile as lockfiles

    with session.open() as registry:
        if not names:
            return before, lockfiles.check(before, registry)
        made = lockfiles.upgrade(before, registry, names)
    return made, lockfiles.differences(before, made)


def _refuse_mixtures(spec: bool, check: bool, upgrade: bool, dry_run: bool) -> None:
    if spec and upgrade:
        raise InvalidInput("--upgrade takes the spec from the lockfile", field="SPEC", next_step="Leave out SPEC.")
    if check and upgrade:
        raise InvalidInput("--check and --upgrade exclude each other", field="--check", next_step="Give one of them.")
    if not (spec or check or upgrade):
        raise InvalidInput(
            "no spec was given",
            field="SPEC",
            next_step="Write package.module:Class or role=reference …, or --check, or --upgrade NAME.",
        )
    if check and dry_run:
        raise InvalidInput("--check writes nothing by itself", field="--dry-run", next_step="Leave out --dry-run.")


def _show(out: Output, path: Path, made: Lockfile, moved: list[Difference] | None, told: str) -> None:
    out.line(
        (told, GOOD if told == "wrote " else FAINT),
        (str(path), NAME),
        f"  {counted(len(made.components), 'component')}, project {made.project}, revision {made.revision}",
    )
    out.table(
        (
            Column("name", NAME),
            Column("reference", wraps=True),
            Column("version"),
            Column("digest", FAINT, optional=True),
            Column("size", right=True),
        ),
        [
            (name, c.reference, version_text(c.number), f"sha256:{short(c.digest)}", size(c.size))
            for name, c in made.components.items()
        ],
    )
    if moved == []:
        out.line(("nothing moved", GOOD))
    for one in moved or ():
        out.line((str(one), WARN if one.error is None else BAD))
    if told == "checked " and moved:
        out.line(("to take it up: llmartifacts lock --upgrade NAME", FAINT))


@command(
    "install",
    panel=SERVE,
    examples=("install", "install --to /srv/support", "install --frozen deploy/llmartifacts.lock"),
    shape='{"lockfile": text, "directory": text or null, "components": [name], "bytes": number}',
)
def install(
    session: Session,
    lockfile: Annotated[Path, typer.Argument(metavar="LOCKFILE", help="What `lock` wrote.")] = Path(FILE_NAME),
    frozen: Annotated[
        bool, typer.Option("--frozen", help="From the cache alone; the registry is not touched.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Make a folder there that a service can start from.")
    ] = None,
    lease: LeaseOption = None,
    holder: HolderOption = None,
) -> None:
    """Fetch and verify all that a lockfile names."""
    if frozen and lease is not None:
        raise InvalidInput("--frozen does not touch the registry", field="--lease", next_step="Leave out --lease.")
    from llmartifacts.runtime import lockfile as lockfiles

    wanted = lockfiles.read(lockfile)
    out = session.out
    label = f"installing {lockfile}"
    if frozen:
        with measured(out, label) as progress:
            count = lockfiles.install(wanted, None, to, frozen=True, progress=progress)
    else:
        with session.open() as registry, measured(out, label) as progress:
            count = lockfiles.install(wanted, registry, to, progress=progress)
        _hold(session, wanted, lockfile, lease, holder)
    data = {
        "lockfile": str(lockfile),
        "directory": None if to is None else str(to),
        "components": list(wanted.components),
        "bytes": count,
    }

    def text() -> None:
        where = (str(to), NAME) if to is not None else ("the cache", "")
        out.line(("installed ", GOOD), f"{counted(len(wanted.components), 'component')}, {size(count)}, into ", where)
        if to is not None:
            out.line((f"a service starts from it: Resolver(…, lockfile={str(to)!r}, frozen=True)", FAINT))

    out.result(data, text)
