"""Tokens: made, listed, revoked. The registry keeps a digest of each; nobody sees the text again."""

from __future__ import annotations

from datetime import datetime, timedelta

from llmartifacts.errors import InvalidInput, NotAllowed, NotFound
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata.accounts import AccountRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.arguments import check_line
from llmartifacts.records.rights import (
    DEFAULT_LIFE,
    TEAM,
    UNLIMITED,
    Identity,
    NewToken,
    Permission,
    TokenInfo,
    TokenScope,
    check_days,
    check_scope,
    check_token_id,
    make_token,
    require,
    token_digest,
    unseen_project,
)
from llmartifacts.records.times import from_micros, to_micros, to_text
from llmartifacts.versioning.access import access_ends, entrances, find_account, identity_of, operated, record
from llmartifacts.versioning.parts import Parts

MAX_GOOD = 4096
"""Tokens of one account that are good at once."""


def list_tokens(
    parts: Parts,
    account: str | None = None,
    *,
    all: bool = False,  # noqa: A002
    by: Identity,
) -> list[TokenInfo]:
    """Tokens of an account, newest first; of the caller's own, where none is named.

    On a registry's own files, where the caller need not be an account, none named means all.
    """
    with parts.metadata.reading() as s:
        if account is not None and account != by.name:
            require(by, Permission.OPERATE)
        owner = None
        if account is not None or by.token_id:
            owner = find_account(s, account or by.name, by=by, field="account").id
        return rows.tokens(s, owner, at=None if all else s.now())


def create_token(
    parts: Parts,
    label: str = "",
    *,
    account: str | None = None,
    scope: TokenScope = UNLIMITED,
    days: int | None = None,
    by: Identity,
) -> NewToken:
    """Make a token.

    One that is made with another is never wider than that one, and never lives longer: not if it is for the same
    account, nor for one that administers the registry. So a stolen token ends when it would have ended.

    Args:
        parts: The stores.
        label: What it is for.
        account: Whose it shall be; None for the caller's own. Those of others are made by who administers the registry.
        scope: What it leaves of the account's rights.
        days: Days that it is good for, at most 366; None for 90, or for as long as the other one.
        by: Who asks.

    Raises:
        NotAllowed: It would be wider than its account, or wider or longer than the token it is made with.
        InvalidInput: A team has no tokens; too many are good already.
    """
    text = check_line(label, field="label")
    wanted = check_scope(scope.projects, scope.roles, scope.read_only)
    check_days(days)
    with parts.metadata.writing() as s:
        if account is not None and account != by.name:
            require(by, Permission.OPERATE)
        owner = find_account(s, account or by.name, by=by, field="account")
        if owner.kind == TEAM:
            raise InvalidInput(f"{owner.name} is a team, and teams have no tokens", field="account")
        if owner.disabled_at is not None:
            raise NotAllowed(f"the account {owner.name} is disabled", field="account")
        _require_within(s, wanted, owner, by)
        life = DEFAULT_LIFE if days is None else timedelta(days=days)
        end = from_micros(s.now()) + life
        if by.expires_at is not None and end > by.expires_at and _bound(s, owner, by):
            if days is not None:
                raise NotAllowed(
                    f"it would outlive the token that it is made with, which ends {to_text(by.expires_at)}",
                    field="days",
                    next_step="Ask for fewer days, or sign in anew.",
                )
            end = by.expires_at
        return issue(s, owner, label=text, scope=wanted, end=end, actor=by.name)


def issue(s: Session, owner: AccountRow, *, label: str, scope: TokenScope, end: datetime, actor: str) -> NewToken:
    """Make a token, without asking who may.

    Args:
        s: A write transaction.
        owner: Whose it is.
        label: What it is for.
        scope: What it leaves of the account's rights.
        end: From when on it is no longer good.
        actor: Who makes it.
    """
    at = s.now()
    if rows.count_good(s, owner.id, at) >= MAX_GOOD:
        raise InvalidInput(
            f"{owner.name} has {MAX_GOOD} good tokens, and that is the limit",
            field="account",
            next_step="Revoke some first: llmartifacts token ls, llmartifacts token revoke ID.",
        )
    token_id, text = make_token()
    digest, last = token_digest(text), to_micros(end)
    rows.insert_token(s, token_id, digest, owner.id, label=label, scope=scope, by=actor, at=at, expires_at=last)
    plain, sealed = rows.scope_plain(scope), rows.sealed(digest)
    record(s, "token-create", owner.name, actor, token=token_id, label=label, scope=plain, end=last, sealed=sealed)
    info = TokenInfo(token_id, owner.name, label, scope, from_micros(at), actor, from_micros(last))
    return NewToken(text, info, _warning(s, info, owner))


def revoke_token(parts: Parts, token: str, *, by: Identity) -> TokenInfo:
    """Revoke a token, by its id.

    One's own tokens: with any token that is as wide, and a token itself always. Those of others: by who administers.

    Raises:
        NotFound: There is none, or it is another's.
        NotAllowed: It is wider than the token that would revoke it.
        Refused: Nobody could administer the registry any more.
    """
    token_id = check_token_id(token)
    with parts.metadata.writing() as s:
        found = rows.find_token(s, token_id)
        operates = by.may(Permission.OPERATE)
        if found is None or (found.info.account != by.name and not operates):
            raise NotFound(
                f"there is no token {token_id}",
                what="token",
                name=token_id,
                next_step="llmartifacts token ls --all --account NAME shows the ids of an account's tokens."
                if operates
                else "llmartifacts token ls --all shows the ids of yours; those of others an administrator revokes.",
            )
        if not (operates or token_id == by.token_id or found.info.scope.within(by.scope)):
            raise NotAllowed(
                f"the token {token_id} is wider than the one that would revoke it",
                field="token",
                next_step="Revoke it with a token that has as many rights.",
            )
        if found.info.revoked_at is None:
            with operated(s, f"revoking the token {token_id}"):
                rows.revoke_token(s, token_id, s.now())
            record(s, "token-revoke", found.info.account, by.name, token=token_id)
            found = rows.find_token(s, token_id) or found
        return found.info


def _require_within(s: Session, wanted: TokenScope, owner: AccountRow, by: Identity) -> None:
    if not wanted.within(by.scope):
        raise NotAllowed(
            f"a token with more rights than the one it is made with, which is limited: {by.scope}",
            field="scope",
            next_step="Ask for less, or use a token with more rights.",
        )
    held = identity_of(s, owner)
    for project in wanted.projects or ():
        if not held.sees(project):
            if owner.name == by.name:
                raise unseen_project(by, project)
            raise NotAllowed(f"{owner.name} has no rights in {project}", field="scope.projects", next_step=_GRANT_FIRST)
    for role in wanted.roles or ():
        places = wanted.projects or [None, *sorted({g.project for g in held.grants if g.project is not None})]
        if not any(held.holds(role, place) for place in places):
            raise NotAllowed(
                f"{owner.name} does not hold the role {role}, so no token of it can",
                field="scope.roles",
                next_step=_GRANT_FIRST,
            )


_GRANT_FIRST = "Grant it first; a token has no rights of its own."


def _bound(s: Session, owner: AccountRow, by: Identity) -> bool:
    """Whether a token of an account must not outlive the one it is made with."""
    return owner.name == by.name or identity_of(s, owner).may(Permission.OPERATE)


def _warning(s: Session, info: TokenInfo, owner: AccountRow) -> str:
    """That the registry cannot be administered any more, once this token ends; empty if that is not so."""
    if owner.id not in rows.operators(s) or not info.scope.leaves(Permission.OPERATE) or info.expires_at is None:
        return ""
    others = [end for _, end in entrances(s, without=info.id)]
    if any(end is None or end >= info.expires_at for end in others):
        return ""
    end = access_ends(s)
    return (
        f"When this token ends, {to_text(end or info.expires_at)}, nobody can administer the registry over the network;"
        " make another before."
    )
