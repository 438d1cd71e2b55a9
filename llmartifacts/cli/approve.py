"""`approve`: sign what shall move, take that back, and see who said yes to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.command import GOVERN, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output, Piece
from llmartifacts.cli.plain import minute, when
from llmartifacts.errors import InvalidInput
from llmartifacts.records.approval import Approval, Binding, same_person
from llmartifacts.records.arguments import check_reason, check_text
from llmartifacts.records.digest import short
from llmartifacts.records.names import check_alias
from llmartifacts.records.reference import Reference, one_project, parse_many
from llmartifacts.records.times import parse_duration, parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from llmartifacts.registry import Registry


@command(
    "approve",
    panel=GOVERN,
    examples=(
        "approve agent:v2 kb:v5 --to prod --key ada --reason 'all read'",
        "approve agent:v2 --to prod --key ada --expires 7d",
        "approve --list --to prod",
        "approve --withdraw default@a12 --reason 'overlooked a failure'",
    ),
    shape='{"approvals": [Approval]}',
)
def approve(
    session: Session,
    refs: Annotated[list[str] | None, typer.Argument(metavar="REF", help="Versions; all that shall move.")] = None,
    to: Annotated[list[str] | None, typer.Option("--to", metavar="ALIAS", help="Alias. Repeatable.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="NAME", help="A key of this machine, or its PEM file.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept for good.")] = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="ISO 8601, or how long, such as 7d.")
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="ID", help="Take this approval back instead.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the approvals for --to instead.")] = False,
) -> None:
    """Say yes, signed, to exactly these versions being moved."""
    aliases = list(dict.fromkeys(check_alias(alias, field="--to") for alias in to or ()))
    if withdraw is not None:
        _refuse("--withdraw", {"REF": refs, "--to": to, "--key": key, "--expires": expires, "--list": listing})
        with session.open() as registry:
            project = withdraw.rpartition("@")[0] or registry.project
            told = check_reason(reason, "a withdrawal")
            made = [registry.backend.withdraw(project, withdraw, reason=told, actor=registry.actor)]
        session.out.result({"approvals": made}, lambda: session.out.line((made[0].id, NAME), (" withdrawn", WARN)))
        return
    if not aliases:
        raise InvalidInput("no alias is named", field="--to", next_step="Name it: --to prod.")
    if listing:
        _refuse("--list", {"REF": refs, "--key": key, "--expires": expires, "--reason": reason})
        with session.open() as registry:
            made = [a for alias in aliases for a in registry.backend.approvals(registry.project, alias)]
        session.out.result({"approvals": made}, lambda: _list(session.out, made))
        return
    if not refs or key is None:
        what, step = ("no version", "REF, such as agent:v2") if not refs else ("no key", "--key NAME")
        raise InvalidInput(f"{what} is named", field=step.partition(",")[0], next_step=f"Give {step}.")
    made = _approve(session, refs, aliases, key, check_text(reason, field="reason"), expires)
    session.out.result({"approvals": made}, lambda: _approved(session.out, made))


def _approve(
    session: Session, refs: list[str], aliases: list[str], key: str, reason: str, expires: str | None
) -> list[Approval]:
    from llmartifacts.signing import approving, key_files

    wanted = [r.required("approve") for r in parse_many(refs)]
    with session.open() as registry:
        project = one_project(wanted, registry.project)
        ends = _ends(expires)
        signing = key_files.load(key)
        person = approving.owner(registry.backend, signing)
        bound = approving.check_asked(
            approving.bindings(registry.backend, project, wanted, aliases), project, wanted, aliases
        )
        if not session.out.json:
            for one in bound:
                _before(session.out, registry, one, person, signing.private.public.id, ends)
        for told in _own(registry, bound, person):
            session.out.line(("warning: ", WARN), told, error=True)
        return [
            approving.sign_approval(
                registry.backend, one, signing, person, reason=reason, expires=ends, actor=registry.actor
            )
            for one in bound
        ]


def _before(out: Output, registry: Registry, bound: Binding, person: str, key: str, expires: datetime | None) -> None:
    """Show all that is about to be signed."""
    out.line("signing, as ", (person, NAME), f", with the key {key[:12]}:")
    rows: list[tuple[Piece, ...]] = []
    for subject in bound.subjects:
        serving = bound.serving[subject.name]
        now = "nothing"
        if serving.digest:
            known = registry.get(Reference(subject.name, bound.project, digest=serving.digest))
            now = f"v{known.number}, {short(serving.digest)}"
        now += f", move {serving.move}"
        rows.append((str(subject), short(subject.digest), now))
    out.table(
        (Column("to " + bound.alias, NAME), Column("digest"), Column(f"{bound.alias} is now", FAINT)), rows, indent=2
    )
    out.fields(
        (
            ("registry", bound.registry),
            ("project", bound.project),
            ("policy", short(bound.policy) if bound.policy else "none"),
            ("expires", when(expires) if expires else ""),
        )
    )


def _own(registry: Registry, bound: list[Binding], person: str) -> list[str]:
    """What the person who signs logged: their approval of that never counts."""
    own = []
    for subject in {s for one in bound for s in one.subjects}:
        version = registry.get(Reference(subject.name, bound[0].project, number=subject.number))
        if same_person(version.author) == same_person(person):
            own.append(f"{person} logged {subject}, and an author's approval does not count")
    return sorted(own)


def _approved(out: Output, made: list[Approval]) -> None:
    for one in made:
        out.line((one.id, NAME), (" approved", GOOD), f"  {one.binding}, by {one.person}")
        out.line((f"to take it back: llmartifacts approve --withdraw {one.id} --reason …", FAINT))


def _list(out: Output, made: list[Approval]) -> None:
    if not made:
        out.line("nobody approved anything for it yet")
        return
    out.table(
        (
            Column("id", NAME),
            Column("what", wraps=True),
            Column("by"),
            Column("roles", optional=True),
            Column("when, UTC", FAINT),
            Column("state", wraps=True),
            Column("why", wraps=True, optional=True),
        ),
        [
            (
                one.id,
                str(one.binding) if one.binding else "-",
                one.person,
                ", ".join(one.roles),
                minute(one.at) if one.at else "",
                _state(one),
                one.reason,
            )
            for one in made
        ],
    )


def _state(one: Approval) -> Piece:
    if one.sound:
        return (f"holds until {minute(one.expires)}" if one.expires else "holds", GOOD)
    return (f"{one.verdict}: {one.problem}", BAD) if one.verdict == "TAMPERED" else (one.problem, WARN)


def _ends(text: str | None) -> datetime | None:
    """When an approval expires: a time, or so long from now."""
    if text is None:
        return None
    from datetime import UTC, datetime

    if text[:1].isdigit() and text[-1:] in "smhdw" and text[:-1].isdigit():
        return datetime.now(UTC) + parse_duration(text, field="--expires")
    return parse_time(text, field="--expires")


def _refuse(option: str, others: dict[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if given:
        raise InvalidInput(
            f"{option} and {given[0]} exclude each other", field=option, next_step=f"Leave out {given[0]}."
        )
