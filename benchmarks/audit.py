"""The audit of a registry with very many entries: checked, signed, proved and exported, beside hashing its entries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Bench, Line, Measured, Subject, seconds, within
from llmartifacts import init
from llmartifacts.metadata import audit
from llmartifacts.records.audit import AuditEvent
from llmartifacts.signing.note import sign_checkpoint

BESIDE = "SHA-256 of the entries"
PRIVATE = b"k" * 32


def measure(bench: Bench) -> Iterator[Line]:
    count = bench.size(20_000, 100_000)
    bench.say(f"writing {count:,} audit entries")
    with init(bench.folder / "audited") as registry:
        backend: Any = registry.backend
        _grow(backend, count // 2)
        half = backend.audit_checkpoint()
        _grow(backend, count)
        whole = backend.audit_checkpoint()
        kept = [("half", half), ("whole", whole)]
        entries = list(backend.export_audit())
        floor = _timed(lambda: [hashlib.sha256(entry).digest() for entry in entries])

        def verified() -> None:
            found = backend.verify_audit(kept)
            if not found.ok or found.proven != count:
                raise RuntimeError(f"the audit was not proven: {found.problems}")

        exported = bench.folder / "audit.jsonl"
        for told, work, budget in (
            (f"verify {count:,} entries", verified, within(5)),
            ("sign a checkpoint", lambda: sign_checkpoint(backend.audit_checkpoint(), PRIVATE), None),
            ("prove one entry", lambda: backend.audit_inclusion(count // 2, whole.size), None),
            ("prove that it only grew", lambda: backend.audit_consistency(half.size, whole.size), None),
            ("export as JSONL", lambda: _export(backend, exported), None),
        ):
            ours, beside = bench.beside(_timed(work), floor)
            yield Line(told, ours, beside, BESIDE, budget, binding=bench.full)


def _timed(work: Any) -> Measured:
    return lambda: seconds(work)


def _grow(backend: Any, size: int) -> None:
    """Bring the audit to a size, in one transaction; each entry is one that the registry could have written."""
    (last,) = backend.audit_log(limit=1)
    with backend._parts.metadata.writing() as s:
        ((project,),) = s.rows("select id from project")
        audit.record_many(s, [(project, event) for event in _events(last, size)])


def _events(last: Any, size: int) -> Iterator[AuditEvent]:
    for n in range(last.number + 1, size + 1):
        at = last.event.at + timedelta(seconds=n)
        body = {"set": {"ticket": f"CHG-{n}"}, "remove": []}
        yield AuditEvent("default", at, f"person-{n % 7}", "tag", f"docs:v{n}", body)


def _export(backend: Any, path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(entry + b"\n" for entry in backend.export_audit())


SUBJECT = Subject(
    "audit",
    "the audit's Merkle tree: verified against checkpoints, signed, proved, exported",
    "SHA-256 over the same entries, in memory",
    measure,
)
