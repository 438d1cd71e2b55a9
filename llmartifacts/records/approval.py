"""Approvals: a named person's signed yes, what exactly it is for, and when it no longer is.

An approval binds the registry, the project, the exact set of digests, the alias, what the alias points at now in each
collection (digest and move number) and the policy. It lapses when one of those changes, and only then.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from llmartifacts.errors import InvalidInput, InvalidReference
from llmartifacts.records.arguments import check_line, shown
from llmartifacts.records.digest import Digest, short
from llmartifacts.records.policy import Verdict
from llmartifacts.records.version import Version

_ROLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UNSEEN = re.compile(  # what has no look of its own (Unicode: Default_Ignorable_Code_Point)
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
SKEW = timedelta(minutes=5)
"""How far a signer's clock may be ahead of the registry's."""
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Subject:
    """One version that an approval is for.

    Attributes:
        name: Name of its collection.
        number: N of `vN`.
        digest: Digest of its manifest.
    """

    name: str
    number: int
    digest: Digest

    @classmethod
    def of(cls, version: Version) -> Subject:
        """The one that is a version."""
        return cls(version.name, version.number, version.digest)

    def __str__(self) -> str:
        return f"{self.name}:v{self.number}"


@dataclass(frozen=True, slots=True)
class Serving:
    """What an alias points at in one collection.

    Attributes:
        digest: Digest of the version; None if the alias does not exist there.
        move: The alias's own move number; 0 if it never moved.
    """

    digest: Digest | None = None
    move: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """What an approval is for: one alias, and everything that must stay as it was when somebody said yes.

    Attributes:
        project: Name of the project.
        alias: The alias that shall move.
        subjects: The versions it shall move to, by name.
        serving: Collection name of each subject -> what the alias points at there.
        policy: Digest of the policy in force; None if there is none.
        registry: Which registry, by its audit's origin: another one may hold the same names, digests and moves.
    """

    project: str
    alias: str
    subjects: tuple[Subject, ...]
    serving: Mapping[str, Serving] = field(default_factory=dict)
    policy: Digest | None = None
    registry: str = ""

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.subjects)) or 'nothing'} -> {self.alias}"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key that the registry trusts to speak for a person.

    Attributes:
        id: SHA-256 of the key in the form DER SubjectPublicKeyInfo, 64 hex digits.
        person: Whose it is.
        roles: What the person may speak as, sorted.
        public: The key, as `ed25519:…`.
        added_at: When it was trusted, UTC.
        added_by: Who trusted it.
        replaces: Id of the key that it took the place of; empty if none.
        revoked_at: When it was revoked; None if it is good.
        revoked_by: Who revoked it.
        revoke_reason: Why it was revoked.
    """

    id: str
    person: str
    roles: tuple[str, ...]
    public: str
    added_at: datetime
    added_by: str
    replaces: str = ""
    revoked_at: datetime | None = None
    revoked_by: str = ""
    revoke_reason: str = ""

    @property
    def short(self) -> str:
        """The id shortened for people."""
        return short_key(self.id)


@dataclass(frozen=True, slots=True)
class Approval:
    """A stored approval as it was found at one use, its signature verified then.

    Attributes:
        id: `PROJECT@aN`; what `approve --withdraw` takes.
        binding: What it is for; None where that cannot be read.
        person: Who the trusted key speaks for; empty if it is not known.
        key: Id of the key that signed it.
        roles: Roles of the person now.
        reason: Why, in the person's words.
        at: When it was signed, as the statement says; None where that cannot be read.
        expires: From when on it no longer counts, as the statement says; None for never.
        problem: Why it does not count, whatever it is held against; empty if it does.
        verdict: `PASS` if it is in order, `TAMPERED` if it is not what it claims, else `INCONCLUSIVE`: it is void.
        recorded_at: When the registry took it, UTC.
    """

    id: str
    binding: Binding | None
    person: str
    key: str
    roles: tuple[str, ...] = ()
    reason: str = ""
    at: datetime | None = None
    expires: datetime | None = None
    problem: str = ""
    verdict: Verdict = Verdict.PASS
    recorded_at: datetime | None = None

    @property
    def sound(self) -> bool:
        """Whether it is in order by itself; what it is for is another question."""
        return self.verdict is Verdict.PASS

    def __str__(self) -> str:
        return f"{self.id} by {self.person or 'nobody known'}"


def bind(
    registry: str, project: str, policy: Digest | None, moving: Iterable[tuple[str, Subject, Serving]]
) -> dict[str, Binding]:
    """Alias -> what an approval of moving it must be for.

    Args:
        registry: Origin of the registry.
        project: Name of the project.
        policy: Digest of the policy in force; None if there is none.
        moving: Alias, the version it shall point at, and what it points at now.
    """
    by_alias: dict[str, list[tuple[Subject, Serving]]] = {}
    for alias, subject, serving in moving:
        by_alias.setdefault(alias, []).append((subject, serving))
    made = {}
    for alias, ones in by_alias.items():
        ones.sort(key=lambda one: one[0].name)
        served = {subject.name: serving for subject, serving in ones}
        made[alias] = Binding(project, alias, tuple(subject for subject, _ in ones), served, policy, registry)
    return made


def mismatches(approval: Binding, now: Binding) -> list[str]:
    """What has changed since an approval was given; none if it still holds.

    Args:
        approval: What the approval is for.
        now: What is about to move, and what holds now.

    Returns:
        One readable sentence for each bound field that is another.

    Example:
        >>> from llmartifacts.records.digest import digest_of
        >>> given = Binding("default", "prod", (Subject("agent", 2, digest_of(b"2")),), {"agent": Serving(None, 0)})
        >>> asked = Binding("default", "prod", (Subject("agent", 3, digest_of(b"3")),), {"agent": Serving(None, 0)})
        >>> mismatches(given, asked)
        ['agent is v3 now, the approval is for v2']
    """
    told = []
    if approval.registry != now.registry:
        told.append(f"it is for the registry {approval.registry}, and this is {now.registry}")
    if approval.project != now.project:
        told.append(f"it is for the project {approval.project}, not for {now.project}")
    if approval.alias != now.alias:
        told.append(f"it is for {approval.alias}, not for {now.alias}")
    told += _other_subjects(approval, now)
    if not told:  # what another project or another alias serves says nothing
        told += _other_serving(approval, now)
    if approval.policy != now.policy:
        told.append(_other_policy(approval.policy, now.policy))
    return told


def _other_subjects(approval: Binding, now: Binding) -> list[str]:
    then = {s.name: s for s in approval.subjects}
    wanted = {s.name: s for s in now.subjects}
    told = []
    for name in sorted(then.keys() | wanted.keys()):
        old, new = then.get(name), wanted.get(name)
        if old is None:
            told.append(f"{new} moves too, and the approval does not cover it")
        elif new is None:
            told.append(f"the approval covers {old} too, which does not move")
        elif old.digest != new.digest:
            same = old.number == new.number
            told.append(
                f"{new} has the digest {short(new.digest)} now, the approval is for {short(old.digest)}"
                if same
                else f"{name} is v{new.number} now, the approval is for v{old.number}"
            )
    if len(then) != len(approval.subjects) or len(wanted) != len(now.subjects):
        told.append("a collection is named twice")
    return told


def _other_serving(approval: Binding, now: Binding) -> list[str]:
    told = []
    for name in sorted(approval.serving.keys() | now.serving.keys()):
        old, new = approval.serving.get(name), now.serving.get(name)
        if old is None or new is None:
            told.append(f"what {now.alias} of {name} served is not part of the approval")
        elif old.move != new.move:
            told.append(f"{now.alias} of {name} has moved since (move {old.move}, now {new.move})")
        elif old.digest != new.digest:
            told.append(f"{now.alias} of {name} serves something else than when it was approved")
    return told


def _other_policy(then: Digest | None, now: Digest | None) -> str:
    if then is None:
        return "a policy is in force now, and there was none"
    return "no policy is in force any more" if now is None else "the policy has changed since"


def same_person(name: str) -> str:
    """A person's name in the form in which names are compared: NFKC, case folded, spaces as one, nothing unseen.

    Letters of other scripts that look alike are other letters: whoever trusts a key looks at whose it is.

    Example:
        >>> same_person("Ada  Lovelace") == same_person(" \uff41da lovelace\ufe0f")
        True
    """
    made, before = name, None
    while made != before:  # one step may undo what another did
        before = made
        made = unicodedata.normalize("NFKC", _UNSEEN.sub("", unicodedata.normalize("NFKD", made)).casefold())
        made = " ".join(made.split())
    return made


def check_person(value: str, *, field: str = "person") -> str:
    """Check the name of a person.

    Raises:
        InvalidInput: It is empty, or no printable text of at most 256 characters.
    """
    person = unicodedata.normalize("NFC", check_line(value, field=field)).strip()
    if not person:
        raise InvalidInput("a person needs a name", field=field, next_step="Write the name that their logs carry.")
    return person


def check_roles(values: object, *, field: str = "roles") -> tuple[str, ...]:
    """Check roles; returns them sorted, each once. One string is a list of one.

    Raises:
        InvalidInput: One is not like `ml-lead`: lower-case letters, digits, `.`, `_`, `-`, at most 64 characters.
    """
    given = [values] if isinstance(values, str) else values
    if not isinstance(given, list | tuple | set | frozenset):
        raise InvalidInput(f"{shown(values)} is no list of roles", field=field, next_step="Write [ml-lead, safety].")
    for role in given:
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise InvalidInput(
                f"{shown(role)} is not a role",
                field=field,
                next_step="A role is like ml-lead: lower-case letters, digits, '.', '_' and '-'.",
            )
    return tuple(sorted(set(given)))


def approval_id(project: str, number: int) -> str:
    """The id of a stored approval."""
    return f"{project}@a{number}"


def approval_number(text: str, project: str) -> int:
    """The number in the id of an approval: `default@a12`, `a12` or `12`.

    Raises:
        InvalidReference: It is none, or names another project.
    """
    owner, _, rest = str(text).rpartition("@")
    digits = rest.removeprefix("a")
    if not _NUMBER.fullmatch(digits) or (owner and owner != project):
        raise InvalidReference(
            f"{shown(text)} is no approval of {project}",
            field="approval",
            next_step="Write its id, such as default@a12; `llmartifacts approve --list --to ALIAS` shows them.",
        )
    return int(digits)


def short_key(key: str) -> str:
    """The id of a key shortened for people: the first 12 hex digits."""
    return key[:12]
