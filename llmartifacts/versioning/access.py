"""Who a token is, and what every change of accounts shares: looking one up, auditing it, keeping somebody in charge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hmac import compare_digest
from typing import Any

from llmartifacts.errors import NotFound, Refused
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata import audit
from llmartifacts.metadata.accounts import AccountRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.names import MAX_NEAR, check_name, near_names
from llmartifacts.records.rights import TEAM, Identity, Permission
from llmartifacts.records.times import from_micros

_NO_DIGEST = bytes(32)
_HOW_TO_FIND = "llmartifacts user ls and team ls show all; llmartifacts user add makes one."
_WHO_KNOWS = "An administrator of the registry sees all names (llmartifacts user ls), and can make it."


def identify(s: Session, token_id: str, digest: bytes) -> Identity | None:
    """Who a token is, with what they may do now; None where it is none, or good no more, or its account is disabled.

    Args:
        s: A transaction; in that of a change, what is read here still holds when the change is committed.
        token_id: The token's public part.
        digest: SHA-256 of the whole token, 32 bytes.
    """
    found = rows.find_token(s, token_id)
    if not compare_digest(found.secret if found is not None else _NO_DIGEST, digest) or found is None:
        return None
    if found.disabled or found.kind == TEAM or not found.info.good(from_micros(s.now())):
        return None
    info = found.info
    return Identity(info.account, found.kind, info.id, rows.held(s, found.account_id), info.scope, info.expires_at)


def identity_of(s: Session, account: AccountRow) -> Identity:
    """An account with all of its rights, as no token narrows them."""
    return Identity(account.name, account.kind, grants=rows.held(s, account.id))


def find_account(s: Session, name: str, *, by: Identity, field: str = "name") -> AccountRow:
    """An account by its exact name. Raises `NotFound`; near names only for those who may list them all."""
    check_name(name, field=field)
    found = rows.find(s, name)
    if found is None:
        lists = by.may(Permission.OPERATE)
        near = near_names(name, rows.names(s, MAX_NEAR)) if lists else ()
        raise NotFound(
            f"there is no account {name!r}",
            what="account",
            name=name,
            near=near,
            next_step=_HOW_TO_FIND if lists and not near else "" if near else _WHO_KNOWS,
        )
    return found


@contextmanager
def operated(s: Session, what: str) -> Iterator[None]:
    """A change after which somebody still administers the registry, and can get in, if somebody could before.

    Args:
        s: The change's transaction.
        what: The change, for the message.

    Raises:
        Refused: Nobody would.
    """
    before, let_in = rows.operators(s), entrances(s)
    yield
    if before and not rows.operators(s):
        raise Refused(
            f"{what} would leave nobody who administers the registry",
            next_step="Grant admin of every project to somebody else first.",
        )
    if let_in and not entrances(s):
        raise Refused(
            f"{what} would leave no token with which somebody administers the registry",
            next_step="Make another token of an account that administers it first.",
        )


def entrances(s: Session, without: str = "") -> list[tuple[str, datetime | None]]:
    """How one can get in to administer the registry: accounts, each with the end of a token, None for a login provider.

    Args:
        s: A transaction.
        without: Id of a token that shall not count.
    """
    made: list[tuple[str, datetime | None]] = []
    now = s.now()
    for account_id, name in rows.operators(s).items():
        if rows.linked(s, account_id):
            made.append((name, None))
        good = rows.tokens(s, account_id, at=now)
        made += [(name, t.expires_at) for t in good if t.id != without and t.scope.leaves(Permission.OPERATE)]
    return made


def access_ends(s: Session, without: str = "") -> datetime | None:
    """When the last token ends with which somebody administers the registry; None where there is another way in."""
    ends = [end for _, end in entrances(s, without)]
    return None if not ends or None in ends else max(end for end in ends if end is not None)


def record(s: Session, verb: str, name: str, actor: str, **body: Any) -> None:
    """Write the audit entry of a change of the whole registry's accounts."""
    audit.record(s, None, "", actor=actor, verb=verb, subject=name, **body)
