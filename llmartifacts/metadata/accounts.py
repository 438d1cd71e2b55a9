"""Accounts, teams, grants, protected aliases, tokens and links to login providers: the rows, without any rule."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.rights import (
    ACCOUNT_KINDS,
    TEAM,
    Account,
    Grant,
    Protection,
    Role,
    TokenInfo,
    TokenScope,
)
from llmartifacts.records.times import from_micros

ALL = 1 << 40
"""A limit that is none."""
_ACCOUNT = "a.id, a.name, a.kind, a.created_at, a.created_by, a.disabled_at"
_GRANT = (
    "select g.id, a.name, g.role, p.name, g.aliases, g.at, g.granted_by, g.project_id from access_grant g"
    " join account a on a.id = g.account_id left join project p on p.id = g.project_id"
)
_STORED = (
    "select t.id, a.name, t.label, t.scope, t.created_at, t.created_by, t.expires_at, t.revoked_at, t.last_used_at,"
    " t.secret, a.id, a.kind, a.disabled_at from access_token t join account a on a.id = t.account_id"
)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as the database has it; times are microseconds since 1970."""

    id: int
    name: str
    kind: str
    created_at: int
    created_by: str
    disabled_at: int | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as the database has it, with what its account is."""

    info: TokenInfo
    secret: bytes
    account_id: int
    kind: str
    disabled: bool


# --- accounts


def find(s: Session, name: str) -> AccountRow | None:
    """An account by its exact name."""
    row = s.row(
        f"select {_ACCOUNT} from account a where a.name_key = :k and a.name = :n", {"k": name.casefold(), "n": name}
    )
    return None if row is None else AccountRow(*row)


def like(s: Session, name: str) -> str | None:
    """The name of the account that has a name in whatever case."""
    row = s.row("select name from account where name_key = :k", {"k": name.casefold()})
    return None if row is None else str(row[0])


def insert(s: Session, name: str, kind: str, *, by: str, at: int) -> int:
    """Make an account; returns its id."""
    row = s.row(
        "insert into account(name, name_key, kind, created_at, created_by) values (:n, :k, :kind, :at, :by)"
        " returning id",
        {"n": name, "k": name.casefold(), "kind": kind, "at": at, "by": by},
    )
    return int(row[0]) if row else 0


def set_disabled(s: Session, account_id: int, at: int | None) -> None:
    """Disable an account, or with None enable it."""
    s.run("update account set disabled_at = :at where id = :a", {"at": at, "a": account_id})


def record(s: Session, row: AccountRow) -> Account:
    """An account with its teams and members."""
    return Account(
        row.name,
        row.kind,
        from_micros(row.created_at),
        row.created_by,
        None if row.disabled_at is None else from_micros(row.disabled_at),
        tuple(_names(s, "m.team_id", "m.member_id", row.id)) if row.kind != TEAM else (),
        tuple(_names(s, "m.member_id", "m.team_id", row.id)) if row.kind == TEAM else (),
    )


def listed(s: Session, *, kind: str | None = None, limit: int | None = None, after: str | None = None) -> list[Account]:
    """Accounts by name; a page of those with names above one, whatever the case."""
    of_kind = "" if kind is None else " and a.kind = :kind"
    rows = s.rows(
        f"select {_ACCOUNT} from account a where a.name_key > :after{of_kind} order by a.name_key limit :n",
        {"kind": kind, "after": (after or "").casefold(), "n": ALL if limit is None else limit},
    )
    return [record(s, AccountRow(*row)) for row in rows]


def names(s: Session, limit: int) -> list[str]:
    """Names of accounts, for a mistyped one to be compared with."""
    return [r[0] for r in s.rows("select name from account order by name_key limit :n", {"n": limit})]


def _names(s: Session, wanted: str, given: str, account_id: int) -> list[str]:
    rows = s.rows(
        f"select a.name from membership m join account a on a.id = {wanted} where {given} = :a order by a.name",
        {"a": account_id},
    )
    return [r[0] for r in rows]


# --- teams


def is_member(s: Session, team_id: int, member_id: int) -> bool:
    """Whether somebody is in a team."""
    row = s.row("select 1 from membership where team_id = :t and member_id = :m", {"t": team_id, "m": member_id})
    return row is not None


def add_member(s: Session, team_id: int, member_id: int, *, by: str, at: int) -> None:
    """Put somebody into a team that they are not in."""
    s.run(
        "insert into membership(team_id, member_id, at, added_by) values (:t, :m, :at, :by)",
        {"t": team_id, "m": member_id, "at": at, "by": by},
    )


def remove_member(s: Session, team_id: int, member_id: int) -> None:
    """Take somebody out of a team."""
    s.run("delete from membership where team_id = :t and member_id = :m", {"t": team_id, "m": member_id})


# --- grants


def held(s: Session, account_id: int) -> tuple[Grant, ...]:
    """Grants of an account, and of its teams that are not disabled."""
    rows = s.rows(
        f"{_GRANT} where g.account_id = :a or (a.disabled_at is null and g.account_id in"
        " (select team_id from membership where member_id = :a)) order by g.id",
        {"a": account_id},
    )
    return tuple(made for made in map(_grant, rows) if made is not None)


def grants(s: Session, project_id: int | None, subject_id: int | None = None) -> list[Grant]:
    """Grants of one project, or of everything; of one account, where one is given."""
    of_project = "" if project_id is None else " and g.project_id = :p"
    of_subject = "" if subject_id is None else " and g.account_id = :a"
    rows = s.rows(f"{_GRANT} where 1 = 1{of_project}{of_subject} order by g.id", {"p": project_id, "a": subject_id})
    return [made for made in map(_grant, rows) if made is not None]


def find_grant(s: Session, grant_id: int) -> tuple[Grant, int | None] | None:
    """A grant and the id of its project."""
    row = s.row(f"{_GRANT} where g.id = :g", {"g": grant_id})
    made = None if row is None else _grant(row)
    return None if row is None or made is None else (made, row[7])


def insert_grant(
    s: Session, account_id: int, role: Role, project_id: int | None, aliases: tuple[str, ...], *, by: str, at: int
) -> int:
    """Give a role; returns the grant's id."""
    row = s.row(
        "insert into access_grant(account_id, role, project_id, aliases, at, granted_by)"
        " values (:a, :r, :p, :x, :at, :by) returning id",
        {"a": account_id, "r": str(role), "p": project_id, "x": json.dumps(aliases), "at": at, "by": by},
    )
    return int(row[0]) if row else 0


def delete_grant(s: Session, grant_id: int) -> None:
    """Take a grant back."""
    s.run("delete from access_grant where id = :g", {"g": grant_id})


def _grant(row: Row) -> Grant | None:
    """What a row gives; one that no release writes gives nothing."""
    number, subject, role, project, aliases, at, by, project_id = row
    patterns = _texts(aliases)
    if role not in set(Role) or not patterns or (project is None) != (project_id is None):
        return None
    return Grant(number, subject, Role(role), project, patterns, from_micros(at), by)


# --- protected aliases


def protections(s: Session, project_id: int) -> tuple[Protection, ...]:
    """The protected aliases of a project. One that cannot be read asks for the highest role."""
    rows = s.rows("select pattern, role from protected_alias where project_id = :p order by pattern", {"p": project_id})
    known = set(Role)
    return tuple(Protection(pattern, Role(role) if role in known else Role.ADMIN) for pattern, role in rows)


def replace_protections(s: Session, project_id: int, protected: tuple[Protection, ...]) -> None:
    """Protect these aliases of a project and no others."""
    s.run("delete from protected_alias where project_id = :p", {"p": project_id})
    s.run_many(
        "insert into protected_alias(project_id, pattern, role) values (:p, :x, :r)",
        [{"p": project_id, "x": one.pattern, "r": str(one.role)} for one in protected],
    )


# --- tokens


def find_token(s: Session, token_id: str) -> TokenRow | None:
    """A token by its id, whether it is good or not."""
    row = s.row(f"{_STORED} where t.id = :t", {"t": token_id})
    return None if row is None else _token(row)


def tokens(s: Session, account_id: int | None, *, at: int | None = None) -> list[TokenInfo]:
    """Tokens of an account or of all, newest first; only those that are good at a time, where one is given."""
    of_account = "" if account_id is None else " and t.account_id = :a"
    good = "" if at is None else " and t.revoked_at is null and (t.expires_at is null or t.expires_at > :at)"
    rows = s.rows(
        f"{_STORED} where 1 = 1{of_account}{good} order by t.created_at desc, t.id", {"a": account_id, "at": at}
    )
    return [_token(row).info for row in rows]


def count_good(s: Session, account_id: int, at: int) -> int:
    """How many tokens of an account are good at a time."""
    row = s.row(
        "select count(*) from access_token where account_id = :a and revoked_at is null"
        " and (expires_at is null or expires_at > :at)",
        {"a": account_id, "at": at},
    )
    return int(row[0]) if row else 0


def insert_token(
    s: Session,
    token_id: str,
    secret: bytes,
    account_id: int,
    *,
    label: str,
    scope: TokenScope,
    by: str,
    at: int,
    expires_at: int,
) -> None:
    """Keep a new token's digest."""
    s.run(
        "insert into access_token(id, secret, account_id, label, scope, created_at, created_by, expires_at)"
        " values (:t, :secret, :a, :label, :scope, :at, :by, :end)",
        {
            "t": token_id,
            "secret": secret,
            "a": account_id,
            "label": label,
            "scope": json.dumps(scope_plain(scope)),
            "at": at,
            "by": by,
            "end": expires_at,
        },
    )


def revoke_token(s: Session, token_id: str, at: int) -> None:
    """Let a token be good no more."""
    s.run("update access_token set revoked_at = :at where id = :t and revoked_at is null", {"at": at, "t": token_id})


def touch_token(s: Session, token_id: str, at: int) -> None:
    """Note that a token was used."""
    s.run("update access_token set last_used_at = :at where id = :t", {"at": at, "t": token_id})


def unused_since(s: Session, token_id: str, at: int) -> bool:
    """Whether a token was not used since some time."""
    row = s.row("select 1 from access_token where id = :t and last_used_at > :at", {"t": token_id, "at": at})
    return row is None


def sealed(secret: bytes) -> str:
    """What the audit tells of a token's digest, so that it cannot be replaced unseen: the SHA-256 of it, in hex."""
    return sha256(secret).hexdigest()


def scope_plain(scope: TokenScope) -> dict[str, Any]:
    """A scope as plain JSON values."""
    return {
        "projects": None if scope.projects is None else list(scope.projects),
        "roles": None if scope.roles is None else [str(role) for role in scope.roles],
        "read_only": scope.read_only,
    }


def _token(row: Row) -> TokenRow:
    token_id, account, label, scope, created, by, expires, revoked, used, secret, account_id, kind, disabled = row
    info = TokenInfo(
        token_id,
        account,
        label,
        _scope(scope),
        from_micros(created),
        by,
        None if expires is None else from_micros(expires),
        None if revoked is None else from_micros(revoked),
        None if used is None else from_micros(used),
    )
    return TokenRow(info, bytes(secret), account_id, kind, disabled is not None or kind not in ACCOUNT_KINDS)


def _scope(text: str) -> TokenScope:
    """A stored scope. One that cannot be read leaves nothing: an empty one would leave all."""
    try:
        given = json.loads(text)
        projects, roles, read_only = given["projects"], given["roles"], given["read_only"]
        return TokenScope(
            None if projects is None else tuple(str(p) for p in projects),
            None if roles is None else tuple(Role(r) for r in roles),
            bool(read_only),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return TokenScope((), (), True)


def _texts(text: str) -> tuple[str, ...]:
    try:
        made = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return ()
    return tuple(made) if isinstance(made, list) and all(isinstance(one, str) for one in made) else ()


# --- who operates


_OPERATES = (
    "select distinct x.id, x.name from account x where x.disabled_at is null and x.kind <> 'team' and exists"
    " (select 1 from access_grant g where g.project_id is null and g.role = 'admin' and (g.account_id = x.id"
    " or g.account_id in (select m.team_id from membership m join account t on t.id = m.team_id"
    " where m.member_id = x.id and t.disabled_at is null))) order by x.name"
)


def operators(s: Session) -> dict[int, str]:
    """Id -> name of every account that can administer the whole registry."""
    return {r[0]: r[1] for r in s.rows(_OPERATES)}


def linked(s: Session, account_id: int) -> bool:
    """Whether an account can be reached through a login provider."""
    return s.row("select 1 from identity_link where account_id = :a limit 1", {"a": account_id}) is not None


# --- login providers


def find_link(s: Session, issuer: str, subject: str) -> AccountRow | None:
    """The account of a login provider's identity."""
    row = s.row(
        f"select {_ACCOUNT} from identity_link l join account a on a.id = l.account_id"
        " where l.issuer = :i and l.subject = :s",
        {"i": issuer, "s": subject},
    )
    return None if row is None else AccountRow(*row)


def insert_link(s: Session, issuer: str, subject: str, account_id: int, *, at: int) -> None:
    """Let a login provider's identity be an account."""
    s.run(
        "insert into identity_link(issuer, subject, account_id, at) values (:i, :s, :a, :at)",
        {"i": issuer, "s": subject, "a": account_id, "at": at},
    )


# --- all there is, to be held against the audit


def all_accounts(s: Session) -> dict[str, tuple[str, bool]]:
    """Name -> kind, and whether it is disabled."""
    rows = s.rows("select name, kind, disabled_at from account")
    return {name: (kind, disabled is not None) for name, kind, disabled in rows}


def all_members(s: Session) -> set[tuple[str, str]]:
    """Team and member."""
    found = s.rows(
        "select t.name, a.name from membership m join account t on t.id = m.team_id"
        " join account a on a.id = m.member_id"
    )
    return {(team, member) for team, member in found}


def all_grants(s: Session) -> dict[int, tuple[str, str, str, tuple[str, ...]]]:
    """Number -> subject, role, project (empty: every one), aliases."""
    return {r[0]: (r[1], str(r[2]), r[3] or "", _texts(r[4])) for r in s.rows(_GRANT)}


def all_protections(s: Session) -> dict[tuple[str, str], str]:
    """Project and pattern -> role."""
    found = s.rows("select p.name, x.pattern, x.role from protected_alias x join project p on p.id = x.project_id")
    return {(project, pattern): str(role) for project, pattern, role in found}


def all_tokens(s: Session) -> dict[str, tuple[str, str, int | None, str, bool]]:
    """Id -> account, sealed digest, end, scope as canonical JSON, whether it is revoked."""
    found = s.rows(
        "select t.id, a.name, t.secret, t.expires_at, t.scope, t.revoked_at from access_token t"
        " join account a on a.id = t.account_id"
    )
    return {
        r[0]: (r[1], sealed(bytes(r[2])), r[3], canonical_bytes(scope_plain(_scope(r[4]))).decode(), r[5] is not None)
        for r in found
    }


def all_links(s: Session) -> dict[tuple[str, str], str]:
    """Issuer and subject -> account."""
    found = s.rows("select l.issuer, l.subject, a.name from identity_link l join account a on a.id = l.account_id")
    return {(issuer, subject): name for issuer, subject, name in found}
