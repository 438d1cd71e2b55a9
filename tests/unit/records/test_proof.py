"""The files of proofs: written, read, checked, and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidManifest, TooLarge
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.merkle import consistency_ranges, inclusion_ranges, leaf_hash, range_roots, root_of
from llmartifacts.records.proof import MAX_PROOF, ConsistencyProof, InclusionProof, ProofFile

ENTRIES = [f'{{"n":{i}}}'.encode() for i in range(40)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def checkpoint(size: int) -> Checkpoint:
    return Checkpoint("llmartifacts/a", size, root_of(LEAVES[:size]))


def included(index: int, size: int) -> InclusionProof:
    return InclusionProof(ENTRIES[index], index, size, tuple(range_roots(LEAVES, inclusion_ranges(index, size))))


def grown(old: int, new: int) -> ConsistencyProof:
    return ConsistencyProof(old, new, tuple(range_roots(LEAVES, consistency_ranges(old, new))))


def stored(document: Any) -> bytes:
    return json.dumps(document).encode()


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))))
def test_a_proof_of_an_entry_holds_when_it_is_read_again(place: tuple[int, int]) -> None:
    index, size = place
    proof = included(index, size)
    file = ProofFile.from_bytes(stored(proof.to_json("the note\n")))
    assert proof.holds(checkpoint(size))
    assert file.holds(checkpoint(size))
    assert (file.entry, file.index, file.checkpoint) == (ENTRIES[index], index, b"the note\n")
    assert not file.holds(checkpoint(size % 40 + 1))


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size))))
def test_a_proof_of_growth_holds_when_it_is_read_again(sizes: tuple[int, int]) -> None:
    old, new = sizes
    file = ProofFile.from_bytes(stored(grown(old, new).to_json("old\n", "new\n")))
    assert file.holds(checkpoint(new), checkpoint(old))
    assert (file.entry, file.old_checkpoint, file.checkpoint) == (None, b"old\n", b"new\n")
    assert not file.holds(checkpoint(new))
    other = Checkpoint("llmartifacts/b", old, checkpoint(old).root)
    assert not file.holds(checkpoint(new), other), "of another registry"


@given(st.data())
def test_a_proof_with_any_byte_changed_is_refused_or_proves_nothing_or_says_the_same(data: st.DataObject) -> None:
    good = stored(included(17, 33).to_json("the note\n"))
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    try:
        file = ProofFile.from_bytes(changed)
    except InvalidManifest:
        return
    same = (file.entry, file.index, file.path) == (ENTRIES[17], 17, included(17, 33).path)
    assert file.holds(checkpoint(33)) == same


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": "llmartifacts/audit-proof/2"}, "proof.schema"),
        ({"proof": "faith"}, "proof.proof"),
        ({"proof": None}, "proof.proof"),
        ({"proof": ["inclusion"]}, "proof.proof"),
        ({"proof": "consistency"}, "proof"),
        ({"more": 1}, "proof"),
        ({"index": -1}, "proof.index"),
        ({"index": True}, "proof.index"),
        ({"index": 1.5}, "proof.index"),
        ({"entry": 3}, "proof.entry"),
        ({"checkpoint": None}, "proof.checkpoint"),
        ({"path": "00"}, "proof.path"),
        ({"path": ["00" * 32] * 65}, "proof.path"),
        ({"path": ["00" * 31]}, "proof.path[0]"),
        ({"path": ["AA" * 32]}, "proof.path[0]"),
        ({"path": ["00" * 32, 7]}, "proof.path[1]"),
    ],
)
def test_what_is_no_proof_is_refused_with_the_field_that_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        ProofFile.from_bytes(stored({**included(3, 8).to_json("n"), **change}), origin="p.json")
    assert (raised.value.field, raised.value.origin) == (field, "p.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b'{"schema":1,"schema":2}', b"\xff"])
def test_other_files_are_no_proofs(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        ProofFile.from_bytes(data)


def test_a_huge_file_is_no_proof() -> None:
    with pytest.raises(TooLarge):
        ProofFile.from_bytes(b" " * (MAX_PROOF + 1))
