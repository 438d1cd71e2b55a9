"""Who may move what: the dry run of the gates, policies, approvals, reviews."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llmartifacts.errors import InvalidReference, InvalidValue
from llmartifacts.records.approval import Approval, TrustedKey
from llmartifacts.records.arguments import check_limit, check_line, check_mapping, check_reason, check_text, shown
from llmartifacts.records.backend import Backend, PromotionRequest, Target
from llmartifacts.records.evidence import RecordedReport
from llmartifacts.records.names import check_alias, check_name
from llmartifacts.records.policy import Decision, PolicyRecord
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.reference import Reference, one_project, parse_many, strings
from llmartifacts.records.times import parse_time
from llmartifacts.records.version import Version

References = str | Reference | Sequence[str | Reference]


class Governance:
    """The verbs of a `Registry` that say who may move what."""

    backend: Backend
    project: str
    actor: str

    def gate(
        self,
        references: References,
        to: str | Sequence[str],
        *,
        reason: str = "",
        ticket: str = "",
        break_glass: bool = False,
    ) -> Decision:
        """Ask every gate that a promotion would have to pass; nothing moves.

        Args:
            references: Versions to move to, each with a selector.
            to: The alias, or several.
            reason: The reason that would be given.
            ticket: The ticket that would be given.
            break_glass: Whether the glass would be broken.

        Returns:
            The verdict, and every gate's answer with its evidence and how to satisfy it; of a server's registry also
            whether the one who asks may move that.

        Raises:
            NotFound: A version does not exist.
        """
        project, request = promotion_request(
            references, to, self.project, reason=reason, ticket=ticket, break_glass=break_glass, verb="gate"
        )
        return self.backend.gate(project, request, actor=self.actor)

    def approve(
        self,
        references: References,
        to: str | Sequence[str],
        *,
        key: str,
        reason: str = "",
        expires: str | datetime | None = None,
    ) -> list[Approval]:
        """Say yes, with a signature, to moving exactly these versions from what the aliases point at now.

        Args:
            references: Versions to move to, each with a selector.
            to: The alias, or several.
            key: Name of a key of this machine, or the path of its PEM file.
            reason: Why; kept for good.
            expires: From when on it no longer counts; None for never.

        Returns:
            One approval for each alias.

        Raises:
            NotFound: There is no such key or version.
            NotAllowed: The registry does not trust the key.
        """
        from llmartifacts.signing.approving import approve

        project, request = promotion_request(references, to, self.project, verb="approve")
        aliases = list(dict.fromkeys(t.alias for t in request.targets))
        wanted = list(dict.fromkeys(t.reference for t in request.targets))
        until = None if expires is None else parse_time(expires, field="expires")
        reason = check_text(reason, field="reason")
        return approve(self.backend, project, wanted, aliases, key=key, reason=reason, expires=until, actor=self.actor)

    def approvals(self, to: str, *, limit: int = 50, before: str | None = None) -> list[Approval]:
        """The newest approvals for an alias, newest first, and why one does not hold any more.

        Args:
            to: The alias.
            limit: At most so many.
            before: Only those recorded before this one, by its id.
        """
        alias, last = check_alias(to, field="to"), None if before is None else check_line(before, field="before")
        return self.backend.approvals(self.project, alias, limit=check_limit(limit) or 50, before=last)

    def sign_report(self, reference: str | Reference, *, key: str, reason: str = "") -> Version:
        """Sign a report, for policies that ask who vouches for it.

        Args:
            reference: The report, with a selector.
            key: Name of a key of this machine, or the path of its PEM file.
            reason: What to say of it; kept for good.

        Raises:
            WrongKind: It is no report.
            NotAllowed: The registry does not trust the key.
        """
        from llmartifacts.signing.approving import sign_report

        wanted = Reference.parse(reference).required("sign")
        project, told = one_project([wanted], self.project), check_text(reason, field="reason")
        sign_report(self.backend, project, wanted, key=key, reason=told, actor=self.actor)
        return self.backend.evidence(project, wanted)[0]

    def keys(self) -> list[TrustedKey]:
        """Every key that the registry trusts, or trusted once, by person."""
        return self.backend.trusted_keys()

    def trust_key(
        self, public: str, *, person: str | None = None, roles: str | Sequence[str] | None = None
    ) -> TrustedKey:
        """Let a key speak for a person from now on.

        Args:
            public: The text of a public key, the path of a file with one, or the name of a key of this machine.
            person: Whose it is; by default whose its file says.
            roles: What the person may speak as; None leaves that as it is.

        Raises:
            InvalidInput: It is no public key, or nobody says whose it is.
            Conflict: It is trusted as another person's.
        """
        from llmartifacts.signing.approving import trust

        return trust(self.backend, public, person=person, roles=roles, actor=self.actor)

    def revoke_key(self, key: str, *, reason: str) -> TrustedKey:
        """Trust a key no more; what it signed counts no more. Raises `NotFound`."""
        from llmartifacts.signing.approving import key_id

        told = check_reason(reason, "revoking a key")
        return self.backend.revoke_key(key_id(self.backend, key).id, reason=told, actor=self.actor)

    def evidence(self, reference: str | Reference) -> tuple[Version, tuple[RecordedReport, ...]]:
        """A version, and the reports on it, the newest first. Raises `NotFound`."""
        wanted = Reference.parse(reference).or_latest()
        return self.backend.evidence(one_project([wanted], self.project), wanted)

    def withdraw(self, approval: str, *, reason: str) -> Approval:
        """Take an approval back; it stays on record and never counts again. Raises `NotFound`."""
        line = check_line(approval, field="approval")
        home = check_name(line.rpartition("@")[0] or self.project, field="approval")
        return self.backend.withdraw(home, line, reason=check_reason(reason, "a withdrawal"), actor=self.actor)

    def review(self, promotion: str, *, reason: str) -> Promotion:
        """Record that somebody, not the one who did it, looked at a move that broke the glass.

        Raises:
            NotFound: There is no such promotion.
            Conflict: It did not break the glass, or was reviewed already.
            Refused: It is the actor's own.
        """
        line = check_line(promotion, field="promotion")
        project = check_name(line.rpartition("@r")[0] or self.project, field="promotion")
        return self.backend.review(project, line, reason=check_reason(reason, "a review"), actor=self.actor)

    def set_policy(self, policy: str | Path | Mapping[str, Any], *, message: str = "") -> PolicyRecord:
        """Let a policy hold from now on; see `llmartifacts.gates.policy` for what one says.

        Args:
            policy: Path of a YAML file, or the policy as plain JSON.
            message: What to say of it.

        Raises:
            InvalidValue: It is no policy; field and line are named.
        """
        body = policy if isinstance(policy, Mapping) else read_policy(policy)
        message = check_text(message, field="message")
        return self.backend.set_policy(
            self.project, check_mapping(body, field="policy"), message=message, actor=self.actor
        )

    def remove_policy(self, *, message: str) -> PolicyRecord:
        """Let no policy hold any more: every alias is free then. Raises `Conflict` if there is none."""
        message = check_reason(message, "taking a policy away")
        return self.backend.set_policy(self.project, None, message=message, actor=self.actor)

    def policy(self) -> PolicyRecord | None:
        """The policy that holds; None if there is none."""
        found = self.backend.policies(self.project, limit=1)
        return found[0] if found and found[0].body else None

    def policies(self, *, limit: int | None = None, before: int | None = None) -> list[PolicyRecord]:
        """Every policy that was set, the newest first; with `before`, those with lower numbers."""
        limit, before = check_limit(limit), check_limit(before, field="before")
        return self.backend.policies(self.project, limit=limit, before=before)


def read_policy(path: str | Path) -> dict[str, Any]:
    """Read and check a policy file; its plain JSON.

    Raises:
        InvalidValue: It is no policy; field and line are named.
        NotFound: There is no such file.
    """
    from llmartifacts.gates.policy import MAX_BYTES, Policy
    from llmartifacts.kinds.disk import find_regular, read_regular

    if not isinstance(path, str | Path):
        raise InvalidValue(f"a {type(path).__name__} is neither a policy nor a path", field="policy")
    data = read_regular(find_regular(path, field="policy"), MAX_BYTES, field="policy")
    return Policy.from_yaml(data, origin=str(path)).plain


def promotion_request(
    references: References,
    to: str | Sequence[str],
    home: str,
    *,
    reason: str = "",
    ticket: str = "",
    expect: Mapping[str, str | None] | None = None,
    break_glass: bool = False,
    verb: str = "promote",
) -> tuple[str, PromotionRequest]:
    """The project and the request behind the arguments of `promote`.

    Raises:
        InvalidReference: One is malformed or has no selector, two name one collection, or several projects are named.
    """
    wanted = [r.required(verb) for r in parse_many(references)]
    project = one_project(wanted, home)
    aliases = list(dict.fromkeys(check_alias(a, field="to") for a in strings(to, field="to")))
    if not aliases:
        raise InvalidReference("no alias was given", field="to")
    names = Counter(r.name for r in wanted)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InvalidReference(
            f"{min(twice)!r} is named twice in one promotion",
            field="references",
            next_step="An alias points at one version: leave one of them out.",
        )
    expected = None if expect is None else check_mapping(expect, field="expect")
    stray = sorted((expected or {}).keys() - names.keys())
    if stray:
        raise InvalidReference(
            f"expect names {shown(stray[0])}, which is not promoted",
            field="expect",
            next_step=f"Promoted are: {', '.join(names)}.",
        )
    targets = tuple(Target(r, a) for r in wanted for a in aliases)
    told = check_text(reason, field="reason"), check_line(ticket, field="ticket")
    return project, PromotionRequest(targets, *told, expected, bool(break_glass))
