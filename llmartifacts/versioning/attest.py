"""attest = check who signed a report, and that it is that report -> keep; and who signed one."""

from __future__ import annotations

from llmartifacts.errors import Conflict, Damaged, LlmartifactsError, Refused, WrongKind
from llmartifacts.metadata import attestations, audit, projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.approval import Subject
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.signing.envelope import read_envelope
from llmartifacts.signing.statement import config_digest, read_evaluation
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.signed import check_signer, check_times, good, revoked, signer

REPORT = "report"
_NOBODY: tuple[str, ...] = ()


def attest(parts: Parts, project: str, envelope: bytes, *, actor: str) -> Subject:
    """Keep a person's signature under a report; raises as `approve`, and `WrongKind` if it is no report."""
    sealed = read_envelope(envelope)
    with parts.metadata.writing() as s:
        project_id, _ = projects.lock_project(s, project)
        key = good(signer(s, sealed))
        said = read_evaluation(sealed.payload)
        check_signer(key, said.person)
        check_times(said.at, None, from_micros(s.now()))
        if said.project != project:
            raise Refused(f"the statement is for the project {said.project}, not for {project}", field="project")
        report = said.report
        reference = Reference(report.name, number=report.number, digest=report.digest)
        row = versions.find(s, project_id, project, reference)
        if row.version.kind != REPORT:
            raise WrongKind(f"{row.version} is a {row.version.kind}, not a report", field="subject")
        manifest = parts.manifest(s, row.version.digest, row.body)
        config = config_digest(manifest.config)
        if said.config != config:
            raise Conflict(f"the config of {report} is {config}, and {said.config} was signed", field="config")
        text = sealed.to_bytes().decode()
        if attestations.known(s, project_id, "evaluation", text, report.digest) is None:
            at = s.now()
            attestations.insert(s, project_id, "evaluation", "", text, [report.digest], at=at, recorded_by=actor)
            audit.record(
                s,
                project_id,
                project,
                actor=actor,
                verb="attest",
                subject=str(row.version.reference),
                at=at,
                person=key.person,
                key=key.id,
                reason=said.reason,
                statement=digest_of(sealed.payload),
            )
        return report


def signers(s: Session, project_id: int, report: Digest) -> list[tuple[str, tuple[str, ...], str]]:
    """Who signed a report: person, roles now, and why it does not count; that is empty if it does.

    A signature that is forged, or of an altered statement, has a problem that begins with `tampered:`.
    """
    project = attestations.project_name(s, project_id)
    found: list[tuple[str, tuple[str, ...], str]] = []
    for row in attestations.concerning(s, project_id, "evaluation", "", [report]):
        person, roles = "", _NOBODY
        try:
            sealed = read_envelope(row.envelope.encode(), origin=f"attestation {row.id}")
            key = signer(s, sealed)
            person, roles = key.person, key.roles
            said = read_evaluation(sealed.payload)
            check_signer(key, said.person)
            if said.report.digest != report or said.project != project:
                raise Damaged("the statement is about another report than the one it is filed under")
            problem = revoked(key).message if key.revoked_at is not None else ""
        except LlmartifactsError as error:
            problem = f"tampered: {error.message}"
        found.append((person, roles, problem))
    return found


def report_signers(parts: Parts, project: str, reference: Reference) -> list[tuple[str, tuple[str, ...], str]]:
    """As `signers`, of the report that a reference names."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        return signers(s, project_id, versions.find(s, project_id, project, reference).version.digest)
