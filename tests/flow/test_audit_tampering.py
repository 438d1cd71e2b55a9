"""A hundred thousand audit entries: every kind of tampering is found, and a bare hash chain would miss the cut end."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.metadata import audit
from llmartifacts.records.audit import AuditEvent, AuditVerification
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.signing.note import read_checkpoint, sign_checkpoint

pytestmark = pytest.mark.slow

MANY = 100_000
EARLY = 40_000
WRONG = 70_000
"""Number of the entry that is tampered with."""

Events = Iterable[AuditEvent]


def labels(upto: int, after: AuditEvent, number: int) -> Iterator[AuditEvent]:
    """Labels set on versions: the records do not repeat them, so that only the audit can tell of them."""
    for n in range(number + 1, upto + 1):
        at, said = after.at + timedelta(seconds=n), {"set": {"n": str(n)}, "remove": []}
        yield AuditEvent("default", at, f"person-{n % 7}", "tag", f"docs:v{n}", said)


class Big:
    """A registry with very many entries, and two signed checkpoints of it that were kept elsewhere."""

    def __init__(self, backend: Any, kept: list[tuple[str, Checkpoint]]) -> None:
        self.backend = backend
        self.kept = kept

    def write(self, events: Events, *, after: int | None = None) -> None:
        """Append entries; in place of all after one, if that is given."""
        with self.backend._parts.metadata.writing() as s:
            ((project,),) = s.rows("select id from project")
            if after is not None:
                s.run("delete from audit where id > :n", {"n": after})
            audit.record_many(s, [(project, event) for event in events])

    def run(self, sql: str) -> None:
        with self.backend._parts.metadata.writing() as s:
            s.run(sql)

    def keep(self, source: str) -> None:
        """As a checkpoint is kept: signed, written, read again, its signature checked."""
        signed = sign_checkpoint(self.backend.audit_checkpoint(), b"k" * 32)
        self.kept.append((source, read_checkpoint(signed.note.to_text().encode(), [signed.key]).checkpoint))

    def check(self) -> AuditVerification:
        return self.backend.verify_audit(self.kept)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Big]:
    with la.init(tmp_path_factory.mktemp("big") / "registry") as registry:
        made = Big(registry.backend, [])
        (first,) = made.backend.audit_log()
        for upto, source in ((EARLY, "early.checkpoint"), (MANY, "late.checkpoint")):
            (last,) = made.backend.audit_log(limit=1)
            made.write(labels(upto, first.event, last.number))
            made.keep(source)
        yield made


@pytest.fixture(scope="module")
def events(big: Big) -> list[AuditEvent]:
    return [AuditEvent.from_bytes(entry) for entry in big.backend.export_audit()]


@pytest.fixture
def altered(big: Big, tmp_path: Path) -> Iterator[Big]:
    """A copy of it to tamper with."""
    shutil.copytree(big.backend.location, tmp_path / "registry")
    with la.connect(tmp_path / "registry") as registry:
        yield Big(registry.backend, big.kept)
    shutil.rmtree(tmp_path / "registry")


def told(found: AuditVerification) -> str:
    return "\n".join(problem.message for problem in found.problems)


def test_a_hundred_thousand_entries_are_proven_to_be_those_that_were_signed(big: Big) -> None:
    found = big.check()
    assert found.ok
    assert (found.size, found.proven) == (MANY, MANY)
    proof = big.backend.audit_inclusion(WRONG - 1, MANY)
    assert len(proof.path) == 17
    assert proof.holds(big.kept[1][1])
    assert big.backend.audit_consistency(EARLY, MANY).holds(big.kept[0][1], big.kept[1][1])


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("sql", "first", "expected"),
    [
        (f"update audit set entry = replace(entry, 'person', 'nobody') where id = {WRONG}", WRONG, f"entry {WRONG};"),
        (f"delete from audit where id = {WRONG}", WRONG, f"entry {WRONG} is the first that is missing"),
        (f"delete from audit where id > {WRONG}", WRONG + 1, f"after entry {WRONG} the end was cut off"),
    ],
    ids=["edit", "delete", "cut"],
)
def test_clumsy_tampering_is_found_and_the_entry_named(altered: Big, sql: str, first: int, expected: str) -> None:
    altered.run(sql)
    found = altered.check()
    assert expected in told(found)
    assert (found.proven, found.first_wrong) == (EARLY, first)


def edited(events: list[AuditEvent]) -> Events:
    events[WRONG - 1] = replace(events[WRONG - 1], actor="nobody")
    return events


def deleted(events: list[AuditEvent]) -> Events:
    del events[WRONG - 1]
    return events


def inserted(events: list[AuditEvent]) -> Events:
    events.insert(WRONG - 1, replace(events[WRONG - 2], actor="nobody"))
    return events


def reordered(events: list[AuditEvent]) -> Events:
    events[WRONG - 2], events[WRONG - 1] = events[WRONG - 1], events[WRONG - 2]
    return events


def cut(events: list[AuditEvent]) -> Events:
    return events[:-1]


def rewritten(events: list[AuditEvent]) -> Events:
    return [events[0], *(replace(event, actor="nobody") for event in events[1:])]


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("change", "proven", "expected"),
    [
        (edited, EARLY, f"one from {EARLY + 1} to {MANY} was edited, removed, put in or moved"),
        (deleted, EARLY, "there are 99,999: after entry 99999 the end was cut off"),
        (inserted, EARLY, f"one from {EARLY + 1} to {MANY} was edited, removed, put in or moved"),
        (reordered, EARLY, f"entry {WRONG} is older than the one before it, so look there first"),
        (cut, EARLY, "there are 99,999: after entry 99999 the end was cut off"),
        (rewritten, 0, "or all of it was written anew"),
    ],
)
def test_tampering_with_all_hashes_written_anew_is_found(
    altered: Big, events: list[AuditEvent], change: Callable[[list[AuditEvent]], Events], proven: int, expected: str
) -> None:
    written = list(change(list(events)))
    same = next((i for i, (one, other) in enumerate(zip(events, written, strict=False)) if one != other), len(written))
    altered.write(written[same:], after=same)
    assert altered.backend.verify_audit().ok, "only the checkpoints show it"
    found = altered.check()
    assert not found.ok
    assert expected in told(found)
    assert found.proven == proven


def chained(entries: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """A bare hash chain: each entry beside the hash of itself and of the hash before it."""
    links = itertools.accumulate(entries, lambda hashed, entry: hashlib.sha256(hashed + entry).digest(), initial=b"")
    return list(zip(entries, itertools.islice(links, 1, None), strict=True))


def chain_is_well(chain: list[tuple[bytes, bytes]]) -> bool:
    return chain == chained([entry for entry, _ in chain])


def test_a_bare_hash_chain_misses_the_cut_end_that_the_checkpoint_finds(altered: Big) -> None:
    chain = chained(list(altered.backend.export_audit()))
    assert chain_is_well(chain)
    assert not chain_is_well([*chain[: WRONG - 1], (b"forged", chain[WRONG - 1][1]), *chain[WRONG:]])
    assert chain_is_well(chain[:WRONG]), "nothing in a chain says how long it was"

    altered.run(f"delete from audit where id > {WRONG}")
    assert chain_is_well(chained(list(altered.backend.export_audit())))
    found = altered.check()
    assert found.first_wrong == WRONG + 1
    assert f"100,000 entries were there when the checkpoint was signed, and there are {WRONG:,}" in told(found)
