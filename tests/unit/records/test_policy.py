from itertools import product

import pytest

from llmartifacts.records.policy import GateResult, Verdict, all_of, any_of

WORST_FIRST = [Verdict.TAMPERED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS]


@pytest.mark.parametrize(("a", "b"), list(product(WORST_FIRST, repeat=2)))
def test_all_of_gives_the_worst_and_any_of_the_best_unless_tampered(a, b):
    assert all_of([a, b]) is min(a, b, key=WORST_FIRST.index)
    tampered = Verdict.TAMPERED in (a, b)
    assert any_of([a, b]) is (Verdict.TAMPERED if tampered else max(a, b, key=WORST_FIRST.index))


def test_every_verdict_has_its_place():
    assert set(WORST_FIRST) == set(Verdict)
    assert all_of(list(Verdict)) is any_of(list(Verdict)) is Verdict.TAMPERED


def test_nothing_at_all_is_an_error():
    assert all_of([]) is any_of([]) is Verdict.ERROR


def test_a_result_reads_as_one_line():
    assert str(GateResult("g", "index-dimension", Verdict.FAIL, "it is 7")) == "FAIL index-dimension: it is 7"
