"""How somebody comes in who has no token: the first administrator, and one whose tokens are all gone."""

from __future__ import annotations

from llmartifacts.errors import NotAllowed
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata.accounts import AccountRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.rights import EVERY_ALIAS, MAX_LIFE, UNLIMITED, USER, NewToken, Role, operator
from llmartifacts.records.times import from_micros
from llmartifacts.versioning import accounts
from llmartifacts.versioning.access import find_account
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.tokens import issue

FIRST = "admin"
"""Name of the account that a registry without any begins with."""


def bootstrap(parts: Parts, name: str = FIRST) -> NewToken | None:
    """Make the account that administers the registry, and a token of it; None where one does already.

    Of several servers that start at once, one gets the token.

    Raises:
        Conflict: The name is that of an account which does not administer the registry.
    """
    with parts.metadata.reading() as s:
        if rows.operators(s):
            return None
    with parts.metadata.writing() as s:
        if rows.operators(s):
            return None
        accounts.insert_account(s, name, USER, actor=name)
        made = _there(s, name)
        accounts.insert_grant(s, made, Role.ADMIN, None, None, EVERY_ALIAS, operator(name))
        return _issue(s, made, "first start")


def recover(parts: Parts, name: str = FIRST) -> NewToken:
    """A new token of an account that administers the registry, for whoever holds its database.

    Raises:
        NotFound: There is no such account.
        NotAllowed: It does not administer the registry, or is disabled.
    """
    with parts.metadata.writing() as s:
        made = find_account(s, name, by=operator(name))
        if made.id not in rows.operators(s):
            raise NotAllowed(f"{name} does not administer the registry", field="account")
        return _issue(s, made, "recovery")


def _issue(s: Session, owner: AccountRow, label: str) -> NewToken:
    end = from_micros(s.now()) + MAX_LIFE
    return issue(s, owner, label=label, scope=UNLIMITED, end=end, actor=owner.name)


def _there(s: Session, name: str) -> AccountRow:
    found = rows.find(s, name)
    assert found is not None  # noqa: S101 - made a moment ago, in this transaction
    return found
