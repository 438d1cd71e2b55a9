"""`promote`, `rollback`, `history`, `state`, `yank`: what the aliases mean, and how that changes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.arguments import Reason, ReferenceArgument, expectations
from llmartifacts.cli.command import MOVE, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.cli.plain import minute, version_text, when
from llmartifacts.errors import InvalidInput, InvalidReference, LlmartifactsError
from llmartifacts.records.names import LATEST, is_alias

if TYPE_CHECKING:
    from llmartifacts.records.promotion import HistoryEntry, Promotion
    from llmartifacts.registry import Registry

_LOOKED_AT = 500
"""Collections of a project whose aliases a new one is compared with."""
_ALIKE = 0.75
_DIGITS = re.compile(r"[0-9._-]+")
_PROMOTION_SHAPE = 'Promotion; each move {"name", "alias", "number", "old", "new"}, null for "no version"'


@command(
    "promote",
    panel=MOVE,
    examples=(
        "promote agent:v2 --to prod --reason 'shorter greeting'",
        "promote agent:v2 kb:v5 --to prod --expect agent=v1",
        "promote kb:v5 --to prod --break-glass --reason 'prod is down'",
    ),
    shape=_PROMOTION_SHAPE,
)
def promote(
    session: Session,
    refs: Annotated[list[str], typer.Argument(metavar="REF", help="Versions; one move, all or none.")],
    to: Annotated[list[str], typer.Option("--to", metavar="ALIAS", help="Alias to move. Repeatable.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept for good.")] = "",
    ticket: Annotated[str, typer.Option("--ticket", metavar="TEXT", help="Ticket of the change.")] = "",
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", metavar="NAME=vN|none", help="Refuse unless the alias means this now. Repeatable."),
    ] = None,
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="Move although a gate denies, where the policy lets you.")
    ] = False,
) -> None:
    """Move an alias of one or more collections, in one step."""
    expected = expectations(expect or ())
    with session.open() as registry:
        made = registry.promote(refs, to, reason=reason, ticket=ticket, expect=expected, break_glass=break_glass)
        meant = {} if session.out.json else _meant(registry, made)
    out = session.out

    def text() -> None:
        _show_promotion(out, made)
        for alias, known in meant.items():
            out.line(("note: ", WARN), f"{alias} is a new alias; did you mean {known}?")

    out.result(made, text)


def _meant(registry: Registry, made: Promotion) -> dict[str, str]:
    """New alias -> the one of its project that it may be a slip for; none where a policy names the new one."""
    new = {move.alias for move in made.moves if move.old is None and move.new is not None}
    if not new:
        return {}
    try:
        others: Counter[str] = Counter()
        for one in registry.backend.collections(made.project, limit=_LOOKED_AT):
            others.update(one.aliases.keys())
        others.subtract(move.alias for move in made.moves)
        found = {alias: near for alias in sorted(new) if (near := _near(alias, +others))}
        policy = registry.backend.policies(made.project, limit=1) if found else []
    except LlmartifactsError:  # it moved; a note is no reason to fail now
        return {}
    named = policy[0].body.get("aliases", {}) if policy and policy[0].body else {}
    return {alias: near for alias, near in found.items() if alias not in named}


def _near(alias: str, others: Mapping[str, int]) -> str:
    """Aliases that look like it; empty if there is none, or others have it too. rc-2 beside rc-1 is meant."""
    alike = [] if alias in others else get_close_matches(alias, sorted(others), n=2, cutoff=_ALIKE)
    return " or ".join(one for one in alike if _DIGITS.sub("", one) != _DIGITS.sub("", alias))


@command(
    "rollback",
    panel=MOVE,
    examples=(
        "rollback kb:prod --reason 'wrong answers'",
        "rollback kb:prod --whole --reason 'wrong answers'",
        "rollback kb:prod --to v5 --reason 'known to be good'",
        "rollback default@r12 --reason 'wrong set'",
    ),
    shape=_PROMOTION_SHAPE,
)
def rollback(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="REF|PROMOTION", help="name:alias, or the id of a promotion.")],
    reason: Reason,
    whole: Annotated[bool, typer.Option("--whole", help="Also all that moved together with it.")] = False,
    to: Annotated[str | None, typer.Option("--to", metavar="vN", help="Go to this version instead.")] = None,
) -> None:
    """Undo the newest promotion not yet undone; twice means two back."""
    if whole and to is not None:
        raise InvalidInput("--whole and --to exclude each other", field="--to", next_step="Give one of them.")
    if to is not None and "@r" in target:
        raise InvalidInput(
            "--to goes with name:alias, and a promotion is undone as a whole", field="--to", next_step="Leave out --to."
        )
    with session.open() as registry:
        made = registry.rollback(target, to=to, whole=whole, reason=reason)
    session.out.result(made, lambda: _show_promotion(session.out, made))


def _show_promotion(out: Output, made: Promotion) -> None:
    if made.moves:
        out.line((made.id, NAME), f"  {made.verb}", (f" of {made.undoes}" if made.undoes else "", FAINT))
    else:
        out.line("nothing had to move")
    for move in made.moves:
        new = (version_text(move.new), GOOD) if move.new is not None else ("removed", WARN)
        out.line("  ", f"{move.name}:{move.alias}  ", (version_text(move.old), FAINT), " -> ", new)
    gone = [f"{move.alias} of {move.name}" for move in made.moves if move.new is None]
    if gone:
        told = f"{', '.join(gone)} {'are' if len(gone) > 1 else 'is'} gone"
        out.line(("  note: ", WARN), f"{told}: services that start now fail or use their last-known-good set")
    for result in made.results:
        style = BAD if result.verdict != "PASS" else WARN if result.next_step else GOOD
        out.line("  ", (str(result), style))
        if result.next_step:
            out.line((f"    hint: {result.next_step}", FAINT))
    if made.approvals:
        out.line((f"  approved by {', '.join(made.approvals)}", FAINT))
    if made.break_glass:
        seen = f"reviewed by {made.reviewed_by}" if made.reviewed_by else "not reviewed yet"
        out.line(("  broke the glass", WARN), f", {seen}")
        if not made.reviewed_by:
            out.line((f"  somebody else says that they looked: llmartifacts review {made.id} --reason …", FAINT))


@command(
    "history",
    panel=MOVE,
    examples=("history kb:prod",),
    shape='{"history": [HistoryEntry]}, newest first',
)
def history(
    session: Session,
    ref: Annotated[str, typer.Argument(metavar="REF", help="name:alias; without an alias, latest.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many moves.")] = 50,
) -> None:
    """Every move of an alias: when, who, why."""
    with session.open() as registry:
        entries = registry.history(ref, limit=limit)
    session.out.result({"history": entries}, lambda: _show_history(session.out, entries))


def why(entry: HistoryEntry) -> str:
    """The ticket and the reason of a move, as far as they were given; who approved it; whether it broke the glass."""
    told = ": ".join(filter(None, (entry.ticket, entry.reason)))
    more = [f"approved by {', '.join(entry.approvals)}"] if entry.approvals else []
    if entry.break_glass:
        seen = f"reviewed by {entry.reviewed_by}" if entry.reviewed_by else "not reviewed"
        more.append(f"broke the glass, {seen}")
    return told + (f" ({'; '.join(more)})" if more else "")


def _show_history(out: Output, entries: list[HistoryEntry]) -> None:
    out.table(
        (
            Column("promotion", FAINT),
            Column("when, UTC", FAINT),
            Column("who"),
            Column("what"),
            Column("from", right=True),
            Column("to", NAME, right=True),
            Column("why", wraps=True),
            Column("undone by", WARN),
        ),
        [
            (
                e.promotion,
                minute(e.at),
                e.actor,
                e.verb,
                version_text(e.old),
                version_text(e.new),
                why(e),
                e.undone_by,
            )
            for e in entries
        ],
    )


@command(
    "state",
    panel=MOVE,
    examples=("state prod", "state prod --at 2026-03-03T09:00Z"),
    shape='State; "entries": {name: {"version": Version, "move": HistoryEntry}}',
)
def state(
    session: Session,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as prod.")],
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="ISO 8601; UTC without an offset.")] = None,
) -> None:
    """What an alias means in every collection, now or at a time."""
    if not is_alias(alias):
        hint = f"Write the alias alone, such as prod; moves of one: llmartifacts history {alias}."
        raise InvalidReference(f"{alias!r:.160} is not an alias", field="ALIAS", next_step=hint)
    with session.open() as registry:
        found = registry.state(alias, at=at)
        others = {a for c in ([] if found else registry.collections()) for a in c.aliases}
    out = session.out

    def text() -> None:
        time = f" at {when(found.at)}" if found.at is not None else ""
        if not found:
            out.line(f"nothing in project {found.project} is called {found.alias}{time}")
            if others and at is None:
                out.line((f"its aliases: {', '.join(sorted(others))}", FAINT))
            return
        out.line((found.alias, NAME), f"{time}, project {found.project}, revision {found.revision}")
        out.table(
            (
                Column("name", NAME, wraps=True),
                Column("version"),
                Column("since, UTC", FAINT),
                Column("by"),
                Column("what", optional=True),
                Column("why", wraps=True),
            ),
            [
                (name, version_text(e.version.number), minute(e.move.at), e.move.actor, e.move.verb, why(e.move))
                for name, e in found.items()
            ],
        )

    out.result(found, text)


@command("yank", panel=MOVE, examples=("yank agent:v2 --reason 'leaks the system prompt'",), shape="Version")
def yank(session: Session, ref: ReferenceArgument, reason: Reason) -> None:
    """Withdraw a version: no alias may be moved to it any more."""
    with session.open() as registry:
        version = registry.yank(ref, reason=reason)
        graph = registry.lineage(version.pinned, "down")
    holders = [graph.nodes[n] for edge, n in graph.steps(graph.root) if edge.relation == "contains"]
    served = {h.label: [a for a in h.aliases if a != LATEST] for h in holders}
    out = session.out

    def text() -> None:
        out.line((str(version), NAME), (" withdrawn", WARN), ": no alias may be moved to it any more")
        out.line((f"a lockfile or its digest still resolves it: {version.pinned}", FAINT))
        for bundle, aliases in served.items():
            if aliases:
                out.line(("still served: ", WARN), f"{bundle} holds it, and is {', '.join(aliases)}")

    out.result(version, text)
