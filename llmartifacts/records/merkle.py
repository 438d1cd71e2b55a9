"""Merkle trees over entries in order: roots, proofs that an entry is in, proofs that a tree only grew.

A tree of `n` entries has one root of 32 bytes, and a root is of exactly those entries in that order. Roots and proofs
are made in one pass over the leaf hashes with memory for about log2(n) of them; proofs have as many steps.

Source: RFC 6962, section 2.1 (roots, proofs); RFC 9162, sections 2.1.3.2 and 2.1.4.2 (how proofs are checked).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from llmartifacts.errors import InvalidInput

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without entries."""

Range = tuple[int, int]
"""Entries from one index up to, without it, another."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: 32 bytes. The byte before it keeps a node from passing for a leaf."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows by one leaf at a time and keeps one hash for each complete subtree: at most log2(size) + 1.

    Example:
        >>> tree = Tree()
        >>> for entry in (b"log", b"promote"):
        ...     tree.add(leaf_hash(entry))
        >>> tree.size, tree.root() == node_hash(leaf_hash(b"log"), leaf_hash(b"promote"))
        (2, True)
    """

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append a leaf, by its hash."""
        node, size = leaf, self.size
        while size & 1:  # each complete subtree to the left of the same height is joined
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Root of all that was added so far: 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        made = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            made = node_hash(peak, made)
        return made


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root of the tree over some leaf hashes."""
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


# --- making proofs: which subtrees their steps are, and the roots of those, in one pass


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose roots prove that an entry is in a tree, in the order of the proof.

    Args:
        index: Place of the entry, from 0.
        size: Size of the tree.

    Raises:
        InvalidInput: The tree has no such entry.
    """
    if not 0 <= index < size:
        raise InvalidInput(f"a tree of {size} entries has none at index {index}", field="index")
    found: list[Range] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            found.append((middle, high))
            high = middle
        else:
            found.append((low, middle))
            low = middle
    return found[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose roots prove that a tree of `new` entries begins with the one of `old`, in the proof's order.

    Raises:
        InvalidInput: `old` is less than 1, or greater than `new`.
    """
    if not 0 < old <= new:
        raise InvalidInput(f"a tree of {new} entries does not begin with one of {old}", field="size")
    found: list[Range] = []
    low, high, whole = 0, new, True
    while old < high:
        middle = low + _split(high - low)
        if old <= middle:
            found.append((middle, high))
            high = middle
        else:
            found.append((low, middle))
            low, whole = middle, False
    if not whole:
        found.append((low, high))  # the old root itself is known to whoever checks
    return found[::-1]


def range_roots(leaves: Iterable[bytes], ranges: Sequence[Range]) -> list[bytes]:
    """Root of each of some ranges, none of which overlap, in one pass over the leaf hashes.

    Raises:
        InvalidInput: There are fewer leaves than the ranges speak of.
    """
    trees = {place: Tree() for place in ranges}
    waiting = sorted(ranges, reverse=True)
    for i, leaf in enumerate(leaves):
        if not waiting:
            break
        low, high = waiting[-1]
        if i >= low:
            trees[low, high].add(leaf)
            if i + 1 == high:
                waiting.pop()
    if waiting:
        raise InvalidInput(f"there are too few entries for a tree of {waiting[0][1]}", field="size")
    return [trees[place].root() for place in ranges]


# --- checking proofs


def inclusion_holds(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether a proof shows that an entry is in a tree.

    Args:
        leaf: Hash of the entry's leaf.
        index: Place of the entry, from 0.
        size: Size of the tree.
        path: The proof's hashes, the lowest first.
        root: Root of the tree.
    """
    if not 0 <= index < size:
        return False
    at, last, made = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            made = node_hash(step, made)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            made = node_hash(made, step)
        at, last = at >> 1, last >> 1
    return last == 0 and made == root


def consistency_holds(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a proof shows that a tree begins with an older one.

    Args:
        old: Size of the older tree. One without entries begins every tree, and needs no proof.
        old_root: Root of it.
        new: Size of the tree.
        new_root: Root of it.
        path: The proof's hashes, the lowest first.
    """
    if old == 0:
        return new >= 0 and not path and old_root == EMPTY_ROOT and (new > 0 or new_root == EMPTY_ROOT)
    if old == new:
        return not path and old_root == new_root
    if not 0 < old < new:
        return False
    steps = list(path)
    if old & (old - 1) == 0:  # complete: its root is the first subtree
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            older, newer = node_hash(step, older), node_hash(step, newer)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, step)
        at, last = at >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


def _split(size: int) -> int:
    """The greatest power of two below a size of at least 2: where RFC 6962 halves a tree."""
    return 1 << ((size - 1).bit_length() - 1)
