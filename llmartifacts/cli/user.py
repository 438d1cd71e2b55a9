"""`user`: people and services, each with a name that the audit calls the actor."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.accounts import accounts_of, show_account, show_accounts
from llmartifacts.cli.command import TEAM, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, NAME

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the account.")]


@command("add", examples=("user add ann", "user add ci --service"), shape='{"account": Account}')
def add(
    session: Session,
    name: NameArgument,
    service: Annotated[bool, typer.Option("--service", help="A program, and no person.")] = False,
) -> None:
    """Make an account; it has no rights before a grant gives some."""
    from llmartifacts.records.rights import SERVICE, USER

    with session.open() as registry:
        made = accounts_of(registry).create_account(name, SERVICE if service else USER)
    out = session.out

    def text() -> None:
        show_account(out, made, "made")
        out.line(("to let it do something: ", FAINT), f"llmartifacts grant add {made.name} ROLE --project PROJECT")
        out.line(("to give it a token: ", FAINT), f"llmartifacts token create --account {made.name}")

    out.result({"account": made}, text)


@command("ls", examples=("user ls", "user ls --service"), shape='{"accounts": [Account]}')
def ls(
    session: Session,
    service: Annotated[bool, typer.Option("--service", help="Services only.")] = False,
) -> None:
    """List people and services."""
    from llmartifacts.records.rights import SERVICE, TEAM

    with session.open() as registry:
        found = accounts_of(registry).accounts(kind=SERVICE if service else None)
    people = [one for one in found if one.kind != TEAM]
    out = session.out

    def text() -> None:
        if not people:
            out.line("no accounts yet; ", ("llmartifacts user add NAME", NAME), " makes one")
            return
        show_accounts(out, people, teams=False)

    out.result({"accounts": people}, text)


@command("show", examples=("user show ann",), shape='{"account": Account, "grants": [Grant]}')
def show(session: Session, name: NameArgument) -> None:
    """Show one account: its teams, and the roles that it has by itself and by them."""
    with session.open() as registry:
        asked = accounts_of(registry)
        found = asked.account(name)
        grants = [grant for subject in (found.name, *found.teams) for grant in asked.grants(subject=subject)]
    out = session.out

    def text() -> None:
        show_account(out, found)
        for grant in grants:
            by = "" if grant.subject == found.name else f"  by the team {grant.subject}"
            out.line(f"  {grant}", (by, FAINT))

    out.result({"account": found, "grants": grants}, text)


@command("disable", examples=("user disable ann",), shape='{"account": Account}')
def disable(session: Session, name: NameArgument) -> None:
    """Let nobody in as it: its tokens are good no more, within five seconds everywhere."""
    with session.open() as registry:
        found = accounts_of(registry).disable_account(name)
    session.out.result({"account": found}, lambda: show_account(session.out, found))


@command("enable", examples=("user enable ann",), shape='{"account": Account}')
def enable(session: Session, name: NameArgument) -> None:
    """Let it in again."""
    with session.open() as registry:
        found = accounts_of(registry).enable_account(name)
    session.out.result({"account": found}, lambda: show_account(session.out, found, "enabled"))


@command("whoami", examples=("user whoami",), shape='{"name", "kind", "token_id", "grants", "scope", "expires_at"}')
def whoami(session: Session) -> None:
    """Show who one is here, and what one may do."""
    from llmartifacts.cli.plain import when

    with session.open() as registry:
        found = accounts_of(registry).me()
    out = session.out

    def text() -> None:
        out.line((found.name, NAME), f"  {found.kind}")
        for grant in found.grants:
            out.line(f"  {grant}")
        if not found.grants:
            step = f"llmartifacts grant add {found.name} ROLE --project PROJECT"
            out.line(("  no roles yet; an administrator gives them: ", FAINT), step)
        ends = "" if found.expires_at is None else when(found.expires_at)
        out.fields(
            (("token", found.token_id), ("limited to", "" if not found.token_id else str(found.scope)), ("ends", ends))
        )

    out.result(found, text)


GROUP = CommandGroup(
    "user", "People and services that may do something.", TEAM, (add, ls, show, disable, enable, whoami)
)
