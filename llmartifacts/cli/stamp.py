"""`show --stamp`: a stamp from a log line, turned back into versions, moves and reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from llmartifacts import wire
from llmartifacts.cli.context import Session
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Output, Piece
from llmartifacts.cli.plain import plain, when
from llmartifacts.cli.promotion import why
from llmartifacts.errors import DigestMismatch, NotFound
from llmartifacts.records.digest import short

if TYPE_CHECKING:
    from llmartifacts.records.promotion import HistoryEntry
    from llmartifacts.runtime.explain import Component, Explained, Pointed

SHAPE = (
    '{"stamp": text, "project", "revision", "revision_now", "source", "set": {"digest", "verdict"}, "components": '
    '[{"field", "reference", "digest", "version": Version or null, "pointed": [{"then", "move": HistoryEntry, '
    '"until": HistoryEntry or null}], "parts": [{"role", "reference", "kind", "digest"}], "problem"}], "left_out", '
    '"warnings": [{"code", "field", "message"}], "problems"}'
)


def show_stamp(session: Session, text: str) -> None:
    """Print what a stamp means; ends with the exit code of the gravest thing that does not hold."""
    from llmartifacts.runtime.explain import explain
    from llmartifacts.runtime.stamp import find_stamp

    stamp = find_stamp(text)
    out = session.out
    with session.within(stamp.project).open() as registry, out.working("looking up what the stamp names"):
        found = explain(stamp, registry)
    out.result(_document(found), lambda: _show(out, found))
    if found.error is not None:
        raise typer.Exit(wire.exit_code(found.error))


def _document(found: Explained) -> dict[str, Any]:
    stamp = found.stamp
    return {
        "stamp": str(stamp),
        "project": stamp.project,
        "revision": stamp.revision,
        "revision_now": found.revision_now,
        "source": stamp.source,
        "set": {"digest": stamp.set_short, "verdict": found.set},
        "components": [
            {
                "field": c.field,
                "reference": str(c.version.pinned) if c.version else f"{c.stamped.name}:v{c.stamped.number}",
                "digest": c.stamped.short,
                "version": c.version,
                "pointed": [plain(p) for p in c.pointed],
                "parts": c.parts,
                "problem": c.problem,
            }
            for c in found.components
        ],
        "left_out": stamp.left_out,
        "warnings": found.warnings,
        "problems": found.problems,
    }


def _show(out: Output, found: Explained) -> None:
    from llmartifacts.runtime.explain import SOURCES, left_out_words

    stamp = found.stamp
    verdict: Piece = {
        "matches": ("the versions below", GOOD),
        "differs": ("NOT the versions below", BAD),
        "unknown": ("cannot be checked: not every version is known", WARN),
    }[found.set]
    out.line((stamp.project, NAME), f"  revision {stamp.revision}", (f", now at {found.revision_now}", FAINT))
    out.line((f"  {'source':<8}", FAINT), f"  {stamp.source}: {SOURCES[stamp.source]}")
    out.line((f"  {'set':<8}", FAINT), f"  {stamp.set_short}: ", verdict)
    for warned in found.warnings:
        about = f" {warned.field}" if warned.field else ""
        out.line((f"  {'warning':<8}", WARN), f"  {warned.code}{about}: {warned.message}")
    for component in found.components:
        _show_component(out, component)
    if stamp.left_out:
        out.line(("left out: ", WARN), left_out_words(stamp))
    for problem in found.problems:
        if isinstance(problem, DigestMismatch) or (isinstance(problem, NotFound) and problem.what == "revision"):
            tell(problem, out, as_result=True)


def _show_component(out: Output, component: Component) -> None:
    v = component.version
    if v is None:
        out.line((component.field, NAME), f"  {component.stamped}")
        if component.problem is not None:
            tell(component.problem, out, as_result=True)
        return
    out.line((component.field, NAME), f"  {v.pinned}  {v.kind}")
    if v.yanked_at is not None:
        out.line((f"  {'yanked':<8}", BAD), f"  {when(v.yanked_at)}: {v.yank_reason}")
    said = f": {v.message}" if v.message else ""
    out.line((f"  {'logged':<8}", FAINT), f"  {when(v.created_at)} by {v.author}{said}")
    for part in component.parts:
        out.line((f"  {'holds':<8}", FAINT), f"  {part.role}  {part.reference}@sha256:{part.digest[7:19]}  {part.kind}")
    for pointed in component.pointed:
        _show_pointed(out, pointed)
    if not component.pointed:
        told = f"no alias pointed at {short(v.digest)} then: it was asked for by number, digest or latest"
        out.line((f"  {'alias':<8}", FAINT), "  ", (told, WARN))


def _show_pointed(out: Output, pointed: Pointed) -> None:
    move = pointed.move
    out.line((f"  {move.alias:<8}", GOOD if pointed.then else WARN), f"  {_moved(move)}")
    for result in move.results:
        out.line(f"            {result.verdict:<12}", (result.rule, NAME), f"  {result.message}")
    if pointed.until is not None:
        told = "moved on" if pointed.then else "had moved on before"
        out.line((f"            {told}: ", FAINT), _moved(pointed.until))


def _moved(move: HistoryEntry) -> str:
    reason = why(move)
    to = f" to v{move.new}" if move.new is not None else ", and the alias is gone"
    return f"{move.promotion or f'r{move.revision}'} {move.verb}{to}, {when(move.at)} by {move.actor}" + (
        f": {reason}" if reason else ""
    )
