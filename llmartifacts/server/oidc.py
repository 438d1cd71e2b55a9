"""Login with a provider (OIDC): its ID token, verified, is exchanged for a token of the registry.

    read strictly  ->  issuer known?  ->  its key  ->  signature  ->  claims  ->  rule  ->  account  ->  token

The issuer chooses the keys, and nothing in the token does (`jku`, `x5u`, `jwk`, `x5c` are not looked at). An ID token
can be exchanged again until it ends, which serves a client that did not get the answer: servers share no memory of
what they saw, a person's must be younger than ten minutes, and whoever holds one may log in anyway. The nonce is known
to the client only, which compares it.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from llmartifacts.errors import Conflict, LlmartifactsError, NotAllowed, NotFound
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata.accounts import AccountRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.names import check_name
from llmartifacts.records.rights import SERVICE, TEAM, USER, NewToken
from llmartifacts.records.times import from_micros
from llmartifacts.server import oidc_config
from llmartifacts.server.oidc_config import FRESH, LONGEST, Provider, Providers, Rule
from llmartifacts.server.oidc_keys import Keys
from llmartifacts.versioning import tokens
from llmartifacts.versioning.access import record
from llmartifacts.versioning.accounts import insert_account
from llmartifacts.versioning.parts import Parts
from llmartifacts.wire.bodies.server import LoginProvider

LEEWAY = 60
"""Seconds by which clocks may differ."""
MAX_TOKEN = 16_384
MAX_SUBJECT = 255
_TYPES = ("JWT", "jwt")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Login:
    """Exchanges ID tokens. Safe to use from several threads.

    Args:
        parts: The stores.
        config: The providers.
        keys: Makes the keys of an issuer.
        clock: The time, in seconds since 1970.
    """

    def __init__(
        self,
        parts: Parts,
        config: Providers,
        *,
        keys: Callable[[str], Keys] = Keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._known = {one.issuer: (one, keys(one.issuer)) for one in config.providers}

    @classmethod
    def open(cls, parts: Parts, path: str) -> Login:
        """The login of a server, as its file of providers says. Raises as `oidc_config.load`."""
        return cls(parts, oidc_config.load(path))

    @property
    def providers(self) -> tuple[LoginProvider, ...]:
        """The providers, as clients are told of them."""
        return tuple(
            LoginProvider(
                name=one.name,
                issuer=one.issuer,
                client_id=one.client_id,
                scopes=tuple(one.scopes) if one.for_people else (),
            )
            for one, _ in self._known.values()
        )

    def exchange(self, token: str, *, label: str = "") -> NewToken:
        """A token of the registry for one of a provider.

        Args:
            token: The ID token.
            label: What the new one is for.

        Raises:
            NotAllowed: The token is not good, or no rule lets its subject in.
            Unreachable: The provider's keys cannot be had.
        """
        provider, claims = self.verify(token)
        rule = next((one for one in provider.rules if one.matches(claims)), None)
        if rule is None:
            raise _denied(
                "no rule of this registry lets you in",
                f"Ask an administrator for a rule that matches {_told(claims)}.",
            )
        with self._parts.metadata.writing() as s:
            account = self._account(s, provider, rule, claims)
            if account.disabled_at is not None:
                raise NotAllowed(f"the account {account.name} is disabled", next_step="Ask an administrator.")
            end = from_micros(s.now()) + (rule.life or provider.longest_life)
            said = f"{provider.name}: {label}" if label else provider.name
            return tokens.issue(s, account, label=said, scope=rule.scope.record(), end=end, actor=account.name)

    def verify(self, token: str) -> tuple[Provider, dict[str, Any]]:
        """The provider and the claims of an ID token that is good here and now. Raises as `exchange`."""
        header, claims = _read(token)
        issuer = claims.get("iss")
        known = self._known.get(issuer) if isinstance(issuer, str) else None
        if known is None:
            raise _denied("the token is of a login provider that is not known here")
        provider, keys = known
        algorithm = header.get("alg")
        if algorithm not in provider.algorithms:
            raise _denied("the token is signed in a way that is not taken here")
        kid = header.get("kid")
        if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= 512)):
            raise _denied("the token's key cannot be read")
        if "crit" in header or header.get("typ", "JWT") not in _TYPES:
            raise _denied("the token is no ID token")
        key = keys.find(kid, algorithm)
        if key is None:
            raise _denied("the token is signed with a key that its login provider does not publish")
        try:
            jwt.PyJWS().decode(token, key.key, algorithms=[algorithm])
        except PyJWTError:
            raise _denied("the token's signature is wrong") from None
        self._check(provider, claims)
        return provider, claims

    def _check(self, provider: Provider, claims: Mapping[str, Any]) -> None:
        """Whether a token that is genuine is for this registry, and now."""
        wanted, audience = provider.wanted_audience, claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if wanted not in audiences or not all(isinstance(one, str) for one in audiences):
            raise _denied(
                "the token is not for this registry",
                f"Its audience must be {wanted}; see llmartifacts login --workload --audience."
                if not provider.for_people
                else "",
            )
        # With several audiences another could pass the token on; then who asked for it must be this registry.
        party = claims.get("azp")
        if provider.for_people:
            if (len(audiences) > 1 or party is not None) and party != wanted:
                raise _denied("the token was given to somebody else")
        elif len(audiences) > 1:
            raise _denied("the token is for others too")
        now = self._clock()
        issued, ends = _seconds(claims, "iat"), _seconds(claims, "exp")
        begins = _seconds(claims, "nbf") if "nbf" in claims else issued
        if ends + LEEWAY <= now:
            raise _denied("the token has expired", "Log in again.")
        if max(begins, issued) - LEEWAY > now:
            raise _denied("the token is not good yet", "Are the clocks right?")
        if ends - issued > LONGEST.total_seconds():
            raise _denied("the token is good for too long to be taken")
        if provider.for_people and now - issued > FRESH.total_seconds() + LEEWAY:
            raise _denied("the token is too old", "Log in again.")
        subject = claims.get("sub")
        if not (isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT and subject.isprintable()):
            raise _denied("the token names no subject")

    # --- accounts

    def _account(self, s: Session, provider: Provider, rule: Rule, claims: Mapping[str, Any]) -> AccountRow:
        subject = str(claims["sub"])
        linked = rows.find_link(s, provider.issuer, subject)
        if rule.account is None:
            return linked or self._new_person(s, provider, rule, claims, subject)
        named = rows.find(s, rule.account)
        if named is None or named.kind == TEAM:
            raise _denied(f"the account {rule.account} that a rule names is not there", "Ask an administrator.")
        if named.kind == SERVICE:
            return named
        if linked is not None:
            if linked.name != named.name:
                raise _denied(
                    f"you are the account {linked.name}, and a rule says {named.name}", "Ask an administrator."
                )
            return linked
        if not rule.names_one:  # else whoever gets an address or a user name would get the account
            raise _denied(
                f"{named.name} is a person's account, and the rule does not name one subject",
                "The rule must give the claim `sub` in full.",
            )
        self._link(s, provider, subject, named)
        return named

    def _new_person(
        self, s: Session, provider: Provider, rule: Rule, claims: Mapping[str, Any], subject: str
    ) -> AccountRow:
        said = claims.get(rule.user or "")
        if rule.user == "email" and claims.get("email_verified") is not True:
            raise _denied("your e-mail address is not verified")
        try:
            name = check_name(_NOT_A_NAME.sub("-", said).strip("-._")[:128] if isinstance(said, str) else "")
        except LlmartifactsError:
            raise _denied(f"the claim {rule.user!r} gives no name for an account") from None
        try:
            insert_account(s, name, USER, actor=name)
        except Conflict:
            raise _denied(
                f"the name {name} is taken by another account",
                "If that is you, ask an administrator for a rule that names your subject and that account: "
                f"claims: {{sub: {subject!r}}}, account: {name}.",
            ) from None
        made = rows.find(s, name)
        if made is None:
            raise NotFound(f"there is no account {name!r}", what="account", name=name)
        self._link(s, provider, subject, made)
        for team in rule.teams:
            group = rows.find(s, team)
            if group is None or group.kind != TEAM:
                raise _denied(f"the team {team} that a rule names is not there", "Ask an administrator.")
            rows.add_member(s, group.id, made.id, by=made.name, at=s.now())
            record(s, "team-add", group.name, made.name, member=made.name)
        return made

    def _link(self, s: Session, provider: Provider, subject: str, account: AccountRow) -> None:
        rows.insert_link(s, provider.issuer, subject, account.id, at=s.now())
        record(s, "account-link", account.name, account.name, issuer=provider.issuer, subject_there=subject)


# --- the token, before anything in it is believed


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, read strictly: two readers must not read two things."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN or token.count(".") != 2:
        raise _denied("that is no ID token")
    header, payload, signature = token.split(".")
    if not signature:
        raise _denied("the token is not signed")
    return _document(header), _document(payload)


def _document(part: str) -> dict[str, Any]:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", part):
        raise _denied("the token cannot be read")
    try:
        value = parse_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, LlmartifactsError):
        raise _denied("the token cannot be read") from None
    if not isinstance(value, dict):
        raise _denied("the token cannot be read")
    return value


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise _denied(f"the token's {name} is no time")
    return float(value)


def _told(claims: Mapping[str, Any]) -> str:
    """The claims that a rule could match, cut short: they are the caller's own."""
    shown = [f"{k}={v}" for k, v in claims.items() if k in _RULED and isinstance(v, str | int)]
    return ", ".join(f"{one:.120}" for one in shown[:6]) or "your claims"


_RULED = ("sub", "repository", "ref", "environment", "preferred_username", "email")


def _denied(message: str, next_step: str = "") -> NotAllowed:
    return NotAllowed(message, field="token", next_step=next_step)
