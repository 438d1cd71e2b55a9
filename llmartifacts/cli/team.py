"""`team`: people and services that have roles together."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.accounts import accounts_of, show_account, show_accounts
from llmartifacts.cli.command import TEAM, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, NAME, WARN
from llmartifacts.errors import InvalidInput

_KIND = "team"
TeamArgument = Annotated[str, typer.Argument(metavar="TEAM", help="The name of the team.")]
MemberArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a person or a service.")]


@command("add", examples=("team add ml-leads",), shape='{"account": Account}')
def add(session: Session, team: TeamArgument) -> None:
    """Make a team; grant it roles as you would a person."""
    with session.open() as registry:
        made = accounts_of(registry).create_account(team, _KIND)
    session.out.result({"account": made}, lambda: show_account(session.out, made, "made"))


@command("ls", examples=("team ls",), shape='{"accounts": [Account]}')
def ls(session: Session) -> None:
    """List teams and who is in them."""
    with session.open() as registry:
        found = accounts_of(registry).accounts(kind=_KIND)
    out = session.out

    def text() -> None:
        if not found:
            out.line("no teams yet; ", ("llmartifacts team add NAME", NAME), " makes one")
            return
        show_accounts(out, found, teams=True)

    out.result({"accounts": found}, text)


@command("show", examples=("team show ml-leads",), shape='{"account": Account, "grants": [Grant]}')
def show(session: Session, team: TeamArgument) -> None:
    """Show one team: who is in it, and the roles that they have by it."""
    with session.open() as registry:
        asked = accounts_of(registry)
        found = asked.account(team)
        if found.kind != _KIND:
            raise InvalidInput(
                f"{found.name} is no team",
                field="TEAM",
                next_step=f"See the account: llmartifacts user show {found.name}.",
            )
        grants = asked.grants(subject=found.name)
    out = session.out

    def text() -> None:
        show_account(out, found)
        if not found.members:
            out.line(("  nobody is in it yet: ", FAINT), f"llmartifacts team add-member {found.name} NAME")
        for grant in grants:
            out.line(f"  {grant}")

    out.result({"account": found, "grants": grants}, text)


@command("add-member", examples=("team add-member ml-leads ann",), shape='{"account": Account}')
def add_member(session: Session, team: TeamArgument, member: MemberArgument) -> None:
    """Put somebody into a team."""
    with session.open() as registry:
        found = accounts_of(registry).add_member(team, member)
    session.out.result({"account": found}, lambda: show_account(session.out, found))


@command("remove-member", examples=("team remove-member ml-leads ann",), shape='{"team", "removed"}')
def remove_member(session: Session, team: TeamArgument, member: MemberArgument) -> None:
    """Take somebody out of a team."""
    with session.open() as registry:
        accounts_of(registry).remove_member(team, member)
    out = session.out
    out.result(
        {"team": team, "removed": member}, lambda: out.line((member, NAME), (" is no longer in ", WARN), (team, NAME))
    )


GROUP = CommandGroup(
    "team", "People and services that have roles together.", TEAM, (add, ls, show, add_member, remove_member)
)
