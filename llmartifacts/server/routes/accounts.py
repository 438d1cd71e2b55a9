"""Who asks, and accounts, teams, grants, protected aliases and tokens."""

from __future__ import annotations

from typing import Any

from llmartifacts.errors import NotFound
from llmartifacts.records.rights import Identity, NewToken, TokenInfo
from llmartifacts.server.calls import Call, handler, whole
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.wire.bodies import accounts as a
from llmartifacts.wire.bodies.base import Page


def accounts(call: Call) -> EmbeddedAccounts:
    """What the caller can do with accounts."""
    return EmbeddedAccounts(call.backend.parts, call.caller)


@handler("me")
def me(call: Call) -> Identity:
    """Who asks, and what they may do."""
    return call.caller


@handler("exchange")
def exchange(call: Call) -> NewToken:
    """A login provider's token for one of the registry."""
    body = call.sends(a.Exchange)
    if call.state.login is None:
        raise NotFound(
            "no login provider is set up here", what="login provider", next_step="Use a token of the registry."
        )
    made: NewToken = call.state.login.exchange(body.token, label=body.label)
    return made


# --- tokens


@handler("tokens")
def tokens(call: Call) -> Page[Any]:
    """Tokens of an account, newest first."""
    query = call.asks(a.TokensQuery)
    return whole(accounts(call).tokens(query.account, all=query.all), a.TokenInfo.of)


@handler("create_token")
def create_token(call: Call) -> NewToken:
    """Make a token."""
    body = call.sends(a.TokenRequest)
    return accounts(call).create_token(body.label, account=body.account, scope=body.scope.record(), days=body.days)


@handler("revoke_token")
def revoke_token(call: Call) -> TokenInfo:
    """Revoke a token."""
    return accounts(call).revoke_token(call.path["id"])


# --- accounts and teams


@handler("accounts")
def list_accounts(call: Call) -> Page[Any]:
    """Accounts, by name."""
    query = call.asks(a.AccountsQuery)
    found = accounts(call).accounts(kind=query.kind, limit=query.limit, after=query.after)
    return Page.made([a.Account.of(one) for one in found], query.limit, lambda one: one.name)


@handler("create_account")
def create_account(call: Call) -> Any:
    """Make an account."""
    body = call.sends(a.NewAccount)
    return accounts(call).create_account(body.name, body.kind)


@handler("account")
def account(call: Call) -> Any:
    """One account."""
    return accounts(call).account(call.path["name"])


@handler("disable_account")
def disable_account(call: Call) -> Any:
    """Let nobody in as it."""
    return accounts(call).disable_account(call.path["name"])


@handler("enable_account")
def enable_account(call: Call) -> Any:
    """Let it in again."""
    return accounts(call).enable_account(call.path["name"])


@handler("add_member")
def add_member(call: Call) -> Any:
    """Put somebody into a team."""
    return accounts(call).add_member(call.path["team"], call.path["member"])


@handler("remove_member")
def remove_member(call: Call) -> None:
    """Take somebody out of a team."""
    accounts(call).remove_member(call.path["team"], call.path["member"])


# --- grants and protected aliases


@handler("registry_grants")
def registry_grants(call: Call) -> Page[Any]:
    """Grants of every project."""
    return whole(accounts(call).grants(subject=call.asks(a.GrantsQuery).subject), a.Grant.of)


@handler("grant_everywhere")
def grant_everywhere(call: Call) -> Any:
    """Give a role in every project."""
    body = call.sends(a.NewGrant)
    return accounts(call).grant(body.subject, body.role, aliases=body.aliases)


@handler("revoke_everywhere")
def revoke_everywhere(call: Call) -> None:
    """Take any grant back."""
    accounts(call).revoke_grant(_grant_number(call))


@handler("grants")
def grants(call: Call) -> Page[Any]:
    """Grants of a project."""
    return whole(accounts(call).grants(call.project, subject=call.asks(a.GrantsQuery).subject), a.Grant.of)


@handler("grant")
def grant(call: Call) -> Any:
    """Give a role in a project."""
    body = call.sends(a.NewGrant)
    return accounts(call).grant(body.subject, body.role, project=call.project, aliases=body.aliases)


@handler("revoke_grant")
def revoke_grant(call: Call) -> None:
    """Take a grant of a project back."""
    accounts(call).revoke_grant(_grant_number(call), project=call.project)


@handler("protections")
def protections(call: Call) -> a.Protections:
    """Protected aliases of a project."""
    found = accounts(call).protections(call.project)
    return a.Protections.known(protected=tuple(a.Protection.of(one) for one in found))


@handler("protect")
def protect(call: Call) -> a.Protections:
    """Set all protected aliases of a project."""
    wanted = [one.record() for one in call.sends(a.Protections).protected]
    made = accounts(call).protect(call.project, wanted)
    return a.Protections.known(protected=tuple(a.Protection.of(one) for one in made))


def _grant_number(call: Call) -> int:
    text = call.path["id"]
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 16):
        raise NotFound(f"there is no grant {text!r}", what="grant", name=text)
    return int(text)
