"""Merkle trees: the vectors of Certificate Transparency, and properties of every root and proof."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.merkle import (
    EMPTY_ROOT,
    Range,
    Tree,
    consistency_holds,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    range_roots,
    root_of,
)

# The inputs and hashes with which Certificate Transparency tests its trees.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SECOND_LEAF = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
SECOND_PAIR = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
SECOND_HALF = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
THIRD_PAIR = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
FOURTH_PAIR = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
FIFTH_LEAF = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"

MANY = 300
HASHES = [leaf_hash(b"entry %d" % i) for i in range(MANY)]


@cache
def root(low: int, high: int) -> bytes:
    """The definition of RFC 6962, section 2.1, as it stands there."""
    count = high - low
    if count == 0:
        return hashlib.sha256(b"").digest()
    if count == 1:
        return HASHES[low]
    half = 1
    while half * 2 < count:
        half *= 2
    return node_hash(root(low, low + half), root(low + half, high))


def roots(ranges: list[Range]) -> list[bytes]:
    return [root(low, high) for low, high in ranges]


def test_roots_are_those_of_certificate_transparency() -> None:
    assert ROOTS[0] == EMPTY_ROOT.hex()
    assert [root_of(LEAVES[:size]).hex() for size in range(9)] == ROOTS


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [SECOND_LEAF, SECOND_PAIR, SECOND_HALF]),
        (5, 8, [FIFTH_LEAF, FOURTH_PAIR, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
    ],
)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int, path: list[str]) -> None:
    made = range_roots(LEAVES, inclusion_ranges(index, size))
    assert [step.hex() for step in made] == path
    assert inclusion_holds(LEAVES[index], index, size, made, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (1, 1, []),
        (1, 8, [SECOND_LEAF, SECOND_PAIR, SECOND_HALF]),
        (6, 8, [THIRD_PAIR, FOURTH_PAIR, ROOTS[4]]),
        (2, 5, [SECOND_PAIR, FIFTH_LEAF]),
    ],
)
def test_consistency_proofs_are_those_of_certificate_transparency(old: int, new: int, path: list[str]) -> None:
    made = range_roots(LEAVES, consistency_ranges(old, new))
    assert [step.hex() for step in made] == path
    assert consistency_holds(old, bytes.fromhex(ROOTS[old]), new, bytes.fromhex(ROOTS[new]), made)


def test_a_tree_that_grows_has_at_each_size_the_root_of_the_definition() -> None:
    tree = Tree()
    for size in range(MANY + 1):
        assert tree.size == size
        assert tree.root() == root(0, size)
        if size < MANY:
            tree.add(HASHES[size])


def test_a_tree_keeps_no_more_hashes_than_its_size_has_binary_digits() -> None:
    tree = Tree()
    for leaf in HASHES:
        tree.add(leaf)
        assert len(tree._peaks) <= tree.size.bit_length()


def test_every_entry_of_every_tree_is_proven_and_at_no_other_place() -> None:
    for size in range(1, MANY + 1):
        for index in range(size):
            path = roots(inclusion_ranges(index, size))
            assert len(path) <= size.bit_length()
            assert inclusion_holds(HASHES[index], index, size, path, root(0, size))
            assert not inclusion_holds(HASHES[index], index + 1, size, path, root(0, size))


def test_every_tree_is_proven_to_begin_with_every_smaller_one_and_with_no_other() -> None:
    for new in range(1, MANY + 1):
        for old in range(1, new + 1):
            path = roots(consistency_ranges(old, new))
            assert len(path) <= new.bit_length() + 1
            assert consistency_holds(old, root(0, old), new, root(0, new), path)
            assert not consistency_holds(old, leaf_hash(root(0, old)), new, root(0, new), path)


@given(st.data())
def test_the_roots_of_ranges_are_made_in_one_pass_whatever_their_order(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, MANY))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    for ranges in (inclusion_ranges(index, size), consistency_ranges(old, size)):
        shuffled = data.draw(st.permutations(ranges))
        assert range_roots(iter(HASHES), shuffled) == roots(shuffled)


@given(st.data())
def test_a_proof_with_any_bit_changed_proves_nothing(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MANY))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    place = data.draw(st.integers(0, 255))

    def spoilt(value: bytes) -> bytes:
        return (int.from_bytes(value, "big") ^ 1 << place).to_bytes(32, "big")

    included, consistent = roots(inclusion_ranges(index, size)), roots(consistency_ranges(old, size))
    for path, holds in (
        (included, lambda p: inclusion_holds(HASHES[index], index, size, p, root(0, size))),
        (consistent, lambda p: consistency_holds(old, root(0, old), size, root(0, size), p)),
    ):
        assert holds(path)
        at = data.draw(st.integers(0, len(path) - 1))
        assert not holds([*path[:at], spoilt(path[at]), *path[at + 1 :]])
        assert not holds([*path[:at], *path[at + 1 :]])
        assert not holds([*path[:at], path[at], *path[at:]])
        assert not holds([*path, root(0, size)])
        assert not holds([])
        if len(path) > 1:
            assert not holds(path[::-1])
    assert not inclusion_holds(spoilt(HASHES[index]), index, size, included, root(0, size))
    assert not inclusion_holds(HASHES[index], index, size, included, spoilt(root(0, size)))
    assert not consistency_holds(old, spoilt(root(0, old)), size, root(0, size), consistent)
    assert not consistency_holds(old, root(0, old), size, spoilt(root(0, size)), consistent)


@given(st.integers(-3, 40), st.integers(-3, 40), st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_what_is_no_proof_is_refused_and_never_an_error(one: int, other: int, path: list[bytes]) -> None:
    assert not inclusion_holds(bytes(32), one, other, path, b"\xff" * 32)
    assert not consistency_holds(one, b"\xfe" * 32, other, b"\xff" * 32, path)


def test_the_empty_tree_begins_every_other_without_a_proof() -> None:
    assert consistency_holds(0, EMPTY_ROOT, 5, root(0, 5), [])
    assert consistency_holds(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not consistency_holds(0, EMPTY_ROOT, 0, root(0, 1), [])
    assert not consistency_holds(0, root(0, 1), 5, root(0, 5), [])
    assert not consistency_holds(0, EMPTY_ROOT, 5, root(0, 5), [root(0, 1)])


def test_an_inner_node_cannot_pass_for_a_leaf() -> None:
    left, right = HASHES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (7, 4)])
def test_an_entry_that_a_tree_has_not_is_refused(index: int, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"a tree of {size} entries has none at index {index}"):
        inclusion_ranges(index, size)


@pytest.mark.parametrize(("old", "new"), [(0, 4), (5, 4), (-1, 4), (0, 0)])
def test_a_tree_that_another_cannot_begin_with_is_refused(old: int, new: int) -> None:
    with pytest.raises(InvalidInput, match=f"a tree of {new} entries does not begin with one of {old}"):
        consistency_ranges(old, new)


def test_too_few_leaves_for_a_proof_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too few entries for a tree of 8"):
        range_roots(HASHES[:5], inclusion_ranges(0, 8))
