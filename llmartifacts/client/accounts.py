"""`RemoteAccounts`: accounts, grants and tokens of a server, through HTTP; the same contract as on its own files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmartifacts.client.calls import Calls
from llmartifacts.records.arguments import check_line
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
    check_days,
    check_grant,
    check_token_id,
)
from llmartifacts.wire.bodies import accounts as bodies
from llmartifacts.wire.bodies.base import Page


class RemoteAccounts:
    """The `Accounts` of a server.

    Args:
        calls: Calls of the server's routes.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def me(self) -> Identity:
        """Who calls, and what they may do."""
        return self._calls.record(bodies.Identity, "me")

    # --- accounts

    def accounts(self, *, kind: str | None = None, limit: int | None = None, after: str | None = None) -> list[Account]:
        """Accounts by name, whatever the case; a page of `limit` with names above one."""
        return self._calls.pages("accounts", bodies.AccountsQuery.known(kind=kind), limit=limit, first=after)

    def account(self, name: str) -> Account:
        """One account, with its teams or members."""
        return self._calls.record(bodies.Account, "account", path={"name": name})

    def create_account(self, name: str, kind: str = USER) -> Account:
        """Make an account. Raises `Conflict`: the name is taken."""
        return self._calls.record(bodies.Account, "create_account", body=bodies.NewAccount.known(name=name, kind=kind))

    def disable_account(self, name: str) -> Account:
        """Let nobody in as it; its tokens are good no more, at once. Raises `Refused`: nobody would administer."""
        return self._calls.record(bodies.Account, "disable_account", path={"name": name})

    def enable_account(self, name: str) -> Account:
        """Let it in again; tokens that neither expired nor were revoked are good again."""
        return self._calls.record(bodies.Account, "enable_account", path={"name": name})

    def add_member(self, team: str, member: str) -> Account:
        """Put a person or a service into a team; gives the team."""
        return self._calls.record(bodies.Account, "add_member", path={"team": team, "member": member})

    def remove_member(self, team: str, member: str) -> None:
        """Take somebody out of a team. Raises `Refused`: nobody would administer."""
        self._calls.tell("remove_member", path={"team": team, "member": member})

    # --- grants

    def grants(self, project: str | None = None, *, subject: str | None = None) -> list[Grant]:
        """Grants of one project, or with None all that there are; of one account, where it is named."""
        name, path = ("registry_grants", {}) if project is None else ("grants", {"project": project})
        query = bodies.GrantsQuery.known(subject=subject)
        return [one.record() for one in self._calls.ask(Page[bodies.Grant], name, query=query, path=path).items]

    def grant(
        self, subject: str, role: str, *, project: str | None = None, aliases: Sequence[str] = EVERY_ALIAS
    ) -> Grant:
        """Give a role in a project, or with None in every one; given already, it is that one."""
        given, patterns = check_grant(role, tuple(aliases) if not isinstance(aliases, str) else aliases)
        name, path = ("grant_everywhere", {}) if project is None else ("grant", {"project": project})
        body = bodies.NewGrant.known(subject=subject, role=given, aliases=patterns)
        return self._calls.record(bodies.Grant, name, body=body, path=path)

    def revoke_grant(self, grant: int, *, project: str | None = None) -> None:
        """Take a grant back, by its number; with a project, only one of it. Raises `Refused`."""
        name, path = ("revoke_everywhere", {}) if project is None else ("revoke_grant", {"project": project})
        self._calls.tell(name, path={**path, "id": str(grant)})

    def protections(self, project: str) -> tuple[Protection, ...]:
        """The protected aliases of a project, by pattern."""
        found = self._calls.ask(bodies.Protections, "protections", path={"project": project})
        return tuple(one.record() for one in found.protected)

    def protect(self, project: str, protected: Iterable[Protection]) -> tuple[Protection, ...]:
        """Protect these aliases of a project, and no others."""
        body = bodies.Protections.known(protected=tuple(bodies.Protection.of(one) for one in protected))
        found = self._calls.ask(bodies.Protections, "protect", body=body, path={"project": project})
        return tuple(one.record() for one in found.protected)

    # --- tokens

    def tokens(self, account: str | None = None, *, all: bool = False) -> list[TokenInfo]:  # noqa: A002
        """Tokens of an account, newest first; of the caller's own, where none is named.

        Args:
            account: Whose.
            all: Those too that are no longer good.
        """
        query = bodies.TokensQuery.known(account=account, all=all)
        return [one.record() for one in self._calls.ask(Page[bodies.TokenInfo], "tokens", query=query).items]

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
            InvalidInput: The label is no line, or the days are none.
        """
        wanted = bodies.TokenScope.of(scope)
        text, life = check_line(label, field="label"), check_days(days)
        body = bodies.TokenRequest.known(label=text, account=account, scope=wanted, days=life)
        return self._calls.record(bodies.NewToken, "create_token", body=body)

    def revoke_token(self, token: str) -> TokenInfo:
        """Revoke a token, by its id; everywhere within five seconds. Raises `Refused`."""
        return self._calls.record(bodies.TokenInfo, "revoke_token", path={"id": check_token_id(token)})
