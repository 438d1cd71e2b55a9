"""`RemoteBackend`: the registry of a server, through HTTP; the same contract as the embedded one.

The server knows by the token who acts, so what callers name as `actor` stays here. Rules are checked there, bytes and
manifests here: a server that lies about content is found out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmartifacts.client.accounts import RemoteAccounts
from llmartifacts.client.address import Address
from llmartifacts.client.calls import Calls, joined
from llmartifacts.client.credentials import token_for
from llmartifacts.client.reading import Readings
from llmartifacts.client.removing import Removing
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import InvalidInput, NotAllowed, TooLarge
from llmartifacts.records.approval import Approval, Binding, Subject, TrustedKey
from llmartifacts.records.audit import AuditEntry, AuditVerification
from llmartifacts.records.backend import (
    Collected,
    Draft,
    Migrated,
    Progress,
    PromotionRequest,
    Reading,
    Repaired,
    Staging,
    Stats,
    Storage,
    Verification,
)
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.evidence import RecordedReport
from llmartifacts.records.lineage import Direction, Lineage
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import LATEST
from llmartifacts.records.policy import Decision, PolicyRecord
from llmartifacts.records.promotion import HistoryEntry, Promotion, State, StateEntry
from llmartifacts.records.proof import ConsistencyProof, InclusionProof
from llmartifacts.records.reference import Reference
from llmartifacts.records.retention import Retention
from llmartifacts.records.version import Collection, Project, RunRecord, Version
from llmartifacts.wire.bodies import (
    approvals,
    audit,
    evidence,
    lineage,
    moves,
    server,
    upkeep,
    versions,
)
from llmartifacts.wire.bodies.base import Page

if TYPE_CHECKING:
    from llmartifacts.blobs.cache import BlobCache
    from llmartifacts.client.blobs import RemoteBlobs

HEAVY = 100
"""Members of one page of things that may be large: policies, approvals, runs."""


class RemoteBackend(Removing):
    """The `Backend` of a server. Safe to use from several threads, and after a fork.

    Args:
        session: The connections to the server.
    """

    def __init__(self, session: HttpSession) -> None:
        self.session = session
        self.calls = Calls(session)
        self._readings = Readings(self.calls)

    @classmethod
    def open(cls, location: str) -> RemoteBackend:
        """The backend of a server, with the token kept for it; nothing is asked of it yet.

        Args:
            location: The server's address: `https://…`, or `http://` on this machine.

        Raises:
            InvalidInput: It is no such address.
            NotAllowed: It would be spoken to in the open, or the file of tokens can be read by others.
        """
        address = Address.parse(location)
        if not address.private:
            raise NotAllowed(
                f"{address} would be spoken to in the open",
                field="location",
                next_step="Use https:// for a server on another machine.",
            )
        return cls(HttpSession(address.url, token_for(address)))

    def who(self) -> str:
        """Whose token it is: the name of the account."""
        return self.accounts.me().name

    @cached_property
    def accounts(self) -> RemoteAccounts:
        """Users, teams, grants and tokens of the server."""
        return RemoteAccounts(self.calls)

    @property
    def location(self) -> str:
        """The server's address."""
        return self.session.address.url

    @cached_property
    def blobs(self) -> RemoteBlobs:
        """The bytes on the server, and those in the user's cache."""
        from llmartifacts.client.blobs import RemoteBlobs  # 60 ms, not needed for prompts

        return RemoteBlobs(self.session)

    def identity(self) -> str:
        """Which registry it is: the origin of its audit."""
        return self.calls.ask(server.Info, "info").registry

    def keep_answers(self, cache: BlobCache) -> None:
        """Keep what the server says of references in a cache's folder too, for the processes that ask next.

        Args:
            cache: Where; manifests that lie in it are not asked for.
        """
        self._readings.keep_in(cache)

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    # --- log

    def commit(
        self, project: str, drafts: Sequence[Draft], *, actor: str, staging: Staging | None = None
    ) -> list[Version]:
        """Log versions, all or none; new bytes are sent first, and kept by the server only with the versions."""
        upload = None if staging is None else self.blobs.send(project, staging)
        body = moves.Drafts.known(drafts=tuple(moves.Draft.of(draft) for draft in drafts), upload=upload)
        made = self.calls.ask(moves.Versions, "commit", body=body, path={"project": project})
        return [self.calls.recorded("commit", version) for version in made.versions]

    # --- resolve

    def read(self, project: str, references: Sequence[Reference]) -> Reading:
        """Look up any number of references at one revision; one round trip."""
        return self._readings.read(project, references)

    def manifests(self, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Manifests by digest, verified; one that is not there, or not to be seen, is left out."""
        return self._readings.manifests(digests)

    def revision(self, project: str) -> int:
        """The project's revision now."""
        return self.calls.ask(versions.Revision, "revision", path={"project": project}).revision

    # --- promote, rollback

    def promote(self, project: str, request: PromotionRequest, *, actor: str) -> Promotion:
        """Check gates, move aliases, audit: all or none, on the server."""
        body = moves.PromotionRequest.of(request)
        return self.calls.record(moves.Promotion, "promote", body=body, path={"project": project})

    def rollback(
        self,
        project: str,
        target: Reference | str,
        *,
        to: Reference | None = None,
        whole: bool = False,
        reason: str,
        actor: str,
    ) -> Promotion:
        """Undo the newest promotion not yet undone of an alias, or one promotion by id."""
        body = moves.Rollback.known(target=str(target), to=to, whole=whole, reason=reason)
        return self.calls.record(moves.Promotion, "rollback", body=body, path={"project": project})

    def remove_alias(self, project: str, reference: Reference, *, reason: str, actor: str) -> Promotion:
        """Remove an alias."""
        body = moves.AliasRemoval.known(reference=reference, reason=reason)
        return self.calls.record(moves.Promotion, "remove_alias", body=body, path={"project": project})

    def gate(self, project: str, request: PromotionRequest, *, actor: str) -> Decision:
        """What the gates would say of a move; nothing moves."""
        body = moves.PromotionRequest.of(request)
        return self.calls.record(moves.Decision, "gate", body=body, path={"project": project})

    def review(self, project: str, promotion: str, *, reason: str, actor: str) -> Promotion:
        """Record that somebody looked at a move that broke the glass."""
        body = moves.Review.known(promotion=promotion, reason=reason)
        return self.calls.record(moves.Promotion, "review", body=body, path={"project": project})

    def evidence(self, project: str, reference: Reference) -> tuple[Version, tuple[RecordedReport, ...]]:
        """A version, and the reports on it, the newest first."""
        query = versions.ReferenceQuery.known(reference=reference)
        found = self.calls.ask(evidence.Evidence, "evidence", query=query, path={"project": project})
        return found.version.record(), tuple(report.record() for report in found.reports)

    def set_policy(self, project: str, body: Mapping[str, Any] | None, *, message: str, actor: str) -> PolicyRecord:
        """Let a policy hold from now on; None takes the last one away."""
        sent = moves.NewPolicy.known(policy=None if body is None else dict(body), message=message)
        return self.calls.record(moves.PolicyRecord, "set_policy", body=sent, path={"project": project})

    def policies(self, project: str, *, limit: int | None = None, before: int | None = None) -> list[PolicyRecord]:
        """Every policy that was set, the newest first."""
        query = versions.NumbersQuery()
        return self.calls.pages("policies", query, limit=limit, most=HEAVY, first=before, path={"project": project})

    def yank(self, project: str, reference: Reference, *, reason: str, actor: str) -> Version:
        """Withdraw a version."""
        body = versions.Yank.known(reference=reference, reason=reason)
        return self.calls.record(versions.Version, "yank", body=body, path={"project": project})

    def tag(
        self,
        project: str,
        reference: Reference,
        *,
        set: Mapping[str, str],  # noqa: A002
        remove: Sequence[str],
        actor: str,
    ) -> Version:
        """Set and remove labels of a version."""
        body = versions.Tagging.known(reference=reference, set=dict(set), remove=tuple(remove))
        return self.calls.record(versions.Version, "tag", body=body, path={"project": project})

    # --- approvals

    def bindings(self, project: str, request: PromotionRequest) -> list[Binding]:
        """What approvals of a move must be for, as of now."""
        body = moves.PromotionRequest.of(request)
        found = self.calls.ask(Page[approvals.Binding], "bindings", body=body, path={"project": project})
        return [binding.record() for binding in found.items]

    def approve(self, project: str, envelope: bytes, *, actor: str) -> Approval:
        """Keep a signed approval of what holds now."""
        return self.calls.record(approvals.Approval, "approve", body=_signed(envelope), path={"project": project})

    def approvals(self, project: str, alias: str, *, limit: int = 50, before: str | None = None) -> list[Approval]:
        """The newest approvals for an alias, newest first, each verified now."""
        query = approvals.ApprovalsQuery.known(alias=alias)
        return self.calls.pages("approvals", query, limit=limit, most=HEAVY, first=before, path={"project": project})

    def withdraw(self, project: str, approval: str, *, reason: str, actor: str) -> Approval:
        """Take an approval back."""
        body = approvals.Withdrawal.known(approval=approval, reason=reason)
        return self.calls.record(approvals.Approval, "withdraw", body=body, path={"project": project})

    def attest(self, project: str, envelope: bytes, *, actor: str) -> Subject:
        """Keep a person's signature under a report."""
        return self.calls.record(approvals.Subject, "attest", body=_signed(envelope), path={"project": project})

    def signers(self, project: str, reference: Reference) -> list[tuple[str, tuple[str, ...], str]]:
        """Who signed a report: person, roles, and why it does not count."""
        query = versions.ReferenceQuery.known(reference=reference)
        found = self.calls.ask(evidence.Signers, "signers", query=query, path={"project": project})
        return [(signer.person, tuple(signer.roles), signer.problem) for signer in found.signers]

    def trusted_keys(self) -> list[TrustedKey]:
        """Every key that the registry trusts or trusted, by person."""
        return [key.record() for key in self.calls.ask(Page[approvals.TrustedKey], "trusted_keys").items]

    def trust_key(self, public: str, *, person: str, roles: tuple[str, ...] | None, actor: str) -> TrustedKey:
        """Trust a key, or set its roles; None leaves them."""
        body = approvals.NewKey.known(public=public, person=person, roles=roles)
        return self.calls.record(approvals.TrustedKey, "trust_key", body=body)

    def rotate_key(self, envelope: bytes, *, actor: str) -> TrustedKey:
        """Let a key hand over to a new one."""
        return self.calls.record(approvals.TrustedKey, "rotate_key", body=_signed(envelope))

    def revoke_key(self, key: str, *, reason: str, actor: str) -> TrustedKey:
        """Revoke a key for good."""
        body = approvals.KeyRevocation.known(key=key, reason=reason)
        return self.calls.record(approvals.TrustedKey, "revoke_key", body=body)

    # --- look

    def projects(self, *, limit: int | None = None, after: str | None = None) -> list[Project]:
        """Every project that one may see, by name."""
        return self.calls.pages("projects", versions.NamesQuery(), limit=limit, first=after)

    def create_project(self, name: str, *, actor: str) -> Project:
        """Make a project."""
        return self.calls.record(versions.Project, "create_project", body=versions.NewProject.known(name=name))

    def collections(
        self, project: str, *, kind: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[Collection]:
        """Every collection of a project, by name."""
        query = versions.CollectionsQuery.known(kind=kind)
        return self.calls.pages("collections", query, limit=limit, first=after, path={"project": project})

    def versions(
        self,
        project: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Version]:
        """Versions of a collection, newest first."""
        query = versions.VersionsQuery.known(tag=[f"{key}={value}" for key, value in (tags or {}).items()])
        return self.calls.pages("versions", query, limit=limit, first=before, path={"project": project, "name": name})

    def history(
        self, project: str, reference: Reference, *, limit: int | None = None, before: int | None = None
    ) -> list[HistoryEntry]:
        """Every move of one alias, newest first."""
        query = moves.HistoryQuery.known(reference=reference)
        return self.calls.pages("history", query, limit=limit, first=before, path={"project": project})

    def promotions(self, project: str, *, limit: int = 20, before: int | None = None) -> list[Promotion]:
        """The newest promotions of a project, newest first."""
        query = versions.NumbersQuery()
        return self.calls.pages("promotions", query, limit=limit, most=HEAVY, first=before, path={"project": project})

    def state(
        self,
        project: str,
        alias: str,
        *,
        at: datetime | None = None,
        limit: int | None = None,
        after: str | None = None,
        revision: int | None = None,
    ) -> State:
        """What an alias meant everywhere in a project, at a time."""
        shown = revision

        def ask(page: versions.NamesQuery) -> State:
            nonlocal shown
            start = page.after or after
            query = moves.StateQuery.known(alias=alias, at=at, revision=shown, limit=page.limit, after=start)
            found = self.calls.record(moves.State, "state", query=query, path={"project": project})
            shown = None if alias == LATEST else found.revision
            return found

        pages = joined(ask, lambda page: list(page.entries), limit)
        entries: dict[str, StateEntry] = {}
        for page in pages:
            entries.update(page.entries)
        return State(project, alias, pages[0].at, pages[0].revision, entries)

    def lineage(self, project: str, reference: Reference, direction: Direction) -> Lineage:
        """The whole closure, but what lies in projects that one may not see."""
        query = lineage.LineageQuery.known(reference=reference, direction=direction)
        return self.calls.record(lineage.Lineage, "lineage", query=query, path={"project": project})

    # --- runs

    def start_run(
        self, project: str, name: str, *, parameters: Mapping[str, Any], actor: str, git_commit: str = ""
    ) -> RunRecord:
        """Begin a run."""
        body = versions.NewRun.known(name=name, parameters=dict(parameters), git_commit=git_commit)
        return self.calls.record(versions.RunRecord, "start_run", body=body, path={"project": project})

    def use_in_run(self, project: str, run: str, reference: Reference, *, actor: str) -> None:
        """Record that a run read a version."""
        self.calls.tell(
            "use_in_run", body=versions.Use.known(reference=reference), path={"project": project, "id": run}
        )

    def end_run(self, project: str, run: str, *, status: str, error: str = "", actor: str) -> RunRecord:
        """End a run as `done` or `failed`."""
        body = versions.RunEnd.known(status=status, error=error)
        return self.calls.record(versions.RunRecord, "end_run", body=body, path={"project": project, "id": run})

    def runs(self, project: str, *, limit: int = 50, before: str | None = None) -> list[RunRecord]:
        """The newest runs, newest first."""
        query = versions.IdsQuery()
        return self.calls.pages("runs", query, limit=limit, most=HEAVY, first=before, path={"project": project})

    def run(self, project: str, run: str) -> RunRecord:
        """One run by id."""
        return self.calls.record(versions.RunRecord, "run", path={"project": project, "id": run})

    # --- upkeep

    def audit(
        self, project: str | None = None, *, limit: int | None = None, after: int = 0
    ) -> Iterator[Mapping[str, Any]]:
        """Audit entries in order, as the JSON objects that were hashed."""
        name, path = ("audit", {}) if project is None else ("project_audit", {"project": project})
        left, here = limit, after
        while left is None or left > 0:
            query = audit.AuditQuery(limit=HEAVY if left is None else min(HEAVY, left), after=here)
            page = self.calls.ask(audit.AuditPage, name, query=query, path=path)
            yield from page.items
            left = None if left is None else left - len(page.items)
            if page.next is None or page.next <= here:
                return
            here = page.next

    def audit_log(
        self, project: str | None = None, *, verb: str | None = None, limit: int = 50, before: int | None = None
    ) -> list[AuditEntry]:
        """The newest audit entries, the newest last."""
        query = audit.AuditLogQuery.known(verb=verb, project=project)
        found = self.calls.pages("audit_log", query, limit=limit, most=HEAVY, first=before)
        return sorted(found, key=lambda entry: entry.number)

    def audit_checkpoint(self) -> Checkpoint:
        """Size and root of the whole audit now."""
        return self.calls.record(audit.Checkpoint, "audit_checkpoint")

    def audit_inclusion(self, index: int, size: int) -> InclusionProof:
        """The proof that an entry, counted from 0, is among the first `size`."""
        query = audit.InclusionQuery.known(index=index, size=size)
        return self.calls.record(audit.InclusionProof, "audit_inclusion", query=query)

    def audit_consistency(self, old: int, new: int) -> ConsistencyProof:
        """The proof that the first `new` entries begin with the first `old`."""
        query = audit.ConsistencyQuery.known(old=old, new=new)
        return self.calls.record(audit.ConsistencyProof, "audit_consistency", query=query)

    def verify_audit(self, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
        """Check the whole audit, against checkpoints kept elsewhere too."""
        kept = tuple(
            audit.KeptCheckpoint.known(source=source, checkpoint=audit.Checkpoint.of(one))
            for source, one in checkpoints
        )
        if len(kept) > audit.MAX_CHECKPOINTS:
            raise TooLarge(
                f"{len(kept)} checkpoints, the limit of one call is {audit.MAX_CHECKPOINTS}", field="checkpoints"
            )
        body = audit.AuditCheck.known(checkpoints=kept)
        return self.calls.record(audit.AuditVerification, "verify_audit", body=body)

    def export_audit(self) -> Iterator[bytes]:
        """Every audit entry in order, as the bytes that are hashed."""
        return self.calls.lines("export_audit")

    def verify(
        self,
        *,
        read_data: bool = False,
        subset: str = "",
        project: str = "",
        name: str = "",
        progress: Progress | None = None,
    ) -> Verification:
        """Check, on the server, that everything a version needs is there; progress is not told."""
        body = upkeep.VerifyRequest(read_data=read_data, subset=subset, project=project, name=name)
        return self.calls.record(upkeep.Verification, "verify", body=body)

    def repair(
        self,
        source: object | None = None,
        *,
        dry_run: bool = False,
        read_data: bool = True,
        progress: Progress | None = None,
        actor: str,
    ) -> Repaired:
        """Refused: stored files are mended where they are. Raises `NotAllowed`."""
        raise NotAllowed(
            "a registry is repaired where its files are, and this one is behind a server",
            field="registry",
            next_step="Run `llmartifacts repair` on the server's host, with --registry naming its directory.",
        )

    def stats(self, project: str | None = None, name: str | None = None) -> Stats:
        """Bytes, logical and stored; of one collection also by version."""
        if project is None:
            if name is not None:
                raise InvalidInput("a collection's bytes are asked for with its project", field="project")
            return self.calls.record(upkeep.Stats, "registry_stats")
        return self.calls.record(
            upkeep.Stats, "stats", query=upkeep.StatsQuery.known(name=name), path={"project": project}
        )

    def storage(self, blobs: Sequence[Blob]) -> list[Storage]:
        """How each blob is stored."""
        body = upkeep.Blobs.known(blobs=tuple(upkeep.Blob.of(blob) for blob in blobs))
        return [one.record() for one in self.calls.ask(Page[upkeep.Storage], "storage", body=body).items]

    def gc(
        self,
        *,
        dry_run: bool = False,
        compact: bool = False,
        grace: timedelta | None = None,
        rules: Retention | None = None,
        actor: str,
    ) -> Collected:
        """Remove versions that no rule keeps; free what no version needs."""
        body = upkeep.CollectRequest(
            dry_run=dry_run,
            compact=compact,
            grace=None if grace is None else int(grace.total_seconds()),
            rules=None if rules is None else upkeep.RetentionRules.of(rules),
        )
        return self.calls.record(upkeep.Collected, "gc", body=body)

    def migrate(self, *, dry_run: bool = False, progress: Progress | None = None, actor: str) -> Migrated:
        """Cut large blobs that are stored whole into chunks; progress is told at the end only."""
        made = self.calls.record(upkeep.Migrated, "migrate", body=upkeep.MigrateRequest(dry_run=dry_run))
        if progress is not None and made.before:
            progress(made.before, made.before)
        return made


def _signed(envelope: bytes) -> approvals.Signed:
    if len(envelope) > approvals.MAX_ENVELOPE:
        raise TooLarge(
            f"the envelope has {len(envelope):,} bytes, the limit is {approvals.MAX_ENVELOPE:,}", field="envelope"
        )
    return approvals.Signed.known(envelope=envelope)
