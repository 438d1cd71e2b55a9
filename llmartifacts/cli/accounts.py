"""What the commands about people and rights share: who answers them, and how accounts are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, Column, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmartifacts.records.accounts import Accounts
    from llmartifacts.records.rights import Account
    from llmartifacts.registry import Registry

EverywhereOption = Annotated[
    bool, typer.Option("--everywhere", help="In every project, also those that come later; needs who administers all.")
]
RoleArgument = Annotated[
    str, typer.Argument(metavar="ROLE", help="One of reader, writer, evaluator, promoter, admin; see below.")
]
ROLES = {
    "Roles": "\n".join(
        (
            "  reader     read everything of the project",
            "  writer     and log versions and runs",
            "  evaluator  read, and log reports that count as evidence",
            "  promoter   read, and move aliases and approve",
            "  admin      all of the project, its rights and policies too",
        )
    )
}


def accounts_of(registry: Registry) -> Accounts:
    """The accounts of a registry: those of its server, or of the files at hand, which hold nobody back."""
    backend: Any = registry.backend
    remote = getattr(backend, "accounts", None)
    if remote is not None:
        made: Accounts = remote
        return made
    from llmartifacts.records.rights import operator
    from llmartifacts.versioning.accounts import EmbeddedAccounts

    return EmbeddedAccounts(backend.parts, operator(registry.actor))


def show_account(out: Output, account: Account, done: str = "") -> None:
    """Print one account."""
    out.line(
        (account.name, NAME),
        f"  {account.kind}",
        (f"  {done}" if done else "", GOOD),
        ("  disabled" if account.disabled_at else "", BAD),
    )
    out.fields(
        (
            ("since", f"{account.created_at:%Y-%m-%d} by {account.created_by}"),
            ("teams", ", ".join(account.teams)),
            ("members", ", ".join(account.members)),
        )
    )


def show_accounts(out: Output, accounts: Sequence[Account], *, teams: bool) -> None:
    """Print a table of accounts."""
    out.table(
        (
            Column("name", NAME),
            Column("kind"),
            Column("members" if teams else "teams", wraps=True),
            Column("since", FAINT),
            Column("state"),
        ),
        [
            (
                one.name,
                "" if teams else one.kind,
                ", ".join(one.members if teams else one.teams),
                f"{one.created_at:%Y-%m-%d}",
                ("disabled", BAD) if one.disabled_at else "",
            )
            for one in accounts
        ],
    )
