"""A comparison drawn as one line of text: where its interval lies, beside 0 and beside what is still allowed."""

from __future__ import annotations

import math

from llmartifacts.errors import InvalidValue
from llmartifacts.records.evidence import MARGIN, Comparison

_NARROW = 24
_MOST_DIGITS = 7
_LOWER, _DELTA, _UPPER, _FAMILY, _ZERO, _MARGIN = "├●┤┄│┊"


def plot_interval(comparison: Comparison, margin: float = MARGIN, width: int = 60) -> str:
    """Draw the interval of a comparison for a terminal, with its numbers below.

    The candidate passes where the interval begins to the right of the margin, and is worse where it ends to the left of
    0; the marks keep that order even where two fall into one column. With several metrics a dashed line goes on to the
    bound at which it must be worse.

    Args:
        comparison: The comparison.
        margin: By how much of the scale the candidate may be worse; 0 or more.
        width: Columns of the drawing, and of the numbers as far as they fit; at least 24 are taken.

    Returns:
        The drawing, then one or more lines that say what each mark is; without a line end.

    Raises:
        InvalidValue: The comparison has a difference that is no share of the scale, or the margin is none.

    Example:
        >>> found = Comparison(delta=-0.01, lower=-0.03, upper=0.01, family_upper=0.01, n=300, sd=0.1)
        >>> print(plot_interval(found, 0.05, 44))
          ┊            ├━━━━━━━━━━━━●━━━━━│━━━━━━┤
        ┊ -0.050 margin  ├ -0.030  ● -0.010
        ┤ +0.010  │ 0
    """
    shares = (comparison.lower, comparison.delta, comparison.upper, comparison.family_upper)
    if not all(-1 <= share <= 1 for share in shares):  # NaN is not
        raise InvalidValue("a comparison has differences from -1 to 1, as shares of the scale", field="comparison")
    if not 0 <= margin < math.inf:
        raise InvalidValue(f"a margin is a share of the scale, 0 or more, not {margin}", field="margin")
    width = max(width, _NARROW)
    columns = _columns(comparison, margin, width)
    line = [" "] * width
    if comparison.metrics > 1:
        _fill(line, columns[_UPPER], columns[_FAMILY], _FAMILY)
    _fill(line, columns[_LOWER], columns[_UPPER], "━")
    for mark in (_LOWER, _UPPER, _ZERO, _DELTA, _MARGIN):  # a later one covers an earlier one
        line[columns[mark]] = mark
    return "\n".join(["".join(line).rstrip(), *_legend(comparison, margin, width)])


def _columns(comparison: Comparison, margin: float, width: int) -> dict[str, int]:
    """The column of each mark. Two columns at each end stay free, so that a mark can give way to another."""
    places = {
        _LOWER: comparison.lower,
        _DELTA: comparison.delta,
        _UPPER: comparison.upper,
        _FAMILY: comparison.family_upper if comparison.metrics > 1 else comparison.upper,
        _ZERO: 0.0,
        _MARGIN: -margin,
    }
    first, last = min(places.values()), max(places.values())
    range_ = last - first or 1.0
    columns = {mark: 2 + round((place - first) / range_ * (width - 5)) for mark, place in places.items()}
    # What a verdict depends on is never hidden: on which side of the margin it begins, and of 0 it ends.
    if columns[_MARGIN] == columns[_LOWER]:
        columns[_MARGIN] += -1 if comparison.lower > -margin else 1
    if columns[_ZERO] == columns[_UPPER]:
        columns[_ZERO] += 1 if comparison.upper < 0 else -1
    return columns


def _fill(line: list[str], begin: int, end: int, mark: str) -> None:
    for column in range(begin, end + 1):
        line[column] = mark


def _legend(comparison: Comparison, margin: float, width: int) -> list[str]:
    digits = _digits(comparison, margin)
    said = [
        f"{_MARGIN} {-margin:+.{digits}f} margin",
        f"{_LOWER} {comparison.lower:+.{digits}f}",
        f"{_DELTA} {comparison.delta:+.{digits}f}",
        f"{_UPPER} {comparison.upper:+.{digits}f}",
        f"{_ZERO} 0",
    ]
    if comparison.metrics > 1:
        said.insert(4, f"{_FAMILY} {comparison.family_upper:+.{digits}f} of {comparison.metrics} metrics")
    lines: list[str] = []
    for part in said:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def _digits(comparison: Comparison, margin: float) -> int:
    """As few digits as tell the bounds from the margin and from 0, but three."""
    for digits in range(3, _MOST_DIGITS):
        shown = {value: f"{value:+.{digits}f}" for value in (comparison.lower, comparison.upper, -margin, 0.0)}
        hidden = comparison.lower != -margin and shown[comparison.lower] == shown[-margin]
        if not hidden and not (comparison.upper != 0 and float(shown[comparison.upper]) == 0):
            return digits
    return _MOST_DIGITS
