"""The file of login providers, given to `llmartifacts serve --oidc FILE`.

    providers:
      - name: corp
        issuer: https://login.example.com
        client_id: llmartifacts              # people log in with it (llmartifacts login)
        rules:
          - claims: {groups: ml-*}           # every claim must match; * and ? stand for any text
            user: preferred_username         # a person, known by issuer and sub; the claim names a new account
            teams: [ml]                      # of a new account
      - name: github
        issuer: https://token.actions.githubusercontent.com
        audience: https://registry.example.com
        rules:
          - claims: {repository: acme/agent, ref: refs/heads/main, environment: prod}
            account: ci-agent                # a service account, made by an administrator
            scope: {projects: [acme], roles: [writer]}
            life: 30m

The first rule of which every claim matches counts. A person is whoever has the same issuer and subject as at the first
login; an e-mail address or a user name may change hands, so they name a new account and never find an old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llmartifacts.client.fetch import check_url
from llmartifacts.errors import InvalidValue, LlmartifactsError, NotFound
from llmartifacts.formats.yaml import parse_yaml
from llmartifacts.records.names import check_name
from llmartifacts.records.rights import Role, TokenScope, check_scope
from llmartifacts.records.times import parse_duration

T = TypeVar("T")
MAX_FILE = 256 * 1024
PEOPLE_LIFE = timedelta(hours=12)
WORKLOAD_LIFE = timedelta(hours=1)
MIN_LIFE = timedelta(minutes=1)
FRESH = timedelta(minutes=10)
"""How old a person's ID token may be; it is exchanged in the moment of the login."""
LONGEST = timedelta(hours=24)
"""How long any ID token may be good for, from when it was issued."""
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")
_CLAIM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")


def _name(text: str) -> str:
    return _value(lambda: check_name(text))


def _issuer(text: str) -> str:
    checked = _value(lambda: check_url(text, field="issuer", loopback=True))
    if "?" in checked:
        raise ValueError("an issuer has no query")
    return checked


def _claim_name(text: str) -> str:
    if not _CLAIM.fullmatch(text):
        raise ValueError("that is no name of a claim")
    return text


def _life(value: Any) -> Any:
    return _value(lambda: parse_duration(value)) if isinstance(value, str) else value


def _value(check: Callable[[], T]) -> T:
    """What a check gives; its error as pydantic takes them."""
    try:
        return check()
    except LlmartifactsError as error:
        raise ValueError(error.message) from None


Name = Annotated[str, AfterValidator(_name)]
ClaimName = Annotated[str, AfterValidator(_claim_name)]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
Wanted = bool | Pattern | Annotated[list[Pattern], Field(min_length=1, max_length=64)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Scope(_Model):
    """What a token leaves of its account's rights.

    Attributes:
        projects: Names of the projects it is good for.
        roles: Roles whose permissions it leaves.
        read_only: Whether it is good for reading only.
    """

    projects: list[Name] | None = None
    roles: list[str] | None = None
    read_only: bool = False

    @model_validator(mode="after")
    def _checked(self) -> Scope:
        _value(self.record)
        return self

    def record(self) -> TokenScope:
        """The scope as rights know it."""
        roles = None if self.roles is None else [Role(r) if r in list(Role) else r for r in self.roles]
        return check_scope(self.projects, roles, self.read_only)


class Rule(_Model):
    """Who is let in, as whom, for how long.

    Attributes:
        claims: Claim -> what it must be: text in which `*` and `?` stand for any text, a list of such, true or false.
        everyone: Whether everybody whom the provider knows is let in; instead of `claims`.
        account: The account that they are.
        user: The claim that names the account of a new person; instead of `account`.
        teams: Teams that a new person is put into.
        scope: What the token leaves of the account's rights.
        life: How long the token is good for, such as `30m`.
    """

    claims: dict[ClaimName, Wanted] = Field(default_factory=dict, max_length=32)
    everyone: bool = False
    account: Name | None = None
    user: ClaimName | None = None
    teams: list[Name] = Field(default_factory=list, max_length=32)
    scope: Scope = Field(default_factory=Scope)
    life: Annotated[timedelta, BeforeValidator(_life)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if bool(self.claims) == self.everyone:
            raise ValueError("give the claims that let somebody in, or everyone: true")
        if (self.account is None) == (self.user is None):
            raise ValueError("give either the account, or the claim that names a new user")
        if self.teams and self.user is None:
            raise ValueError("teams are of new users; put an account into teams with llmartifacts team add-member")
        if self.life is not None and not MIN_LIFE <= self.life <= PEOPLE_LIFE:
            raise ValueError("a token is good for 1m to 12h")
        return self

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether every claim is as it must be."""
        if "email" in self.claims and claims.get("email_verified") is not True:
            return False  # anybody could have claimed the address
        return all(_matches(wanted, claims.get(name)) for name, wanted in self.claims.items())

    @property
    def names_one(self) -> bool:
        """Whether it lets in one subject only, named in full."""
        subject = self.claims.get("sub")
        return isinstance(subject, str) and not set("*?") & set(subject)


class Provider(_Model):
    """A login provider.

    Attributes:
        name: What it is called here.
        issuer: Its address, exactly as its tokens name it.
        client_id: Id of the registry there; where it is given, people log in with it.
        audience: Whom its tokens must be for; by default the client id.
        algorithms: Signatures that are taken.
        scopes: What to ask for when people log in.
        rules: Who is let in.
    """

    name: Name
    issuer: Annotated[str, AfterValidator(_issuer)]
    client_id: Annotated[str, Field(min_length=1, max_length=512)] = ""
    audience: Annotated[str, Field(min_length=1, max_length=512)] = ""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = Field(default_factory=lambda: list(ALGORITHMS))
    scopes: Annotated[list[str], Field(max_length=32)] = Field(default_factory=lambda: ["openid", "profile", "email"])
    rules: Annotated[list[Rule], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _whole(self) -> Provider:
        if not self.client_id and not self.audience:
            raise ValueError("give a client_id, for people, or an audience, for workloads")
        if self.client_id and self.audience not in ("", self.client_id):
            raise ValueError("people's tokens are for the client_id; leave the audience out")
        for rule in self.rules:
            if not self.client_id and rule.user is not None:
                raise ValueError("rules with `user` are for people: give a client_id")
            if rule.life is not None and rule.life > self.longest_life:
                raise ValueError("a workload's token is good for at most 1h")
        return self

    @property
    def wanted_audience(self) -> str:
        """Whom its tokens must be for."""
        return self.audience or self.client_id

    @property
    def for_people(self) -> bool:
        """Whether people log in with it; else its tokens are those of workloads."""
        return bool(self.client_id)

    @property
    def longest_life(self) -> timedelta:
        """How long a token that is made for one of its own may be good for."""
        return PEOPLE_LIFE if self.for_people else WORKLOAD_LIFE


class Providers(_Model):
    """Every login provider.

    Attributes:
        providers: The providers; each issuer comes once.
    """

    providers: Annotated[list[Provider], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _once(self) -> Providers:
        for what in ("name", "issuer"):
            seen = [getattr(one, what) for one in self.providers]
            if len(set(seen)) < len(seen):
                raise ValueError(f"an {what} comes twice" if what == "issuer" else f"a {what} comes twice")
        return self


def load(path: str) -> Providers:
    """Read the file of login providers.

    Raises:
        NotFound: There is no such file.
        InvalidValue: It is not as described above; the place is named.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise NotFound(
            f"the file of login providers cannot be read: {error.strerror}", what="file", name=path, field="--oidc"
        ) from None
    value = parse_yaml(data, origin=path)
    try:
        return Providers.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
        raise InvalidValue(
            first["msg"].removeprefix("Value error, "), field=place, origin=path, next_step="See the page on login."
        ) from None


def _matches(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(found, list):
        return any(_matches(wanted, one) for one in found if isinstance(one, str))
    if isinstance(found, int):
        found = str(found)
    if not isinstance(found, str):
        return False
    # A bracket stands for itself: nobody expects one in the name of a repository to be a choice.
    patterns = [wanted] if isinstance(wanted, str) else wanted
    return any(fnmatchcase(found, one.replace("[", "[[]")) for one in patterns)
