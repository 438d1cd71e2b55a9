"""Do the accounts say what the audit says? Whoever writes rights into the database by hand is found out here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata.database import Session
from llmartifacts.records.canonical import canonical_bytes

Event = Mapping[str, Any]


@dataclass
class AccountsTold:
    """Accounts, grants and tokens as the audit's entries make them, one after another.

    Attributes:
        accounts: Name -> kind, and whether it is disabled.
        members: Team and member.
        grants: Number -> subject, role, project, aliases.
        protections: Project and pattern -> role.
        tokens: Id -> account, sealed digest, end, scope, whether it is revoked.
        links: Issuer and subject -> account.
    """

    accounts: dict[str, tuple[str, bool]] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    grants: dict[int, tuple[str, str, str, tuple[str, ...]]] = field(default_factory=dict)
    protections: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str, int | None, str, bool]] = field(default_factory=dict)
    links: dict[tuple[str, str], str] = field(default_factory=dict)

    def tell(self, event: Event) -> None:
        """Take one entry; those of other things change nothing.

        Raises:
            KeyError: It has not what it should.
        """
        told = _VERBS.get(event["verb"])
        if told is not None:
            told(self, event["subject"], event["body"], event["project"])


def disagreements(s: Session, told: AccountsTold) -> Iterator[str]:
    """Where the stored accounts, grants and tokens are not what the audit tells, one readable line each."""
    yield from _differing("account", told.accounts, rows.all_accounts(s))
    yield from _differing("member", dict.fromkeys(told.members), dict.fromkeys(rows.all_members(s)))
    yield from _differing("grant", told.grants, rows.all_grants(s))
    yield from _differing("protected alias", told.protections, rows.all_protections(s))
    yield from _differing("token", told.tokens, rows.all_tokens(s))
    yield from _differing("login", told.links, rows.all_links(s))


def _differing(what: str, said: Mapping[Any, Any], stored: Mapping[Any, Any]) -> Iterator[str]:
    for key in sorted(said.keys() | stored.keys()):
        name = " of ".join(map(str, reversed(key))) if isinstance(key, tuple) else str(key)
        if key not in stored:
            yield f"the {what} {name} is missing, and the audit tells of it"
        elif key not in said:
            yield f"the {what} {name} is there, and the audit tells of none"
        elif said[key] != stored[key]:
            yield f"the {what} {name} is not what the audit says"


def _account(told: AccountsTold, name: str, body: Event, project: str) -> None:
    told.accounts[name] = (body["kind"], False)


def _disabled(told: AccountsTold, name: str, body: Event, project: str) -> None:
    told.accounts[name] = (body["kind"], True)


def _joined(told: AccountsTold, team: str, body: Event, project: str) -> None:
    told.members.add((team, body["member"]))


def _left(told: AccountsTold, team: str, body: Event, project: str) -> None:
    told.members.discard((team, body["member"]))


def _granted(told: AccountsTold, subject: str, body: Event, project: str) -> None:
    told.grants[body["grant"]] = (subject, body["role"], project, tuple(body["aliases"]))


def _taken_back(told: AccountsTold, subject: str, body: Event, project: str) -> None:
    told.grants.pop(body["grant"], None)


def _protected(told: AccountsTold, subject: str, body: Event, project: str) -> None:
    told.protections = {key: role for key, role in told.protections.items() if key[0] != project}
    told.protections |= {(project, pattern): role for pattern, role in body["protected"].items()}


def _token(told: AccountsTold, account: str, body: Event, project: str) -> None:
    scope = canonical_bytes(body["scope"]).decode()
    told.tokens[body["token"]] = (account, body["sealed"], body["end"], scope, False)


def _revoked(told: AccountsTold, account: str, body: Event, project: str) -> None:
    told.tokens[body["token"]] = (*told.tokens[body["token"]][:4], True)


def _linked(told: AccountsTold, account: str, body: Event, project: str) -> None:
    told.links[body["issuer"], body["subject_there"]] = account


_VERBS: Mapping[str, Callable[[AccountsTold, str, Event, str], None]] = {
    "account-create": _account,
    "account-disable": _disabled,
    "account-enable": _account,
    "account-link": _linked,
    "team-add": _joined,
    "team-remove": _left,
    "grant": _granted,
    "grant-revoke": _taken_back,
    "protect": _protected,
    "token-create": _token,
    "token-revoke": _revoked,
}
