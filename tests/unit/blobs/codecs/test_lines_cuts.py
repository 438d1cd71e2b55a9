"""The cuts of `lines`, beside the rule written down as it is said: one line after another."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.blobs.codecs import lines
from llmartifacts.blobs.codecs.lines import MEAN, LinesCodec

CODEC = LinesCodec()


def may_end_after(line: bytes) -> bool:
    total = sum(int(CODEC._table[byte]) for byte in line) % (1 << 64)
    return bool(lines._marked(np.array([total], np.uint64), np.array([len(line)], np.uint64))[0])


def told(data: bytes) -> list[int]:
    """Cuts at the ends of lines that say so, a quarter to four times the mean apart; a longer line is cut anywhere."""
    cuts: list[int] = []
    last = before = 0
    for line in data.splitlines(keepends=True):
        end = before + len(line)
        if end - last > CODEC.longest and before > last:
            cuts.append(before)
            last = before
        while end - last > CODEC.longest:
            last += CODEC.longest
            cuts.append(last)
        rest = data[max(last, before) : end]
        if end - last >= MEAN // 4 and may_end_after(rest):
            cuts.append(end)
            last = end
        before = end
    return [*cuts, before] if last < before else cuts


LENGTHS = st.one_of(
    st.integers(0, 200),
    st.integers(0, 3 * MEAN),
    st.sampled_from([MEAN // 4 - 1, MEAN // 4, 4 * MEAN - 1, 4 * MEAN, 4 * MEAN + 1, 9 * MEAN]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=40), st.integers(0, 1 << 30), st.booleans())
def test_the_cuts_are_those_of_the_rule(lengths: list[int], seed: int, ended: bool) -> None:
    alphabet = bytes(range(32, 127))
    source = random.Random(seed)
    data = b"\n".join(bytes(source.choices(alphabet, k=length)) for length in lengths) + b"\n" * ended
    if data:
        assert CODEC.cuts(memoryview(data)) == told(data)


@pytest.mark.parametrize("block", [1, 7, 1000, 1 << 20])
def test_the_cuts_do_not_depend_on_how_much_is_added_up_at_once(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    source = random.Random(4)
    data = b"".join(b"%d %s\n" % (n, source.randbytes(source.randint(0, 90)).hex().encode()) for n in range(300))
    before = CODEC.cuts(memoryview(data))
    monkeypatch.setattr(lines, "_BLOCK", block)
    assert CODEC.cuts(memoryview(data)) == before
    assert len(before) > 1
