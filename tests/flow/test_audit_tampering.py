"""Thousands of audit entries: every kind of tampering is found, and a bare hash chain would miss the cut end.

A few thousand by default; `make matrix` tries a hundred thousand.
"""

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

Events = Iterable[AuditEvent]


def labels(upto: int, after: AuditEvent, number: int) -> Iterator[AuditEvent]:
    """Labels set on versions: the records do not repeat them, so that only the audit can tell of them."""
    for n in range(number + 1, upto + 1):
        at, said = after.at + timedelta(seconds=n), {"set": {"n": str(n)}, "remove": []}
        yield AuditEvent("default", at, f"person-{n % 7}", "tag", f"docs:v{n}", said)


class Big:
    """A registry with very many entries, and two signed checkpoints of it that were kept elsewhere.

    Attributes:
        many: Entries in all.
        early: Those that the first checkpoint covers.
        wrong: Number of the entry that is tampered with.
    """

    def __init__(self, backend: Any, kept: list[tuple[str, Checkpoint]], many: int) -> None:
        self.backend = backend
        self.kept = kept
        self.many, self.early, self.wrong = many, many * 4 // 10, many * 7 // 10

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


@pytest.fixture(scope="module", params=[3_000, pytest.param(100_000, marks=pytest.mark.matrix)])
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Big]:
    with la.init(tmp_path_factory.mktemp("big") / "registry") as registry:
        made = Big(registry.backend, [], request.param)
        (first,) = made.backend.audit_log()
        for upto, source in ((made.early, "early.checkpoint"), (made.many, "late.checkpoint")):
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
        yield Big(registry.backend, big.kept, big.many)
    shutil.rmtree(tmp_path / "registry")


def told(found: AuditVerification) -> str:
    return "\n".join(problem.message for problem in found.problems)


def test_all_entries_are_proven_to_be_those_that_were_signed(big: Big) -> None:
    found = big.check()
    assert found.ok
    assert (found.size, found.proven) == (big.many, big.many)
    proof = big.backend.audit_inclusion(big.wrong - 1, big.many)
    assert len(proof.path) == {3_000: 11, 100_000: 17}[big.many]
    assert proof.holds(big.kept[1][1])
    assert big.backend.audit_consistency(big.early, big.many).holds(big.kept[0][1], big.kept[1][1])


@pytest.mark.parametrize(
    ("sql", "further", "expected"),
    [
        ("update audit set entry = replace(entry, 'person', 'nobody') where id = {wrong}", 0, "entry {wrong};"),
        ("delete from audit where id = {wrong}", 0, "entry {wrong} is the first that is missing"),
        ("delete from audit where id > {wrong}", 1, "after entry {wrong} the end was cut off"),
    ],
    ids=["edit", "delete", "cut"],
)
def test_clumsy_tampering_is_found_and_the_entry_named(altered: Big, sql: str, further: int, expected: str) -> None:
    altered.run(sql.format(wrong=altered.wrong))
    found = altered.check()
    assert expected.format(wrong=altered.wrong) in told(found)
    assert (found.proven, found.first_wrong) == (altered.early, altered.wrong + further)


def edited(events: list[AuditEvent], wrong: int) -> Events:
    events[wrong - 1] = replace(events[wrong - 1], actor="nobody")
    return events


def deleted(events: list[AuditEvent], wrong: int) -> Events:
    del events[wrong - 1]
    return events


def inserted(events: list[AuditEvent], wrong: int) -> Events:
    events.insert(wrong - 1, replace(events[wrong - 2], actor="nobody"))
    return events


def reordered(events: list[AuditEvent], wrong: int) -> Events:
    events[wrong - 2], events[wrong - 1] = events[wrong - 1], events[wrong - 2]
    return events


def cut(events: list[AuditEvent], wrong: int) -> Events:
    return events[:-1]


def rewritten(events: list[AuditEvent], wrong: int) -> Events:
    return [events[0], *(replace(event, actor="nobody") for event in events[1:])]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edited, "one from {after} to {many} was edited, removed, put in or moved"),
        (deleted, "there are {less:,}: after entry {less} the end was cut off"),
        (inserted, "one from {after} to {many} was edited, removed, put in or moved"),
        (reordered, "entry {wrong} is older than the one before it, so look there first"),
        (cut, "there are {less:,}: after entry {less} the end was cut off"),
        (rewritten, "or all of it was written anew"),
    ],
)
def test_tampering_with_all_hashes_written_anew_is_found(
    altered: Big, events: list[AuditEvent], change: Callable[[list[AuditEvent], int], Events], expected: str
) -> None:
    written = list(change(list(events), altered.wrong))
    same = next((i for i, (one, other) in enumerate(zip(events, written, strict=False)) if one != other), len(written))
    altered.write(written[same:], after=same)
    assert altered.backend.verify_audit().ok, "only the checkpoints show it"
    found = altered.check()
    assert not found.ok
    numbers = {"after": altered.early + 1, "wrong": altered.wrong, "less": altered.many - 1, "many": altered.many}
    assert expected.format(**numbers) in told(found)
    assert found.proven == (0 if change is rewritten else altered.early)


def chained(entries: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """A bare hash chain: each entry beside the hash of itself and of the hash before it."""
    links = itertools.accumulate(entries, lambda hashed, entry: hashlib.sha256(hashed + entry).digest(), initial=b"")
    return list(zip(entries, itertools.islice(links, 1, None), strict=True))


def chain_is_well(chain: list[tuple[bytes, bytes]]) -> bool:
    return chain == chained([entry for entry, _ in chain])


def test_a_bare_hash_chain_misses_the_cut_end_that_the_checkpoint_finds(altered: Big) -> None:
    wrong = altered.wrong
    chain = chained(list(altered.backend.export_audit()))
    assert chain_is_well(chain)
    assert not chain_is_well([*chain[: wrong - 1], (b"forged", chain[wrong - 1][1]), *chain[wrong:]])
    assert chain_is_well(chain[:wrong]), "nothing in a chain says how long it was"

    altered.run(f"delete from audit where id > {wrong}")
    assert chain_is_well(chained(list(altered.backend.export_audit())))
    found = altered.check()
    assert found.first_wrong == wrong + 1
    assert f"{altered.many:,} entries were there when the checkpoint was signed, and there are {wrong:,}" in told(found)
