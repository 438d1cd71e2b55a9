"""Bodies of approvals, what they bind, and the keys that sign them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from llmartifacts.records import approval
from llmartifacts.records.policy import Verdict
from llmartifacts.wire.bodies.base import Body, Count, Many, Model
from llmartifacts.wire.bodies.fields import Alias, Bytes, DigestText, Id, Line, Name, Reason, Time
from llmartifacts.wire.bodies.moves import Outcome
from llmartifacts.wire.bodies.versions import IdsQuery

MAX_ENVELOPE = 1 << 20
"""Bytes of a signed envelope."""
Envelope = Annotated[Bytes, Field(json_schema_extra={"maxLength": 4 * -(-MAX_ENVELOPE // 3)})]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", max_length=64)]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class Subject(Body[approval.Subject]):
    """One version that an approval is for."""

    RECORD: ClassVar[type[Any]] = approval.Subject

    name: Name
    number: Count
    digest: DigestText


class Serving(Body[approval.Serving]):
    """What an alias points at in one collection."""

    RECORD: ClassVar[type[Any]] = approval.Serving

    digest: DigestText | None = None
    move: Count = 0


class Binding(Body[approval.Binding]):
    """What an approval is for."""

    RECORD: ClassVar[type[Any]] = approval.Binding

    project: str
    alias: str
    subjects: Many[Subject]
    serving: dict[str, Serving] = Field(default_factory=dict)
    policy: DigestText | None = None
    registry: str = ""


class TrustedKey(Body[approval.TrustedKey]):
    """A public key that the registry trusts to speak for a person."""

    RECORD: ClassVar[type[Any]] = approval.TrustedKey

    id: str
    person: str
    roles: Many[str]
    public: str
    added_at: Time
    added_by: str
    replaces: str = ""
    revoked_at: Time | None = None
    revoked_by: str = ""
    revoke_reason: str = ""


class Approval(Body[approval.Approval]):
    """A stored approval as it was found at one use."""

    RECORD: ClassVar[type[Any]] = approval.Approval

    id: str
    binding: Binding | None
    person: str
    key: str
    roles: Many[str] = ()
    reason: str = ""
    at: Time | None = None
    expires: Time | None = None
    problem: str = ""
    verdict: Outcome = Verdict.PASS
    recorded_at: Time | None = None


class Signed(Model):
    """A signed envelope (DSSE), in base64."""

    envelope: Envelope


class Withdrawal(Model):
    """An approval to take back."""

    approval: Id
    reason: Reason


class ApprovalsQuery(IdsQuery):
    """A page of the approvals for an alias, the newest first; `before` is an approval's id."""

    alias: Alias


class NewKey(Model):
    """A key to trust, or whose roles to set; roles None leaves them."""

    public: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    person: Line
    roles: Annotated[Many[RoleName], Field(max_length=64)] | None = None


class KeyRevocation(Model):
    """A key to trust no more."""

    key: KeyId
    reason: Reason
