"""Bodies of accounts, grants and tokens."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict, StringConstraints

from llmartifacts.records import rights
from llmartifacts.records.patterns import MAX_PATTERNS
from llmartifacts.wire.bodies.base import Body, Count, Many, Model, Query
from llmartifacts.wire.bodies.fields import Line, Name, QueryFlag, Time
from llmartifacts.wire.bodies.versions import NamesQuery

AccountKind = Literal["user", "service", "team"]
RoleText = Annotated[rights.Role, Strict(False)]
AliasPattern = Annotated[str, StringConstraints(pattern=r"^!?[a-z0-9*?][a-z0-9._*?-]{0,127}$", max_length=129)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{10}$", max_length=10)]
MAX_ID_TOKEN = 16_384
"""Characters of a token of another party (OIDC)."""


class Account(Body[rights.Account]):
    """A person, a service or a team."""

    RECORD: ClassVar[type[Any]] = rights.Account

    name: Name
    kind: AccountKind
    created_at: Time
    created_by: str
    disabled_at: Time | None = None
    teams: Many[str] = ()
    members: Many[str] = ()


class Grant(Body[rights.Grant]):
    """A role of an account."""

    RECORD: ClassVar[type[Any]] = rights.Grant

    id: Count
    subject: Name
    role: RoleText
    project: Name | None = None
    aliases: Many[AliasPattern] = rights.EVERY_ALIAS
    at: Time | None = None
    granted_by: str = ""


class Protection(Body[rights.Protection]):
    """An alias that only those of a role may move."""

    RECORD: ClassVar[type[Any]] = rights.Protection

    pattern: Annotated[AliasPattern, Field(pattern=r"^[a-z0-9*?][a-z0-9._*?-]{0,127}$")]
    role: RoleText


class TokenScope(Body[rights.TokenScope]):
    """What a token leaves of its account's rights."""

    RECORD: ClassVar[type[Any]] = rights.TokenScope

    projects: Annotated[Many[Name], Field(min_length=1, max_length=rights.MAX_SCOPE_PROJECTS)] | None = None
    roles: Annotated[Many[RoleText], Field(min_length=1, max_length=len(rights.Role))] | None = None
    read_only: bool = False


class TokenInfo(Body[rights.TokenInfo]):
    """A token as it is stored."""

    RECORD: ClassVar[type[Any]] = rights.TokenInfo

    id: TokenId
    account: Name
    label: str
    scope: TokenScope
    created_at: Time
    created_by: str
    expires_at: Time | None
    revoked_at: Time | None = None
    last_used_at: Time | None = None


class NewToken(Body[rights.NewToken]):
    """A token just made, with the one copy of its text."""

    RECORD: ClassVar[type[Any]] = rights.NewToken

    text: str
    info: TokenInfo
    warning: str = ""

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Without the secret: a traceback or a log shows none."""
        return [("id", self.info.id)]


class Identity(Body[rights.Identity]):
    """Who asks, and what they may do."""

    RECORD: ClassVar[type[Any]] = rights.Identity

    name: Name
    kind: AccountKind
    token_id: str = ""
    grants: Many[Grant] = ()
    scope: TokenScope = Field(default_factory=TokenScope)
    expires_at: Time | None = None


class NewAccount(Model):
    """An account to make."""

    name: Name
    kind: AccountKind = "user"


class NewGrant(Model):
    """A role to give."""

    subject: Name
    role: RoleText
    aliases: Annotated[Many[AliasPattern], Field(min_length=1, max_length=MAX_PATTERNS)] = rights.EVERY_ALIAS


class Protections(Model):
    """Every protected alias of a project."""

    protected: Annotated[Many[Protection], Field(max_length=MAX_PATTERNS)]


class TokenRequest(Model):
    """A token to make.

    Attributes:
        label: What it is for.
        account: Whose it shall be; None for one's own.
        scope: What it leaves of the account's rights.
        days: Days it is good for; None for 90.
    """

    label: Line = ""
    account: Name | None = None
    scope: TokenScope = Field(default_factory=TokenScope)
    days: Annotated[int, Field(ge=1, le=rights.MAX_LIFE.days)] | None = None


class Exchange(Model):
    """A token of a login provider (OIDC), to be exchanged for one of the registry."""

    token: Annotated[str, Field(min_length=1, max_length=MAX_ID_TOKEN, pattern=r"^[A-Za-z0-9._~+/=-]+$")]
    label: Line = ""


class AccountsQuery(NamesQuery):
    """A page of accounts, of one kind."""

    kind: AccountKind | None = None


class TokensQuery(Query):
    """Tokens of an account; of one's own, where none is named. With `all`, those that are no longer good too."""

    account: Name | None = None
    all: QueryFlag = False


class GrantsQuery(Query):
    """Grants of one account; all, where none is named."""

    subject: Name | None = None
