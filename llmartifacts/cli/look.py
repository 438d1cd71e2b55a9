"""`ls`, `show`, `diff`, `pull`: what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli import stamp
from llmartifacts.cli.arguments import ReferenceArgument, bare_name, pairs
from llmartifacts.cli.command import LOOK, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output, Piece, joined
from llmartifacts.cli.plain import minute, version_text, when
from llmartifacts.cli.progress import metered
from llmartifacts.errors import InvalidInput, LlmartifactsError, NotFound, Removed
from llmartifacts.records.digest import short
from llmartifacts.records.names import version_number
from llmartifacts.records.reference import Reference
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.records.backend import Storage
    from llmartifacts.records.lineage import Lineage
    from llmartifacts.records.manifest import Manifest
    from llmartifacts.records.version import Collection, Found, Version
    from llmartifacts.registry import Registry

_SHOWN_FILES = 20
_STYLES = {"added": GOOD, "removed": BAD, "changed": WARN}
_TEXT_STYLES = {"+": GOOD, "-": BAD, "@": "cyan"}


def kind_summary(manifest: Manifest) -> str:
    """One line on a version's content; a kind that is not installed says so."""
    return _said(manifest)[0]


def _said(manifest: Manifest) -> tuple[str, str]:
    """What its kind says of a version: one line, and all that people read of it, such as a template."""
    from llmartifacts.packing import kind_named

    try:
        kind = kind_named(manifest.kind)
        roles = [c.role for c in manifest.components[:_SHOWN_FILES]]
        parts = f"parts: {', '.join(roles)}; " if roles else ""
        return parts + kind.summary(manifest.config), kind.text(manifest.config)
    except NotFound:
        return f"(the kind {manifest.kind!r} is not installed here)", ""
    except LlmartifactsError as error:  # of another release, or of a plug-in that is broken: the rest is shown
        return f"({error})", ""


# --- ls


@command(
    "ls",
    panel=LOOK,
    examples=("ls", "ls --kind prompt", "ls agent --tag ticket=CHG-1042"),
    shape='{"collections": [Collection]}; with NAME {"versions": [Version]}, newest first',
)
def ls(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Collection whose versions to list.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only collections of this kind.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only versions with this label. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many versions.")] = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="vN", help="Only versions older than this one: the next page.")
    ] = None,
) -> None:
    """List collections, or the versions of one."""
    if name is None:
        if tag or before:
            raise InvalidInput("--tag and --before are for versions", field="NAME", next_step="Name the collection.")
        with session.open() as registry:
            collections = registry.collections(kind=kind)
        if kind is not None and not collections:
            _refuse_unknown_kind(kind)
        session.out.result({"collections": collections}, lambda: _list_collections(session.out, collections))
        return
    if kind is not None:
        raise InvalidInput("--kind is for the list of collections", field="--kind", next_step="Leave out the name.")
    bare_name(name, field="NAME", next_step=f"For one version: llmartifacts show {name}.")
    older = None if before is None else _number(before)
    with session.open() as registry:
        versions = registry.versions(name, tags=pairs(tag or (), "--tag") or None, limit=limit, before=older)
    session.out.result({"versions": versions}, lambda: _list_versions(session.out, versions, limit))


def _refuse_unknown_kind(kind: str) -> None:
    from llmartifacts.packing import kind_named

    kind_named(kind)


def _number(text: str) -> int:
    number = version_number(text)
    if number is None:
        raise InvalidInput(f"{text!r} is no version", field="--before", next_step="Write it like v12.")
    return number


def _list_collections(out: Output, collections: list[Collection]) -> None:
    if not collections:
        out.line("nothing here yet; ", ("llmartifacts log KIND NAME SOURCE…", NAME), " logs the first version")
        return
    out.table(
        (
            Column("name", NAME, wraps=True),
            Column("kind"),
            Column("versions", right=True, optional=True),
            Column("latest"),
            Column("aliases", GOOD, wraps=True),
            Column("since", FAINT, optional=True),
        ),
        [
            (
                c.name,
                c.kind,
                str(c.versions),
                version_text(c.latest),
                ", ".join(f"{alias} v{number}" for alias, number in c.aliases.items()),
                f"{c.created_at:%Y-%m-%d}",
            )
            for c in collections
        ],
    )


def _list_versions(out: Output, versions: list[Version], limit: int) -> None:
    if not versions:
        out.line("no version fits")
        return
    out.table(
        (
            Column("version", NAME),
            Column("logged, UTC", FAINT),
            Column("by", optional=True),
            Column("size", right=True, optional=True),
            Column("aliases", GOOD),
            Column("tags", shrinks=True, optional=True),
            Column("message", shrinks=True),
        ),
        [
            (version_text(v.number), minute(v.created_at), v.author, size(v.size), _marks(v), joined(v.tags), v.message)
            for v in versions
        ],
    )
    if len(versions) == limit and versions[-1].number > 1:
        out.line((f"older ones: --before v{versions[-1].number}", FAINT))


def _marks(version: Version) -> Piece:
    aliases = ", ".join(version.aliases)
    gone = ("erased" if version.remove_rule == "erase" else "removed") if version.removed_at else ""
    told = ", ".join(filter(None, (gone, "yanked" if version.yanked_at else "", aliases)))
    return (told, BAD) if told != aliases else aliases


# --- show


def _named_or_stamped(ctx: typer.Context, value: str | None) -> str | None:
    if value is None and not ctx.resilient_parsing and ctx.params.get("stamp_text") is None:
        raise typer.BadParameter("name a version, or give --stamp")
    return value


@command(
    "show",
    panel=LOOK,
    examples=("show agent", "show kb:prod --json", "show --stamp 'la1;default@r42;set=…'"),
    shape='{"version": Version, "summary": text, "manifest": Manifest, "storage": {path: Storage},'
    f' "lineage": {{"up": [Edge], "down": [Edge]}}}}; with --stamp {stamp.SHAPE}',
)
def show(
    session: Session,
    ref: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="name, name:alias, name:vN or name@sha256:…", callback=_named_or_stamped),
    ] = None,
    stamp_text: Annotated[
        str | None,
        typer.Option("--stamp", metavar="STAMP", help="What a service served: its stamp, or the log line that has it."),
    ] = None,
) -> None:
    """Show one version, or what a service's stamp names: what it is, where it came from, who moved it and why."""
    if stamp_text is not None:
        if ref is not None:
            raise InvalidInput("REF and --stamp exclude each other", field="--stamp", next_step="Give one of them.")
        stamp.show_stamp(session, stamp_text)
        return
    with session.open() as registry:
        try:
            found = registry.find(ref or "")
        except Removed as error:
            _show_removed(session, registry, ref or "", error)
            return
        graphs = {way: registry.lineage(found.version.pinned, way) for way in ("up", "down")}
        kept = [f for f in found.manifest.files if f.url is None][: None if session.out.json else _SHOWN_FILES]
        storage = dict(zip((f.path for f in kept), registry.backend.storage([f.blob for f in kept]), strict=True))
    summary, text = _said(found.manifest)
    near = {way: [edge for edge, _ in graph.steps(graph.root)] for way, graph in graphs.items()}
    data = {"version": found.version, "summary": summary, "manifest": found.manifest, "storage": storage}

    def shown() -> None:
        _show(session.out, found, summary, graphs, storage)
        if text:
            session.out.line("text")
            session.out.block(text)

    session.out.result({**data, "lineage": near}, shown)


def _show_removed(session: Session, registry: Registry, ref: str, error: Removed) -> None:
    """A version that was removed: all that is known of it still."""
    if error.number is None:
        raise error
    wanted = Reference.parse(ref)
    v = registry.versions(str(Reference(wanted.name, wanted.project)), limit=1, before=error.number + 1)[0]
    graphs = {way: registry.lineage(v.pinned, way) for way in ("up", "down")}
    near = {way: [edge for edge, _ in graph.steps(graph.root)] for way, graph in graphs.items()}

    def shown() -> None:
        out = session.out
        out.line((str(v), NAME), f"  {v.kind}", ("  removed", BAD))
        removed = "" if v.removed_at is None else f"{when(v.removed_at)} by {v.removed_by}, {v.remove_rule}"
        out.fields(
            (
                ("removed", removed),
                ("why", v.remove_reason),
                ("message", v.message),
                ("tags", joined(v.tags)),
                ("size", f"{size(v.size)} then, nothing now"),
                ("digest", v.digest),
                ("logged", f"{when(v.created_at)} by {v.author}"),
                ("run", v.run),
            )
        )
        for way, title in (("up", "came from"), ("down", "led to")):
            _show_edges(out, title, graphs[way])

    data = {"version": v, "summary": error.message, "manifest": None, "storage": {}, "lineage": near}
    session.out.result(data, shown)


def _show(out: Output, found: Found, summary: str, graphs: dict[str, Lineage], storage: Mapping[str, Storage]) -> None:
    v = found.version
    out.line((str(v), NAME), f"  {v.kind}")
    out.fields(
        (
            ("yanked", f"{when(v.yanked_at)}: {v.yank_reason}" if v.yanked_at else ""),
            ("content", summary),
            ("message", v.message),
            ("aliases", ", ".join(v.aliases)),
            ("tags", joined(v.tags)),
            ("size", size(v.size)),
            ("digest", v.digest),
            (
                "logged",
                f"{when(v.created_at)} by {v.author}" + (f" at commit {v.git_commit[:12]}" * bool(v.git_commit)),
            ),
            ("run", v.run),
        )
    )
    if found.manifest.components:
        out.line("parts")
        columns = (Column("role", NAME), Column("kind"), Column("digest", FAINT))
        out.table(columns, [(c.role, c.kind, f"sha256:{short(c.digest)}") for c in found.manifest.components], indent=2)
    _show_files(out, found.manifest, storage)
    for way, title in (("up", "came from"), ("down", "led to")):
        _show_edges(out, title, graphs[way])


def _show_files(out: Output, manifest: Manifest, storage: Mapping[str, Storage]) -> None:
    if not manifest.files:
        return
    out.line("files")
    rows = []
    for f in manifest.files[:_SHOWN_FILES]:
        kept = storage.get(f.path)
        dead = size(kept.dead) if kept and kept.dead else ""
        told = ("", "", "") if kept is None else (_form(kept.form), size(kept.stored), dead)
        rows.append((f.path, size(f.size), *told, f"sha256:{short(f.digest)}", f.url or ""))
    out.table(
        (
            Column("path", NAME, shrinks=True),
            Column("size", right=True),
            Column("as"),
            Column("stored", right=True),
            Column("dead", right=True, optional=True),
            Column("digest", FAINT, optional=True),
            Column("kept at", FAINT),
        ),
        rows,
        indent=2,
    )
    if len(manifest.files) > _SHOWN_FILES:
        out.line((f"  and {len(manifest.files) - _SHOWN_FILES} more: --json", FAINT))


def _form(form: str) -> Piece:
    return (form, BAD) if form in ("missing", "damaged") else form


def _show_edges(out: Output, title: str, graph: Lineage) -> None:
    steps = graph.steps(graph.root)
    if not steps:
        return
    out.line(title)
    columns = (Column("relation", FAINT), Column("version", NAME), Column("kind"))
    nodes = graph.nodes
    out.table(
        columns,
        [(e.told(graph.direction), nodes[n].label, nodes[n].kind) for e, n in steps],
        indent=2,
    )


# --- diff


@command(
    "diff",
    panel=LOOK,
    examples=("diff agent:v1 agent:v2", "diff agent:prod agent:staging"),
    shape='Diff; each change {"path", "before", "after", "op"}',
)
def diff(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="The first version.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The second version, of the same kind.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many changes.")] = 50,
) -> None:
    """Compare two versions of one kind, in the words of that kind."""
    out = session.out
    with session.open() as registry, out.working("comparing"):
        made = registry.diff(before, after)

    def text() -> None:
        if not made:
            out.line(f"{made.before} and {made.after} have the same content")
            return
        out.line((made.before, NAME), " -> ", (made.after, NAME), f"  {made.kind}")
        for change in made.changes[:limit]:
            out.line((str(change), _STYLES.get(change.op, "")))
        if (more := len(made.changes) - limit) > 0:
            out.line((f"and {counted(more, 'change')} more: --limit {len(made.changes)}, or --json", FAINT))
        for line in made.text.splitlines():
            out.block(line or " ", _TEXT_STYLES.get(line[:1], ""))
        if made.numbers:
            out.line((", ".join(f"{key}: {value:g}" for key, value in made.numbers.items()), FAINT))

    out.result(made, text)


# --- pull


@command(
    "pull",
    panel=LOOK,
    examples=("pull kb:prod", "pull kb:v5 ./kb", "pull weights --no-external"),
    shape='{"version": Version, "directory": text, "files": [text]}',
)
def pull(
    session: Session,
    ref: ReferenceArgument,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Empty or new directory.", show_default="./NAME-vN")
    ] = None,
    external: Annotated[
        bool,
        typer.Option("--external/--no-external", help="Fetch files that are kept outside too, or leave them out."),
    ] = True,
) -> None:
    """Write the verified files of a version into a directory."""
    out = session.out
    with session.open() as registry:
        version, total = _wanted(registry, ref)
        target = directory if directory is not None else Path(f"{version.name}-v{version.number}")
        with metered(registry, out, f"pulling {version}", total):
            written = registry.pull(version.pinned, target, external=external)
    files = [p.relative_to(target).as_posix() for p in written]
    count = sum(p.stat().st_size for p in written)

    def text() -> None:
        out.line((str(version), NAME), " -> ", (str(target), NAME), f"  {counted(len(files), 'file')}, {size(count)}")
        if version.yanked_at is not None:
            out.line((f"this version was withdrawn: {version.yank_reason}", WARN))

    out.result({"version": version, "directory": str(target), "files": files}, text)


def _wanted(registry: Registry, ref: str) -> tuple[Version, int]:
    found = registry.find(ref)
    return found.version, sum(f.size for f in found.manifest.files if f.url is None)
