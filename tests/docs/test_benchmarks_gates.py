"""The figures of gates are those that the method was chosen by, and the methods beside it are what they are called."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 120


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def load(module: str) -> Any:
    return importlib.import_module(f"benchmarks.{module}")


def differences(n: int, lost: int, won: int) -> Any:
    return np.repeat([-1.0, 0.0, 1.0], [lost, n - lost - won, won])


def test_figures_known_beforehand_are_met_on_pass_and_fail() -> None:
    gate = load("gate_statistics")
    for made in (gate.wrong_promotions, gate.equal_passing, gate.proven_worse):
        grid = made()
        known = [(name, cell) for name, row in grid.rows.items() for cell in row if cell[1] is not None]
        assert len(known) >= 15
        for name, (figure, expected) in known:
            assert figure == pytest.approx(expected, abs=0.55 if expected == int(expected) else 0.16), (
                grid.title,
                name,
            )


def test_the_atom_bound_promotes_no_more_than_five_in_a_hundred_at_the_margin_and_the_others_do() -> None:
    methods, gate = load("gate_methods"), load("gate_statistics")
    grid = gate.wrong_at_any_size(range(48, 66))
    worst = {name.partition(",")[0]: row[0][0] for name, row in grid.rows.items()}
    assert worst.pop(methods.ATOM.name) <= 5.05
    assert all(share > 9 for share in worst.values())


def test_a_share_is_exact_it_is_the_sum_over_every_outcome() -> None:
    methods = load("gate_methods")
    n, losing, winning = 12, 0.2, 0.1
    most = np.array([0, 1, 1, 2, 3, 4, 4, 4, 4, 3, 2, 1, 0])
    by_hand = sum(
        math.comb(n, won)
        * math.comb(n - won, lost)
        * winning**won
        * losing**lost
        * (1 - losing - winning) ** (n - won - lost)
        for won, lost in itertools.product(range(n + 1), repeat=2)
        if lost <= most[won] and lost + won <= n
    )
    assert methods.share_passing(most, losing, winning) == pytest.approx(by_hand)


@pytest.mark.parametrize("which", range(4))
def test_what_a_method_lets_pass_is_found_by_the_walk_as_by_trying_all(which: int) -> None:
    methods = load("gate_methods")
    method, n, margin = methods.METHODS[which], 24, 0.15
    most = method.most_lost(n, margin)
    for won in range(n + 1):
        passing = [lost for lost in range(n - won + 1) if method.passes_counts(n, lost, won, margin)]
        assert passing == list(range(int(most[won]) + 1))


def test_fail_begins_where_the_upper_bound_is_below_zero() -> None:
    from llmartifacts.evals.statistics import upper_bound

    fewest = load("gate_methods").ATOM.proves_worse(20)
    for won in range(21):
        proven = [lost for lost in range(21 - won) if upper_bound(differences(20, lost, won), -1, 1) < 0]
        assert fewest[won] == (proven[0] if proven else 21)


@pytest.mark.parametrize("which", [0, 2, 3])
def test_a_method_says_the_same_of_counts_as_of_the_differences_they_are_of(which: int) -> None:
    method = load("gate_methods").METHODS[which]
    for lost, won in itertools.product(range(0, 12, 2), range(0, 7, 3)):
        said = method.passes(differences(80, lost, won)[None, :], 0.05)
        assert said.tolist() == [method.passes_counts(80, lost, won, 0.05)]


def test_the_bootstrap_of_counts_is_that_of_very_many_resamples() -> None:
    method = load("gate_methods").PERCENTILE
    rng = np.random.default_rng(0)
    for lost, won in ((1, 0), (2, 0), (3, 1), (4, 5), (0, 0), (5, 5)):
        means = rng.choice(differences(50, lost, won), (40_000, 50)).mean(axis=1)
        share = (means <= -0.05 + 1e-9).mean()
        if abs(share - 0.05) > 0.005:
            assert method.passes_counts(50, lost, won, 0.05) == (share < 0.05)


def test_the_t_test_and_mcnemars_are_those_of_scipy() -> None:
    methods = load("gate_methods")
    for lost, won in ((3, 0), (5, 2), (9, 3), (2, 6)):
        row = differences(60, lost, won)
        low = stats.ttest_1samp(row, 0).confidence_interval(0.9).low
        assert methods.PAIRED_T.passes(row[None, :], -low + 1e-9).all()
        assert not methods.PAIRED_T.passes(row[None, :], -low - 1e-9).any()
        worse = stats.binomtest(lost, lost + won, alternative="greater").pvalue
        assert methods.MCNEMAR.passes_counts(60, lost, won, 0.05) == (worse >= 0.05)


@pytest.mark.parametrize("drop", [0.0, 0.05])
def test_drawn_scores_have_the_true_difference_that_is_asked_for(drop: float) -> None:
    scores = load("gate_scores")
    for shape in scores.SHAPES:
        drawn = scores.graded(shape, 400, 200, drop, np.random.default_rng(1))
        assert drawn.shape == (400, 200)
        assert np.abs(drawn).max() <= 1
        assert drawn.mean() == pytest.approx(-drop, abs=4.5 * drawn.std() / math.sqrt(drawn.size) + 1e-12)


def test_questions_of_a_document_are_as_alike_as_is_said_and_the_truth_is_the_margin() -> None:
    clusters = load("gate_clusters")
    pairs = np.full(40_000, 2)
    for correlation in (0.1, 0.3):
        first, second = clusters.alike(correlation)(np.random.default_rng(2), pairs).reshape(-1, 2).T
        assert np.corrcoef(first, second)[0, 1] == pytest.approx(correlation, abs=0.02)
        assert first.mean() == pytest.approx(-0.05, abs=0.008)
    lost = clusters.lost_whole(np.random.default_rng(2), pairs).reshape(-1, 2)
    assert (lost[:, 0] == lost[:, 1]).all()
    assert lost.mean() == pytest.approx(-0.05, abs=0.005)


def test_ignoring_documents_promotes_what_counting_them_refuses() -> None:
    wrong = load("gate_clusters").wrong_promotions("documents lost", 60, 60, 1)
    assert wrong["atom bound by document"] < 0.15 < wrong["atom bound, ignoring them"]


@pytest.mark.matrix
def test_the_tables_are_printed_and_drawn_the_same_for_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = load("gate_statistics")
    printed = []
    for file in ("a.png", "b.png"):
        assert gate.main(["--sets", "20", "--plot", str(tmp_path / file)]) == 0
        printed.append(capsys.readouterr().out.replace(file, ""))
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    assert printed[0] == printed[1]
    lines = printed[0].splitlines()
    assert max(map(len, lines[:-1])) <= WIDTH
    for method in load("gate_methods").METHODS:
        assert sum(method.name in line for line in lines) >= 5
    assert "4.3 (4.3)" in next(line for line in lines if line.startswith("  atom bound"))


def test_a_number_of_data_sets_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("gate_statistics").main(["--sets", "0"])
    assert "--sets is at least 1" in capsys.readouterr().err
