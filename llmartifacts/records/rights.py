"""Who may do what: accounts, roles, grants, tokens. Pure rules; whoever has them loaded asks `Identity.may`.

    account  --grant(role, project)-->  permissions          directly, and by the teams that it is in
    token    --scope-->                 fewer permissions     never more

What an identity may not see is not there for it (`NotFound`, worded as if it were absent); what it sees and may not
do is `NotAllowed`.

A token is `lla_<id>_<secret>_<checksum>`. Secret scanners find one with `TOKEN_PATTERN`, and tell a real one from
chance by the checksum: CRC-32 of everything before the last `_`, in base 62.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256

from llmartifacts.errors import InvalidInput, NotAllowed, NotFound, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.names import check_name, did_you_mean, near_names
from llmartifacts.records.patterns import alias_matches, check_patterns

USER = "user"
SERVICE = "service"
TEAM = "team"
ACCOUNT_KINDS = (USER, SERVICE, TEAM)

DEFAULT_LIFE = timedelta(days=90)
"""Of a token, where nobody says otherwise."""
MAX_LIFE = timedelta(days=366)
MAX_SCOPE_PROJECTS = 256
EVERY_ALIAS = ("*",)

TOKEN_PATTERN = r"lla_[0-9A-Za-z]{10}_[0-9A-Za-z]{32}_[0-9A-Za-z]{6}"  # noqa: S105 - the form of one, and none
"""Finds tokens in text, for secret scanners; `token_id` says whether one is well formed."""
_TOKEN = re.compile(TOKEN_PATTERN)
_TOKEN_ID = re.compile(r"[0-9A-Za-z]{10}")
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Role(StrEnum):
    """What a grant gives, in one project or in every one."""

    READER = "reader"
    WRITER = "writer"
    EVALUATOR = "evaluator"
    PROMOTER = "promoter"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a route asks for."""

    PUBLIC = "public"
    """Nothing, not even a token."""
    SIGNED_IN = "signed_in"
    """Any valid token; the answer holds only what it may see."""
    READ = "read"
    COMMIT = "commit"
    """To log something: `LOG`, or `EVALUATE` for reports."""
    LOG = "log"
    EVALUATE = "evaluate"
    """To log reports that count as evidence."""
    PROMOTE = "promote"
    APPROVE = "approve"
    ADMIN = "admin"
    OPERATE = "operate"
    """To administer the whole registry: the role `admin` in every project."""


_READER = frozenset({Permission.READ})
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.READER: _READER,
    Role.WRITER: _READER | {Permission.COMMIT, Permission.LOG},
    Role.EVALUATOR: _READER | {Permission.COMMIT, Permission.EVALUATE},
    Role.PROMOTER: _READER | {Permission.PROMOTE, Permission.APPROVE},
    Role.ADMIN: frozenset(Permission) - {Permission.PUBLIC, Permission.SIGNED_IN, Permission.OPERATE},
}
"""Role -> what it permits in its project."""
_BY_ALIAS = frozenset({Permission.PROMOTE, Permission.APPROVE})
"""Permissions that the aliases of a grant limit."""


@dataclass(frozen=True, slots=True)
class Account:
    """A person, a service or a team.

    Attributes:
        name: Its name; what the audit calls the actor, and keys and approvals the person.
        kind: `user`, `service` or `team`.
        created_at: When it was made, UTC.
        created_by: Who made it.
        disabled_at: When it was disabled; None if it is not.
        teams: Names of the teams that it is in, sorted.
        members: Of a team, the names of those in it, sorted.
    """

    name: str
    kind: str
    created_at: datetime
    created_by: str
    disabled_at: datetime | None = None
    teams: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A role of an account.

    Attributes:
        id: Its number, which revokes it.
        subject: Name of the account or the team that has it.
        role: The role.
        project: The project it is for; None for every project, also those that come later.
        aliases: Of a promoter, patterns of the aliases that it may move and approve for; see `alias_matches`.
        at: When it was given, UTC; None for one that is not stored.
        granted_by: Who gave it.
    """

    id: int
    subject: str
    role: Role
    project: str | None = None
    aliases: tuple[str, ...] = EVERY_ALIAS
    at: datetime | None = None
    granted_by: str = ""

    def gives(self, permission: Permission, project: str | None, alias: str | None = None) -> bool:
        """Whether it permits something in a project (None: in every project), and there for an alias."""
        if self.project is not None and self.project != project:
            return False
        if permission is Permission.OPERATE:
            return self.role is Role.ADMIN and self.project is None
        if permission not in PERMISSIONS[self.role]:
            return False
        return alias is None or permission not in _BY_ALIAS or alias_matches(self.aliases, alias)

    def __str__(self) -> str:
        limits = "" if self.aliases == EVERY_ALIAS else f" for {' '.join(self.aliases)}"
        return f"{self.role} of {self.project or 'every project'}{limits}"


@dataclass(frozen=True, slots=True)
class Protection:
    """An alias that only those of a role may move, whatever their grants' patterns say.

    Attributes:
        pattern: Which aliases of the project; a pattern without `!`.
        role: The role that one must hold there.
    """

    pattern: str
    role: Role

    def __str__(self) -> str:
        return f"{self.pattern}: {self.role}"


@dataclass(frozen=True, slots=True)
class TokenScope:
    """What a token leaves of its account's rights.

    Attributes:
        projects: Names of the projects it is good for; None for every one.
        roles: Roles whose permissions it leaves, as far as the account has them; None for all.
        read_only: Whether it leaves nothing but reading.
    """

    projects: tuple[str, ...] | None = None
    roles: tuple[Role, ...] | None = None
    read_only: bool = False

    def leaves(self, permission: Permission, project: str | None = None) -> bool:
        """Whether a permission is within it, in a project (None: in every project)."""
        if permission in (Permission.PUBLIC, Permission.SIGNED_IN):
            return True
        if self.projects is not None and project not in self.projects:
            return False
        if permission is Permission.OPERATE and self.projects is not None:
            return False
        return permission in self._permissions()

    def within(self, other: TokenScope) -> bool:
        """Whether another scope leaves everything that this one leaves."""
        if other.projects is not None and not (self.projects is not None and set(self.projects) <= set(other.projects)):
            return False
        return self._permissions() <= other._permissions()

    def _permissions(self) -> frozenset[Permission]:
        if self.roles is None:
            held = PERMISSIONS[Role.ADMIN] | {Permission.OPERATE}
        else:
            held = frozenset().union(*(PERMISSIONS[role] for role in self.roles))
            held |= {Permission.OPERATE} if Role.ADMIN in self.roles else frozenset()
        return held & _READER if self.read_only else held

    def __str__(self) -> str:
        parts = []
        if self.projects is not None:
            parts.append(f"in {', '.join(self.projects) or 'no project'}")
        if self.roles is not None:
            parts.append(f"as {', '.join(self.roles) or 'no role'}")
        if self.read_only:
            parts.append("read only")
        return ", ".join(parts) or "all of its account's rights"


UNLIMITED = TokenScope()


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token as it is stored; the token itself is shown once, when it is made.

    Attributes:
        id: Its public part, 10 letters and digits: the token begins with `lla_<id>_`.
        account: Whose it is.
        label: What it is for, in its maker's words.
        scope: What it leaves of the account's rights.
        created_at: When it was made, UTC.
        created_by: Who made it.
        expires_at: From when on it is no longer good.
        revoked_at: When it was revoked; None if it was not.
        last_used_at: When it was used last, to the day or so; None if it was not.
    """

    id: str
    account: str
    label: str
    scope: TokenScope
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def good(self, at: datetime) -> bool:
        """Whether it is neither revoked nor expired at a time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made, with the one copy of its text.

    Attributes:
        text: The token. Whoever has it is its account.
        info: What is stored of it.
        warning: What its maker should know, in one sentence; empty if nothing.
    """

    text: str
    info: TokenInfo
    warning: str = ""

    def __repr__(self) -> str:
        return f"NewToken({self.info.id!r})"  # a traceback or a log shows no secret


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, with everything that decides what they may do.

    Attributes:
        name: Name of the account: the actor of everything that it does.
        kind: `user` or `service`.
        token_id: Public part of the token that was shown; empty where there is none.
        grants: The account's grants, and those of its teams.
        scope: What the token leaves of them.
        expires_at: When the token ends; None where there is none.

    Example:
        >>> ann = Identity("ann", "user", grants=(Grant(1, "ann", Role.PROMOTER, "acme", ("*", "!prod")),))
        >>> ann.may(Permission.PROMOTE, "acme", "staging"), ann.may(Permission.PROMOTE, "acme", "prod")
        (True, False)
        >>> ann.sees("other")
        False
    """

    name: str
    kind: str
    token_id: str = ""
    grants: tuple[Grant, ...] = ()
    scope: TokenScope = UNLIMITED
    expires_at: datetime | None = None

    def may(self, permission: Permission, project: str | None = None, alias: str | None = None) -> bool:
        """Whether it may do something.

        Args:
            permission: What.
            project: Where; None for the whole registry, that is in every project.
            alias: Which alias is moved or approved for, where one is.
        """
        if permission in (Permission.PUBLIC, Permission.SIGNED_IN):
            return True
        if not self.scope.leaves(permission, project):
            return False
        return any(grant.gives(permission, project, alias) for grant in self.grants)

    def sees(self, project: str) -> bool:
        """Whether it may know of a project and what is in it."""
        return self.may(Permission.READ, project)

    @property
    def sees_all(self) -> bool:
        """Whether it sees every project, also those that come later."""
        return self.may(Permission.READ)

    def visible(self) -> frozenset[str] | None:
        """Names of the projects it may see; None for every one. A name says nothing of whether it is there."""
        if self.sees_all:
            return None
        named = {g.project for g in self.grants if g.project is not None} | set(self.scope.projects or ())
        return frozenset(name for name in named if self.sees(name))

    def holds(self, role: Role, project: str | None = None) -> bool:
        """Whether it has a role in a project (None: in every one), or one that permits all the role permits."""
        needed = set(PERMISSIONS[role]) | ({Permission.OPERATE} if role is Role.ADMIN and project is None else set())
        return all(self.may(permission, project) for permission in needed)


def operator(name: str) -> Identity:
    """Who works on a registry's files or database themselves: nothing there can hold them back.

    Args:
        name: What the audit shall call them.
    """
    return Identity(name, USER, grants=(Grant(0, name, Role.ADMIN),))


# --- what is asked for, or an error


def require(
    identity: Identity,
    permission: Permission,
    project: str | None = None,
    aliases: Iterable[str] = (),
    protections: Sequence[Protection] = (),
) -> None:
    """Refuse what an identity may not do.

    Args:
        identity: Who asks.
        permission: What for.
        project: In which project; None for the whole registry.
        aliases: The aliases that would be moved or approved for; every one of them is checked.
        protections: Those of the project; they hold where `permission` is `PROMOTE`.

    Raises:
        NotFound: It may not see the project. Worded as if that were not there.
        NotAllowed: It sees the project and may not do this.
    """
    if project is not None and not identity.sees(project) and permission not in _ANYBODY:
        raise unseen_project(identity, project)
    aliases = list(aliases)
    if not identity.may(permission, project):
        step = _whom_to_ask(identity, permission, project, aliases)
        raise NotAllowed(_denied(identity, permission, project), next_step=step)
    for alias in aliases:
        if not identity.may(permission, project, alias):
            what = "move" if permission is Permission.PROMOTE else "approve for"
            raise NotAllowed(
                f"{identity.name} may not {what} the alias {alias!r} of {project}",
                field="alias",
                next_step="The grant that lets you move aliases leaves this one out; ask somebody who may.",
            )
        if permission is Permission.PROMOTE:
            _require_protections(identity, project, alias, protections)


_ANYBODY = (Permission.PUBLIC, Permission.SIGNED_IN)


def _require_protections(
    identity: Identity, project: str | None, alias: str, protections: Sequence[Protection]
) -> None:
    for protection in protections:
        if fnmatchcase(alias, protection.pattern) and not identity.holds(protection.role, project):
            raise NotAllowed(
                f"the alias {alias!r} of {project} is protected: only the role {protection.role} may move it",
                field="alias",
                next_step=f"Ask somebody who holds {protection.role} there.",
            )


def unseen_project(identity: Identity, project: str) -> NotFound:
    """The error for a project that is not there, or that the identity may not know of: the same for both."""
    near = near_names(project, sorted(identity.visible() or ()))
    return NotFound(
        f"there is no project {project!r}", what="project", name=project, near=near, next_step=unseen_hint(near)
    )


def unseen_hint(near: Sequence[str]) -> str:
    """What to do about a project that is not there for somebody; no word of whether it is there for others."""
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}It may be that you have no rights in it: see llmartifacts user whoami, and ask an administrator."


def _denied(identity: Identity, permission: Permission, project: str | None) -> str:
    if permission in (Permission.ADMIN, Permission.OPERATE):
        where = "the whole registry" if project is None or permission is Permission.OPERATE else project
    else:
        where = f"in {project}" if project is not None else "in every project"
    held = any(grant.gives(permission, project) for grant in identity.grants)
    why = f"; its token is limited: {identity.scope}" if held else ""
    return f"{identity.name} may not {_ACTS[permission]} {where}{why}"


def _whom_to_ask(identity: Identity, permission: Permission, project: str | None, aliases: Sequence[str]) -> str:
    if project is None or permission is Permission.OPERATE:
        # Nobody needs all rights for one command: whoever has them runs it.
        return "An administrator of the registry has to do it: ask one to run this very command."
    roles = [role for role in Role if permission in PERMISSIONS[role]]
    role = roles[0] if roles else Role.ADMIN
    # Without it a promoter moves every alias, which is more than was asked for.
    limit = "".join(f" --alias {alias}" for alias in aliases or ["ALIAS"]) if role is Role.PROMOTER else ""
    return f"An admin can grant it: llmartifacts grant add {identity.name} {role} --project {project}{limit}."


_ACTS: Mapping[Permission, str] = {
    Permission.READ: "read",
    Permission.COMMIT: "log anything",
    Permission.LOG: "write",
    Permission.EVALUATE: "record evidence",
    Permission.PROMOTE: "move aliases",
    Permission.APPROVE: "approve",
    Permission.ADMIN: "administer",
    Permission.OPERATE: "administer",
}


def require_grantable(by: Identity, role: Role, project: str | None) -> None:
    """Refuse to let somebody give, or take away, a role that they could not use themselves.

    Raises:
        NotFound: They may not see the project.
        NotAllowed: They do not administer the project, or for every project the registry.
    """
    require(by, Permission.ADMIN if project is not None else Permission.OPERATE, project)
    if not by.holds(role, project):
        raise NotAllowed(f"{by.name} cannot grant {role}: nobody grants more than they hold", field="role")


# --- what is given


def check_role(value: object, *, field: str = "role") -> Role:
    """Check the name of a role. Raises `InvalidInput`."""
    try:
        return Role(value) if isinstance(value, str) else Role("")
    except ValueError:
        raise InvalidInput(
            f"{shown(value, 60)} is no role",
            field=field,
            next_step=did_you_mean(value, list(Role), f"One of {', '.join(Role)}."),
        ) from None


def check_grant(role: object, aliases: object) -> tuple[Role, tuple[str, ...]]:
    """Check what a grant gives. Raises `InvalidInput`: only a promoter's is limited by aliases."""
    given = check_role(role)
    patterns = check_patterns(aliases)
    if patterns != EVERY_ALIAS and given is not Role.PROMOTER:
        raise InvalidInput(
            f"the aliases of a grant limit what a promoter moves, and this one gives {given}",
            field="aliases",
            next_step="Leave the aliases out, or grant promoter.",
        )
    return given, patterns


def check_protection(pattern: object, role: object) -> Protection:
    """Check a protected alias. Raises `InvalidInput`: a malformed pattern, one that leaves out, or no role."""
    found = check_patterns([pattern], field="pattern")[0]
    return Protection(found, check_role(role))


# --- tokens


def make_token() -> tuple[str, str]:
    """A new random token: its id and its text. The secret has 190 bits."""
    token_id = _random(10)
    body = f"lla_{token_id}_{_random(32)}"
    return token_id, f"{body}_{_checksum(body)}"


def token_id(text: object) -> str | None:
    """The id in a token, or None where it is malformed or its checksum is wrong: such a one was never given out."""
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        return None
    body, _, checksum = text.rpartition("_")
    if not secrets.compare_digest(checksum, _checksum(body)):
        return None
    return body.split("_")[1]


def check_days(days: object, *, field: str = "days") -> int | None:
    """Check the life of a token; None is the usual one. Raises `InvalidInput`."""
    if days is None or (type(days) is int and 1 <= days <= MAX_LIFE.days):
        return days
    raise InvalidInput(
        f"{shown(days, 40)} is no life of a token",
        field=field,
        next_step=f"Give a number of days from 1 to {MAX_LIFE.days}.",
    )


def token_digest(text: str) -> bytes:
    """What a registry keeps of a token: the SHA-256 of its text, 32 bytes."""
    return sha256(text.encode()).digest()


def check_token_id(value: object, *, field: str = "token") -> str:
    """Check the public part of a token; of a whole token, or its beginning, the part is taken.

    Raises:
        InvalidInput: It is none.
    """
    text = value if isinstance(value, str) else ""
    if text.startswith("lla_"):
        text = text.split("_")[1]
    if not _TOKEN_ID.fullmatch(text):
        # Not shown: it could be a secret.
        raise InvalidInput("that is no token id", field=field, next_step="`llmartifacts token ls` shows the ids.")
    return text


def check_scope(
    projects: object = None, roles: object = None, read_only: object = False, *, field: str = "scope"
) -> TokenScope:
    """Check the scope of a token.

    Raises:
        InvalidInput: A list of nothing, or of what is no project name or role.
        TooLarge: More than 256 projects.
    """
    if not isinstance(read_only, bool):
        raise InvalidInput(f"{shown(read_only, 20)} is neither true nor false", field=f"{field}.read_only")
    for name, given in (("projects", projects), ("roles", roles)):
        if given is not None and (not isinstance(given, list | tuple) or not given):
            raise InvalidInput(f"{name} is no list with something in it", field=f"{field}.{name}")
    names: tuple[str, ...] | None = None
    if isinstance(projects, list | tuple):
        if len(projects) > MAX_SCOPE_PROJECTS:
            raise TooLarge(f"{len(projects)} projects, the limit is {MAX_SCOPE_PROJECTS}", field=f"{field}.projects")
        names = tuple(sorted({check_name(p, field=f"{field}.projects") for p in projects}))
    given_roles: tuple[Role, ...] | None = None
    if isinstance(roles, list | tuple):
        given_roles = tuple(sorted({check_role(r, field=f"{field}.roles") for r in roles}))
    return TokenScope(names, given_roles, read_only)


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    made = ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        made = _BASE62[rest] + made
    return made
