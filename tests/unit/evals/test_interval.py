"""An interval as text: every mark in its place, and what decides never hidden."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.interval import plot_interval
from llmartifacts.records.evidence import Comparison

FOUND = Comparison(delta=-0.01, lower=-0.03, upper=0.01, family_upper=0.01, n=300, sd=0.1)
SHARE = st.floats(-1, 1)
THREE = st.tuples(SHARE, SHARE, SHARE).map(sorted) | st.sampled_from([[0.0, 0.0, 2.3e-309], [2.3e-309] * 3])
MARGINS = st.floats(0, 1) | st.sampled_from([0.05, 0.02, 0.0])


def test_the_drawing_reads_from_the_margin_to_the_upper_bound_with_the_numbers_below() -> None:
    assert plot_interval(FOUND, 0.05, 60).splitlines() == [
        "  ┊                 ├━━━━━━━━━━━━━━━━━━●━━━━━━━━│━━━━━━━━┤",
        "┊ -0.050 margin  ├ -0.030  ● -0.010  ┤ +0.010  │ 0",
    ]


def test_a_proven_loss_ends_before_zero_and_may_begin_before_the_margin() -> None:
    lost = Comparison(delta=-0.15, lower=-0.18, upper=-0.12, family_upper=-0.11, n=400, sd=0.3, metrics=4)
    line, *numbers = plot_interval(lost, 0.05, 60).splitlines()
    assert line == "  ├━━━━━━━━●━━━━━━━━┤┄┄┄                  ┊              │"
    assert numbers == ["┊ -0.050 margin  ├ -0.180  ● -0.150  ┤ -0.120", "┄ -0.110 of 4 metrics  │ 0"]


def test_the_bound_for_several_metrics_is_shown_only_where_there_are_several() -> None:
    wider = replace(FOUND, family_upper=0.03)
    assert "┄" not in plot_interval(wider)
    assert "┄ +0.030 of 2 metrics" in plot_interval(replace(wider, metrics=2))


@given(THREE, MARGINS, st.integers(24, 130))
def test_marks_stand_in_their_order_and_the_drawing_keeps_to_its_width(
    three: list[float], margin: float, width: int
) -> None:
    lower, delta, upper = three
    found = Comparison(delta, lower, upper, upper, 100, 0.1)
    line, *numbers = plot_interval(found, margin, width).splitlines()
    assert max(map(len, [line, *numbers])) <= width
    begin, end, margin_at, zero_at = (line.find(mark) for mark in "├┤┊│")
    assert margin_at >= 0, "what is allowed is always seen"
    if begin >= 0:  # the mean and the margin may cover a bound in a column that they share
        assert (margin_at < begin) == (lower > -margin)
    if end >= 0 and zero_at >= 0:
        assert (end < zero_at) == (upper < 0)


@pytest.mark.parametrize("width", [24, 40, 60, 120])
@pytest.mark.parametrize(("lower", "passes"), [(-0.0499999, True), (-0.05, False), (-0.0500001, False)])
def test_a_bound_that_is_only_just_within_the_margin_is_drawn_and_told_so(
    lower: float, passes: bool, width: int
) -> None:
    line, *numbers = plot_interval(replace(FOUND, lower=lower, upper=0.8), 0.05, width).splitlines()
    assert (line.index("┊") < line.index("├")) == passes
    told = " ".join(numbers)
    assert (f"├ {lower:+.7f}" in told) if lower != -0.05 else "├ -0.050 " in told


@pytest.mark.parametrize(("upper", "worse"), [(-1e-7, True), (0.0, False), (1e-7, False)])
def test_a_bound_that_is_only_just_below_zero_is_drawn_and_told_so(upper: float, worse: bool) -> None:
    line, *numbers = plot_interval(replace(FOUND, lower=-0.9, delta=-0.5, upper=upper)).splitlines()
    assert (line.index("┤") < line.index("│")) == worse
    assert f"┤ {upper:+.7f}" in " ".join(numbers) or upper == 0


def test_nothing_differs_and_nothing_is_allowed_still_has_a_drawing() -> None:
    nothing = Comparison(0, 0, 0, 0, 1, 0)
    line, *_ = plot_interval(nothing, 0).splitlines()
    assert "●" in line


def test_a_narrow_terminal_gets_the_numbers_on_more_lines() -> None:
    lines = plot_interval(FOUND, 0.05, 5).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 24


@pytest.mark.parametrize("changed", [{"lower": math.nan}, {"upper": math.inf}, {"delta": -1.1}])
def test_what_is_no_share_of_the_scale_cannot_be_drawn(changed: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match="shares of the scale"):
        plot_interval(replace(FOUND, **changed))


@pytest.mark.parametrize("margin", [-0.01, math.nan, math.inf])
def test_a_margin_is_a_finite_share_and_not_below_zero(margin: float) -> None:
    with pytest.raises(InvalidValue, match="margin"):
        plot_interval(FOUND, margin)
