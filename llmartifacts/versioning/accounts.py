"""Accounts, teams, grants and protected aliases: who is who, and what they may do. Tokens are in `tokens`.

Whoever asks is an `Identity`; on a registry's own files that is `rights.operator(name)`. Nobody gives more than they
hold, and the last account that administers the registry stays one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from llmartifacts.errors import Conflict, InvalidInput, NotFound, TooLarge
from llmartifacts.metadata import accounts as rows
from llmartifacts.metadata import audit, projects
from llmartifacts.metadata.accounts import AccountRow
from llmartifacts.metadata.database import Session
from llmartifacts.records.arguments import check_limit, shown
from llmartifacts.records.names import check_name
from llmartifacts.records.patterns import MAX_PATTERNS
from llmartifacts.records.rights import (
    ACCOUNT_KINDS,
    EVERY_ALIAS,
    TEAM,
    UNLIMITED,
    USER,
    Account,
    Grant,
    Identity,
    NewToken,
    Permission,
    Protection,
    Role,
    TokenInfo,
    TokenScope,
    check_grant,
    check_protection,
    require,
    require_grantable,
)
from llmartifacts.records.times import from_micros
from llmartifacts.versioning import tokens
from llmartifacts.versioning.access import find_account, operated, record
from llmartifacts.versioning.parts import Parts

MAX_ID = 2**53 - 1


class EmbeddedAccounts:
    """The `Accounts` of a registry at hand, as one identity sees them.

    Args:
        parts: The stores.
        by: Who asks.
    """

    def __init__(self, parts: Parts, by: Identity) -> None:
        self._parts = parts
        self._by = by

    def me(self) -> Identity:
        """Who calls, and what they may do."""
        return self._by

    def accounts(self, *, kind: str | None = None, limit: int | None = None, after: str | None = None) -> list[Account]:
        """Accounts by name."""
        return list_accounts(self._parts, kind=kind, limit=limit, after=after, by=self._by)

    def account(self, name: str) -> Account:
        """One account."""
        return get_account(self._parts, name, by=self._by)

    def create_account(self, name: str, kind: str = USER) -> Account:
        """Make an account."""
        return create_account(self._parts, name, kind, by=self._by)

    def disable_account(self, name: str) -> Account:
        """Let nobody in as it."""
        return disable_account(self._parts, name, by=self._by)

    def enable_account(self, name: str) -> Account:
        """Let it in again."""
        return enable_account(self._parts, name, by=self._by)

    def add_member(self, team: str, member: str) -> Account:
        """Put a person or a service into a team."""
        return add_member(self._parts, team, member, by=self._by)

    def remove_member(self, team: str, member: str) -> None:
        """Take somebody out of a team."""
        remove_member(self._parts, team, member, by=self._by)

    def grants(self, project: str | None = None, *, subject: str | None = None) -> list[Grant]:
        """Grants of one project, or of all."""
        return list_grants(self._parts, project, subject=subject, by=self._by)

    def grant(
        self, subject: str, role: str, *, project: str | None = None, aliases: Sequence[str] = EVERY_ALIAS
    ) -> Grant:
        """Give a role."""
        return grant(self._parts, subject, role, project=project, aliases=aliases, by=self._by)

    def revoke_grant(self, grant: int, *, project: str | None = None) -> None:
        """Take a grant back."""
        revoke_grant(self._parts, grant, project=project, by=self._by)

    def protections(self, project: str) -> tuple[Protection, ...]:
        """The protected aliases of a project."""
        return protections(self._parts, project, by=self._by)

    def protect(self, project: str, protected: Iterable[Protection]) -> tuple[Protection, ...]:
        """Protect these aliases of a project, and no others."""
        return protect(self._parts, project, protected, by=self._by)

    def tokens(self, account: str | None = None, *, all: bool = False) -> list[TokenInfo]:  # noqa: A002
        """Tokens of an account."""
        return tokens.list_tokens(self._parts, account, all=all, by=self._by)

    def create_token(
        self, label: str = "", *, account: str | None = None, scope: TokenScope = UNLIMITED, days: int | None = None
    ) -> NewToken:
        """Make a token."""
        return tokens.create_token(self._parts, label, account=account, scope=scope, days=days, by=self._by)

    def revoke_token(self, token: str) -> TokenInfo:
        """Revoke a token."""
        return tokens.revoke_token(self._parts, token, by=self._by)


# --- accounts


def list_accounts(
    parts: Parts, *, kind: str | None = None, limit: int | None = None, after: str | None = None, by: Identity
) -> list[Account]:
    """Accounts by name; a page of those above one."""
    require(by, Permission.OPERATE)
    if kind is not None:
        _check_kind(kind)
    with parts.metadata.reading() as s:
        return rows.listed(s, kind=kind, limit=check_limit(limit), after=after)


def get_account(parts: Parts, name: str, *, by: Identity) -> Account:
    """One account."""
    require(by, Permission.OPERATE)
    with parts.metadata.reading() as s:
        return rows.record(s, find_account(s, name, by=by))


def create_account(parts: Parts, name: str, kind: str, *, by: Identity) -> Account:
    """Make an account. Raises `Conflict`: the name is taken, in whatever case."""
    check_name(name)
    _check_kind(kind)
    with parts.metadata.writing() as s:
        require(by, Permission.OPERATE)
        return insert_account(s, name, kind, actor=by.name)


def insert_account(s: Session, name: str, kind: str, *, actor: str) -> Account:
    """Make an account, without asking who may. Raises `Conflict`."""
    taken = rows.like(s, name)
    if taken is not None:
        raise Conflict(
            f"there is an account {taken!r} already",
            field="name",
            next_step="Persons, services and teams share one set of names, whatever the case; choose another.",
        )
    at = s.now()
    number = rows.insert(s, name, kind, by=actor, at=at)
    record(s, "account-create", name, actor, kind=kind)
    return rows.record(s, AccountRow(number, name, kind, at, actor, None))


def disable_account(parts: Parts, name: str, *, by: Identity) -> Account:
    """Let nobody in as an account, and let a team give nothing more. Raises `Refused`: nobody would administer."""
    with parts.metadata.writing() as s:
        require(by, Permission.OPERATE)
        found = find_account(s, name, by=by)
        if found.disabled_at is None:
            at = s.now()
            with operated(s, f"disabling {found.name}"):
                rows.set_disabled(s, found.id, at)
            record(s, "account-disable", found.name, by.name, kind=found.kind)
            found = replace(found, disabled_at=at)
        return rows.record(s, found)


def enable_account(parts: Parts, name: str, *, by: Identity) -> Account:
    """Let an account in again."""
    with parts.metadata.writing() as s:
        require(by, Permission.OPERATE)
        found = find_account(s, name, by=by)
        if found.disabled_at is not None:
            rows.set_disabled(s, found.id, None)
            record(s, "account-enable", found.name, by.name, kind=found.kind)
            found = replace(found, disabled_at=None)
        return rows.record(s, found)


# --- teams


def add_member(parts: Parts, team: str, member: str, *, by: Identity) -> Account:
    """Put a person or a service into a team. Raises `InvalidInput`: it is no team, or the member is one."""
    with parts.metadata.writing() as s:
        require(by, Permission.OPERATE)
        group, one = _team_and_member(s, team, member, by)
        if not rows.is_member(s, group.id, one.id):
            rows.add_member(s, group.id, one.id, by=by.name, at=s.now())
            record(s, "team-add", group.name, by.name, member=one.name)
        return rows.record(s, group)


def remove_member(parts: Parts, team: str, member: str, *, by: Identity) -> None:
    """Take somebody out of a team. Raises `NotFound`: they are not in it; `Refused`: nobody would administer."""
    with parts.metadata.writing() as s:
        require(by, Permission.OPERATE)
        group, one = _team_and_member(s, team, member, by)
        if not rows.is_member(s, group.id, one.id):
            raise NotFound(f"{one.name} is not in {group.name}", what="member", name=one.name)
        with operated(s, f"taking {one.name} out of {group.name}"):
            rows.remove_member(s, group.id, one.id)
        record(s, "team-remove", group.name, by.name, member=one.name)


def _team_and_member(s: Session, team: str, member: str, by: Identity) -> tuple[AccountRow, AccountRow]:
    group, one = find_account(s, team, by=by, field="team"), find_account(s, member, by=by, field="member")
    if group.kind != TEAM:
        raise InvalidInput(f"{group.name} is a {group.kind}, and no team", field="team")
    if one.kind == TEAM:
        raise InvalidInput(f"{one.name} is a team, and a team is in no other", field="member")
    return group, one


# --- grants


def list_grants(parts: Parts, project: str | None = None, *, subject: str | None = None, by: Identity) -> list[Grant]:
    """Grants of one project, or with None all that there are; of one account, where it is named."""
    with parts.metadata.reading() as s:
        require(by, Permission.ADMIN if project is not None else Permission.OPERATE, project)
        project_id = None if project is None else projects.find_project(s, project)[0]
        of = None if subject is None else find_account(s, subject, by=by, field="subject").id
        return rows.grants(s, project_id, of)


def grant(
    parts: Parts,
    subject: str,
    role: str,
    *,
    project: str | None = None,
    aliases: Sequence[str] = EVERY_ALIAS,
    by: Identity,
) -> Grant:
    """Give a role in a project, or with None in every one; given already, it is that one.

    Raises:
        NotAllowed: The giver does not hold that role there, or may not give it.
        NotFound: There is no such account or project.
    """
    given, patterns = check_grant(role, aliases)
    with parts.metadata.writing() as s:
        require_grantable(by, given, project)
        project_id = None if project is None else projects.find_project(s, project)[0]
        return insert_grant(
            s, find_account(s, subject, by=by, field="subject"), given, project, project_id, patterns, by
        )


def insert_grant(
    s: Session,
    account: AccountRow,
    role: Role,
    project: str | None,
    project_id: int | None,
    aliases: tuple[str, ...],
    by: Identity,
) -> Grant:
    """Give a role, without asking who may."""
    for known in rows.grants(s, project_id, account.id):
        if (known.role, known.project, known.aliases) == (role, project, aliases):
            return known
    at = s.now()
    number = rows.insert_grant(s, account.id, role, project_id, aliases, by=by.name, at=at)
    made = Grant(number, account.name, role, project, aliases, from_micros(at), by.name)
    _record_grant(s, "grant", made, project_id, by.name)
    return made


def revoke_grant(parts: Parts, number: int, *, project: str | None = None, by: Identity) -> None:
    """Take a grant back; with a project, only one of it.

    Raises:
        NotFound: There is no such grant, or not in the project.
        NotAllowed: Whoever asks could not give it.
        Refused: Nobody would administer the registry any more.
    """
    if type(number) is not int or not 0 < number <= MAX_ID:
        raise InvalidInput(f"{shown(number, 40)} is no number of a grant", field="id")
    with parts.metadata.writing() as s:
        require(by, Permission.ADMIN if project is not None else Permission.OPERATE, project)
        found = rows.find_grant(s, number)
        if found is None or (project is not None and found[0].project != project):
            raise _no_grant(number, found[0] if found is not None else None, project, by)
        old, project_id = found
        require_grantable(by, old.role, old.project)
        with operated(s, f"revoking grant {number}"):
            rows.delete_grant(s, number)
        _record_grant(s, "grant-revoke", old, project_id, by.name)


def _no_grant(number: int, elsewhere: Grant | None, project: str | None, by: Identity) -> NotFound:
    """The error for a grant that is not there or not in the project; where it is, for those who may list them all."""
    if elsewhere is not None and by.may(Permission.OPERATE):
        where = "--everywhere" if elsewhere.project is None else f"--project {elsewhere.project}"
        step = f"Grant {number} is {elsewhere}, of {elsewhere.subject}: llmartifacts grant revoke {number} {where}."
    elif project is None:
        step = "llmartifacts grant ls --everywhere shows the numbers of all."
    else:
        step = (
            f"llmartifacts grant ls --project {project} shows the numbers of this project's; "
            "those of every project an administrator of the registry takes back, with --everywhere."
        )
    place = "" if project is None else f" in {project}"
    return NotFound(f"there is no grant {number}{place}", what="grant", name=str(number), next_step=step)


def _record_grant(s: Session, verb: str, grant: Grant, project_id: int | None, actor: str) -> None:
    audit.record(
        s,
        project_id,
        grant.project or "",
        actor=actor,
        verb=verb,
        subject=grant.subject,
        grant=grant.id,
        role=str(grant.role),
        aliases=list(grant.aliases),
    )


# --- protected aliases


def protections(parts: Parts, project: str, *, by: Identity) -> tuple[Protection, ...]:
    """The protected aliases of a project, by pattern."""
    with parts.metadata.reading() as s:
        require(by, Permission.ADMIN, project)
        return rows.protections(s, projects.find_project(s, project)[0])


def protect(parts: Parts, project: str, protected: Iterable[Protection], *, by: Identity) -> tuple[Protection, ...]:
    """Protect these aliases of a project, and no others.

    Raises:
        InvalidInput: A pattern is malformed, or comes twice.
        TooLarge: There are more than 64.
    """
    wanted = [check_protection(one.pattern, str(one.role)) for one in protected]
    if len(wanted) > MAX_PATTERNS:
        raise TooLarge(f"{len(wanted)} protected aliases, the limit is {MAX_PATTERNS}", field="protected")
    if len({one.pattern for one in wanted}) < len(wanted):
        raise InvalidInput("a pattern comes twice", field="protected", next_step="One role protects a pattern.")
    now = tuple(sorted(wanted, key=lambda one: one.pattern))
    with parts.metadata.writing() as s:
        require(by, Permission.ADMIN, project)
        project_id, _ = projects.lock_project(s, project)
        had = rows.protections(s, project_id)
        if had != now:
            rows.replace_protections(s, project_id, now)
            audit.record(
                s,
                project_id,
                project,
                actor=by.name,
                verb="protect",
                subject=project,
                protected={one.pattern: str(one.role) for one in now},
                had={one.pattern: str(one.role) for one in had},
            )
        return now


# --- helpers


def _check_kind(kind: str) -> None:
    if kind not in ACCOUNT_KINDS:
        raise InvalidInput(
            f"{shown(kind, 40)} is no kind of account", field="kind", next_step=f"One of {', '.join(ACCOUNT_KINDS)}."
        )
