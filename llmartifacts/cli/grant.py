"""`grant`: roles of people, services and teams, in one project or in every one."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.accounts import ROLES, EverywhereOption, RoleArgument, accounts_of
from llmartifacts.cli.command import TEAM, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column

AliasOption = Annotated[
    list[str] | None,
    typer.Option(
        "--alias",
        metavar="PATTERN",
        help="Aliases that a promoter may move: prod, rc-*, or !prod for all but it. Repeatable; else every alias.",
    ),
]


@command(
    "add",
    examples=(
        "grant add ann writer --project acme",
        "grant add ann promoter --project acme --alias '!prod'",
        "grant add ml-leads promoter --project acme --alias prod",
        "grant add root admin --everywhere",
    ),
    shape='{"grant": Grant}',
    more=ROLES,
)
def add(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A person, a service or a team.")],
    role: RoleArgument,
    aliases: AliasOption = None,
    everywhere: EverywhereOption = False,
) -> None:
    """Give a role; nobody gives more than they hold."""
    patterns = tuple(aliases or ("*",))
    if all(one.startswith("!") for one in patterns):
        patterns = ("*", *patterns)  # all but these
    with session.open() as registry:
        made = accounts_of(registry).grant(
            name, role, project=None if everywhere else registry.project, aliases=patterns
        )
    out = session.out
    out.result(
        {"grant": made},
        lambda: out.line((made.subject, NAME), (" is now ", GOOD), str(made), (f"  (grant {made.id})", FAINT)),
    )


@command("ls", examples=("grant ls --project acme", "grant ls --everywhere --of ann"), shape='{"grants": [Grant]}')
def ls(
    session: Session,
    of: Annotated[str | None, typer.Option("--of", metavar="NAME", help="Of this account only.")] = None,
    everywhere: EverywhereOption = False,
) -> None:
    """List who has which role in a project; with --everywhere, in all of them."""
    with session.open() as registry:
        project = None if everywhere else registry.project
        found = accounts_of(registry).grants(project, subject=of)
    out = session.out

    def text() -> None:
        if not found:
            out.line("no grants", "" if project is None else f" in {project}; ", ("see also --everywhere", FAINT))
            return
        out.table(
            (
                Column("id", right=True),
                Column("who", NAME),
                Column("role"),
                Column("project"),
                Column("aliases", wraps=True),
                Column("since", FAINT),
                Column("by", FAINT, optional=True),
            ),
            [
                (
                    str(one.id),
                    one.subject,
                    str(one.role),
                    one.project or "(every project)",
                    "" if one.aliases == ("*",) else " ".join(one.aliases),
                    "" if one.at is None else f"{one.at:%Y-%m-%d}",
                    one.granted_by,
                )
                for one in found
            ],
        )

    out.result({"grants": found}, text)


@command("revoke", examples=("grant revoke 7 --project acme", "grant revoke 2 --everywhere"), shape='{"revoked"}')
def revoke(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="ID", help="The number of the grant; see grant ls.", min=1)],
    everywhere: EverywhereOption = False,
) -> None:
    """Take a grant back; the last who administers everything keeps theirs."""
    with session.open() as registry:
        accounts_of(registry).revoke_grant(number, project=None if everywhere else registry.project)
    out = session.out
    out.result({"revoked": number}, lambda: out.line(f"grant {number}", (" revoked", WARN)))


GROUP = CommandGroup("grant", "Who may do what, and where.", TEAM, (add, ls, revoke))
