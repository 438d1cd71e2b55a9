"""What can be done with accounts, teams, grants and tokens, on a registry's own files as over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from llmartifacts.records.rights import (
    EVERY_ALIAS,
    UNLIMITED,
    USER,
    Account,
    Grant,
    Identity,
    NewToken,
    Protection,
    TokenInfo,
    TokenScope,
)


class Accounts(Protocol):
    """Who may do what in a registry. Every change writes its audit entry in the same transaction.

    Whoever calls is known already: by their token, or as one who holds the registry's files. Errors beyond those
    named: `NotAllowed` where one may not, `NotFound` where something is not there or may not be seen, `InvalidInput`
    for a malformed name.
    """

    def me(self) -> Identity:
        """Who calls, and what they may do."""

    # --- accounts

    def accounts(self, *, kind: str | None = None, limit: int | None = None, after: str | None = None) -> list[Account]:
        """Accounts by name, whatever the case; a page of `limit` with names above one."""

    def account(self, name: str) -> Account:
        """One account, with its teams or members."""

    def create_account(self, name: str, kind: str = USER) -> Account:
        """Make an account. Raises `Conflict`: the name is taken, in whatever case, by a person, a service or a team."""

    def disable_account(self, name: str) -> Account:
        """Let nobody in as it; its tokens are good no more, at once. Raises `Refused`: nobody would administer."""

    def enable_account(self, name: str) -> Account:
        """Let it in again; tokens that neither expired nor were revoked are good again."""

    def add_member(self, team: str, member: str) -> Account:
        """Put a person or a service into a team; gives the team."""

    def remove_member(self, team: str, member: str) -> None:
        """Take somebody out of a team. Raises `Refused`: nobody would administer."""

    # --- grants

    def grants(self, project: str | None = None, *, subject: str | None = None) -> list[Grant]:
        """Grants of one project, or with None all that there are; of one account, where it is named."""

    def grant(
        self, subject: str, role: str, *, project: str | None = None, aliases: Sequence[str] = EVERY_ALIAS
    ) -> Grant:
        """Give a role in a project, or with None in every one; given already, it is that one."""

    def revoke_grant(self, grant: int, *, project: str | None = None) -> None:
        """Take a grant back, by its number; with a project, only one of it. Raises `Refused`."""

    def protections(self, project: str) -> tuple[Protection, ...]:
        """The protected aliases of a project, by pattern."""

    def protect(self, project: str, protected: Iterable[Protection]) -> tuple[Protection, ...]:
        """Protect these aliases of a project, and no others."""

    # --- tokens

    def tokens(self, account: str | None = None, *, all: bool = False) -> list[TokenInfo]:  # noqa: A002
        """Tokens of an account, newest first; of the caller's own, where none is named.

        Args:
            account: Whose.
            all: Those too that are no longer good.
        """

    def create_token(
        self,
        label: str = "",
        *,
        account: str | None = None,
        scope: TokenScope = UNLIMITED,
        days: int | None = None,
    ) -> NewToken:
        """Make a token; its text is in the answer and nowhere else.

        Args:
            label: What it is for.
            account: Whose it shall be; None for one's own.
            scope: What it leaves of the account's rights; no more than the account has.
            days: Days that it is good for, at most 366; by default 90, or as long as the token it is made with.

        Raises:
            NotAllowed: Its scope is wider, or its life longer, than that of the token it is made with.
        """

    def revoke_token(self, token: str) -> TokenInfo:
        """Revoke a token, by its id; everywhere within five seconds. Raises `Refused`."""
