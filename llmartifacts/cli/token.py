"""`token`: what a person or a program shows a server; printed once, by itself, when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.accounts import accounts_of
from llmartifacts.cli.command import TEAM, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, NAME, WARN, Column, Piece
from llmartifacts.cli.plain import minute, when

if TYPE_CHECKING:
    from llmartifacts.records.rights import TokenInfo

AccountOption = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Whose; one's own, if nobody is named.")
]


@command(
    "create",
    examples=(
        "token create --label laptop",
        "token create --account ci --label deploy --days 30 --only acme",
        "token create --account web --read-only",
    ),
    shape='{"token", "info": TokenInfo, "warning"}',
    more={"In a script": "  TOKEN=$(llmartifacts token create --account ci)"},
)
def create(
    session: Session,
    account: AccountOption = None,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What it is for.")] = "",
    days: Annotated[
        int | None, typer.Option("--days", metavar="N", help="Days that it is good for, up to 366; else 90.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PROJECT", help="Good for this project only. Repeatable."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="Leaves what this role may do, and no more. Repeatable."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Good for reading only.")] = False,
) -> None:
    """Make a token, and print it: the only copy there is."""
    from llmartifacts.records.rights import check_scope

    scope = check_scope(only or None, role or None, read_only)
    with session.open() as registry:
        made = accounts_of(registry).create_token(label, account=account, scope=scope, days=days)
    out, info = session.out, made.info

    def text() -> None:
        ends = "" if info.expires_at is None else f", good until {when(info.expires_at)}"
        out.line(f"token {info.id} of {info.account}{ends}; it is shown once:", error=True)
        if made.warning:
            out.line(("warning: ", WARN), made.warning, error=True)
        out.line(made.text)

    out.result({"token": made.text, "info": info, "warning": made.warning}, text)


@command("ls", examples=("token ls", "token ls --account ci --all"), shape='{"tokens": [TokenInfo]}')
def ls(
    session: Session,
    account: AccountOption = None,
    every: Annotated[bool, typer.Option("--all", help="Those too that expired or were revoked.")] = False,
) -> None:
    """List tokens, newest first; what they are is not kept."""
    with session.open() as registry:
        found = accounts_of(registry).tokens(account, all=every)
    out = session.out

    def text() -> None:
        if not found:
            out.line("no tokens; ", ("llmartifacts token create", NAME), " makes one")
            return
        out.table(
            (
                Column("id", NAME),
                Column("account"),
                Column("label", shrinks=True),
                Column("limited to", wraps=True),
                Column("since", FAINT),
                Column("ends"),
                Column("used", FAINT, optional=True),
                Column("state"),
            ),
            [
                (
                    one.id,
                    one.account,
                    one.label,
                    str(one.scope),
                    f"{one.created_at:%Y-%m-%d}",
                    "" if one.expires_at is None else minute(one.expires_at),
                    "" if one.last_used_at is None else f"{one.last_used_at:%Y-%m-%d}",
                    _state(one),
                )
                for one in found
            ],
        )

    out.result({"tokens": found}, text)


@command("revoke", examples=("token revoke k3J9xQ2mZb",), shape='{"token": TokenInfo}')
def revoke(
    session: Session,
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id; see token ls.")],
) -> None:
    """Revoke a token: within five seconds it is good nowhere."""
    with session.open() as registry:
        found = accounts_of(registry).revoke_token(token)
    out = session.out
    out.result({"token": found}, lambda: out.line((found.id, NAME), f" of {found.account}", (" revoked", WARN)))


def _state(token: TokenInfo) -> Piece:
    return "" if token.revoked_at is None else (f"revoked {token.revoked_at:%Y-%m-%d}", BAD)


GROUP = CommandGroup("token", "What people and programs show a server.", TEAM, (create, ls, revoke))
