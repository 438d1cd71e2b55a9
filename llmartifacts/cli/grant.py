"""`grant`: roles of people, services and teams, in one project or in every one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.accounts import ROLES, EverywhereOption, RoleArgument, accounts_of
from llmartifacts.cli.command import TEAM, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column
from llmartifacts.records.rights import Grant, Identity, Permission

if TYPE_CHECKING:
    from llmartifacts.records.accounts import Accounts

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


@command("revoke", examples=("grant revoke 7", "grant revoke 2 --project acme"), shape='{"revoked", "grant": Grant}')
def revoke(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="ID", help="The number of the grant; see grant ls.", min=1)],
    everywhere: EverywhereOption = False,
) -> None:
    """Take a grant back, of whichever project it is; the last who administers everything keeps theirs."""
    with session.open() as registry:
        asked = accounts_of(registry)
        if everywhere or session.options.project is not None:
            old = _find(asked, number, [None if everywhere else registry.project])
        else:
            old = _find(asked, number, _administered(asked.me()))
        place = registry.project if old is None else old.project
        asked.revoke_grant(number, project=None if everywhere else place)
    out = session.out

    def text() -> None:
        what = f"grant {number}" if old is None else f"grant {number} of {old.subject}, {old},"
        out.line(what, (" revoked", WARN))

    out.result({"revoked": number, "grant": old}, text)


def _administered(me: Identity) -> list[str | None]:
    """The projects whose grants somebody sees; None for all of them at once."""
    if me.may(Permission.OPERATE):
        return [None]
    own = dict.fromkeys(grant.project for grant in me.grants)
    return [project for project in own if project is not None and me.may(Permission.ADMIN, project)]


def _find(accounts: Accounts, number: int, places: Iterable[str | None]) -> Grant | None:
    """The grant of a number, in the projects that are looked in."""
    return next((one for place in places for one in accounts.grants(place) if one.id == number), None)


GROUP = CommandGroup("grant", "Who may do what, and where.", TEAM, (add, ls, revoke))
