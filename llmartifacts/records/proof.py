"""Proofs about the audit, as JSON files that anyone checks without the registry.

An inclusion proof shows that one entry is among those of a signed checkpoint; a consistency proof shows that the audit
of one signed checkpoint begins with that of an older one: nothing in between was changed, removed or put in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import InvalidManifest, TooLarge
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.checkpoint import MAX_SIZE, Checkpoint
from llmartifacts.records.merkle import HASH_BYTES, consistency_holds, inclusion_holds, leaf_hash

SCHEMA = "llmartifacts/audit-proof/1"
MAX_STEPS = 64
MAX_PROOF = 4 * 1024 * 1024
"""Bytes of a proof's file: an entry, two checkpoints and 64 hashes."""


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That an entry is among the first of the audit.

    Attributes:
        entry: The entry, canonical JSON.
        index: Its place, from 0.
        size: Size of the tree that it is proved for.
        path: Hashes, 32 bytes each, the lowest first.
    """

    entry: bytes
    index: int
    size: int
    path: tuple[bytes, ...]

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Whether it shows that the entry is among those of a checkpoint."""
        if self.size != checkpoint.size:
            return False
        return inclusion_holds(leaf_hash(self.entry), self.index, self.size, self.path, checkpoint.root)

    def to_json(self, checkpoint: str) -> dict[str, Any]:
        """The proof's document.

        Args:
            checkpoint: The signed checkpoint, as its file has it.
        """
        return {
            "schema": SCHEMA,
            "proof": "inclusion",
            "entry": self.entry.decode(),
            "index": self.index,
            "path": [step.hex() for step in self.path],
            "checkpoint": checkpoint,
        }


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the audit of one size begins with that of a smaller one.

    Attributes:
        old: The smaller size.
        new: The size.
        path: Hashes, 32 bytes each, the lowest first.
    """

    old: int
    new: int
    path: tuple[bytes, ...]

    def holds(self, old: Checkpoint, new: Checkpoint) -> bool:
        """Whether it shows that a checkpoint's audit begins with an older one's."""
        if (self.old, self.new) != (old.size, new.size) or old.origin != new.origin:
            return False
        return consistency_holds(old.size, old.root, new.size, new.root, self.path)

    def to_json(self, old: str, new: str) -> dict[str, Any]:
        """The proof's document.

        Args:
            old: The older signed checkpoint, as its file has it.
            new: The newer one.
        """
        return {
            "schema": SCHEMA,
            "proof": "consistency",
            "path": [step.hex() for step in self.path],
            "old_checkpoint": old,
            "checkpoint": new,
        }


@dataclass(frozen=True, slots=True)
class ProofFile:
    """What a proof's file holds. Nothing in it counts before it was checked.

    Attributes:
        entry: The entry of an inclusion proof; None in a consistency proof.
        index: Its place, from 0.
        path: Hashes, 32 bytes each.
        checkpoint: The signed checkpoint.
        old_checkpoint: The older one of a consistency proof; empty in an inclusion proof.
    """

    entry: bytes | None
    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    old_checkpoint: bytes

    @classmethod
    def from_bytes(cls, data: bytes, *, origin: str = "") -> ProofFile:
        """Read a proof's file.

        Args:
            data: Its bytes.
            origin: Where it came from, for messages.

        Raises:
            InvalidManifest: It is no proof; names the field.
            TooLarge: It has more than 4 MiB.
        """
        try:
            given = parse_json(data, field="proof", max_bytes=MAX_PROOF)
            if not isinstance(given, dict) or given.get("schema") != SCHEMA:
                raise _bad("schema", f"this is no proof: its schema is not {SCHEMA}")
            kind = given.get("proof")
            if not isinstance(kind, str) or kind not in _FIELDS:
                raise _bad("proof", "neither an inclusion proof nor a consistency proof")
            if given.keys() != _FIELDS[kind]:
                raise _bad("", f"the fields are not those of this kind of proof ({kind})")
            made = {name: _text(given, name).encode() for name in ("entry", "old_checkpoint") if name in given}
            index = given.get("index", 0)
            if type(index) is not int or not 0 <= index <= MAX_SIZE:
                raise _bad("index", "it is no place of an entry")
            return cls(
                made.get("entry"),
                index,
                _path(given["path"]),
                _text(given, "checkpoint").encode(),
                made.get("old_checkpoint", b""),
            )
        except (InvalidManifest, TooLarge) as error:
            raise type(error).of(error, origin=origin, next_step=_STEP) from None

    def holds(self, checkpoint: Checkpoint, old: Checkpoint | None = None) -> bool:
        """Whether the proof holds for its checkpoints, whose signatures were checked before.

        Args:
            checkpoint: What `checkpoint` says.
            old: What `old_checkpoint` says, of a consistency proof.
        """
        if self.entry is not None:
            return InclusionProof(self.entry, self.index, checkpoint.size, self.path).holds(checkpoint)
        return old is not None and ConsistencyProof(old.size, checkpoint.size, self.path).holds(old, checkpoint)


_FIELDS = {
    "inclusion": {"schema", "proof", "entry", "index", "path", "checkpoint"},
    "consistency": {"schema", "proof", "path", "old_checkpoint", "checkpoint"},
}


def _text(given: dict[str, Any], name: str) -> str:
    value = given[name]
    if not isinstance(value, str):
        raise _bad(name, "it is no text")
    return value


def _path(given: Any) -> tuple[bytes, ...]:
    if not isinstance(given, list) or len(given) > MAX_STEPS:
        raise _bad("path", f"it is no list of at most {MAX_STEPS} hashes")
    return tuple(_hash(step, i) for i, step in enumerate(given))


def _hash(step: Any, i: int) -> bytes:
    if isinstance(step, str) and len(step) == 2 * HASH_BYTES and not set(step) - _HEX:
        return bytes.fromhex(step)
    raise _bad(f"path[{i}]", f"it is no hash of {2 * HASH_BYTES} hex digits")


_HEX: frozenset[str] = frozenset("0123456789abcdef")


def _bad(field: str, told: str) -> InvalidManifest:
    return InvalidManifest(told, field=f"proof.{field}" if field else "proof")


_STEP = "A proof is the file that `audit prove` writes."
