"""Verify without llmartifacts: AUDIT.jsonl CHECKPOINT VERIFIERKEY, or --proof PROOF.json VERIFIERKEY."""

import json
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def tree(leaves: list[bytes]) -> bytes:  # RFC 6962, section 2.1
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + tree(leaves[:half]) + tree(leaves[half:])).digest()


def climb(leaf: bytes, index: int, size: int, path: list[str]) -> bytes:  # RFC 6962, section 2.1.1
    if size < 2:
        return leaf if (index, path) == (0, []) else b""
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        return sha256(b"\1" + climb(leaf, index, half, path[:-1]) + bytes.fromhex(path[-1])).digest()
    return sha256(b"\1" + bytes.fromhex(path[-1]) + climb(leaf, index - half, size - half, path[:-1])).digest()


def signed(note: str, key: str) -> tuple[int, bytes]:  # c2sp.org/signed-note, c2sp.org/tlog-checkpoint
    (name, key_id, public), (text, _, signatures) = key.strip().split("+", 2), note.rpartition("\n\n")
    for _, signer, mark in (line.split(" ") for line in signatures.split("\n")[:-1]):
        raw, origin = b64decode(mark), text.partition("\n")[0]
        if (signer, origin, raw[:4].hex()) == (name, name, key_id):
            Ed25519PublicKey.from_public_bytes(b64decode(public)[1:]).verify(raw[4:], f"{text}\n".encode())
            return int(text.split("\n")[1]), b64decode(text.split("\n")[2])
    raise InvalidSignature


try:
    if sys.argv[1] == "--proof":
        proof = json.loads(Path(sys.argv[2]).read_bytes())
        (size, root), there = signed(proof["checkpoint"], sys.argv[3]), ""
        found = climb(sha256(b"\0" + proof["entry"].encode()).digest(), proof["index"], size, proof["path"])
    else:
        entries = Path(sys.argv[1]).read_bytes().split(b"\n")[:-1]
        size, root = signed(Path(sys.argv[2]).read_bytes().decode(), sys.argv[3])
        found, there = tree([sha256(b"\0" + entry).digest() for entry in entries[:size]]), f" of {len(entries)}"
except (InvalidSignature, LookupError, TypeError, ValueError):
    found, root = b"nothing that this key signed", b""
sys.exit("TAMPERED: not what was signed") if found != root else print(f"verified: as signed over {size} entries{there}")
