"""Intervals of a comparison as a picture: a row a metric, zero and the margin as lines. Wants the extra `plots`."""

from __future__ import annotations

from pathlib import Path

from llmartifacts.errors import InvalidValue, MissingExtra, NotAllowed
from llmartifacts.evals.compare import MetricComparison, ReportComparison

_COLORS = {"PASS": "#1a7f37", "FAIL": "#cf222e", "INCONCLUSIVE": "#9a6700", "ERROR": "#8250df"}
_PLAIN = "#57606a"
_WIDTH, _ROW, _AROUND = 8.0, 0.5, 1.5
"""Inches: of the picture, of a row, of all that is above and below the rows."""


def draw(found: ReportComparison, path: Path) -> None:
    """Draw the intervals of all metrics that were compared.

    Args:
        found: The comparison.
        path: Ends in `.png` or `.svg`; a file that is there is replaced.

    Raises:
        MissingExtra: matplotlib is not installed.
        InvalidValue: No metric was compared.
        NotAllowed: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot, which keeps every figure and may want a display
    except ModuleNotFoundError as error:
        raise MissingExtra("matplotlib draws the plots, and is not installed", extra="plots") from error
    rows = [one for one in found.metrics if one.comparison is not None]
    if not rows:
        raise InvalidValue("no metric of these reports was compared", field="metrics")
    figure = Figure(figsize=(_WIDTH, _AROUND + _ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for y, one in enumerate(rows):
        by = one.comparison
        assert by is not None  # noqa: S101 - chosen so
        color = _COLORS.get(one.verdict.value, _PLAIN) if one.verdict is not None and one.is_demanded else _PLAIN
        axes.plot([by.lower, by.upper], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
        axes.plot([by.delta], [y], marker="o", markersize=7, color=color)
        if one.is_demanded:
            axes.plot([-one.margin] * 2, [y - 0.4, y + 0.4], color="#24292f", linewidth=1, linestyle=(0, (3, 2)))
        said = f"{by.delta:+.3f}  [{by.lower:+.3f}, {by.upper:+.3f}]  n = {by.n}"
        axes.annotate(
            _with_verdict(said, one), (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
        )
    axes.axvline(0, color="#24292f", linewidth=1)
    axes.set_yticks(range(len(rows)), [one.metric for one in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    low, high = _range(rows)
    axes.set_xlim(low, high)
    axes.set_xlabel("difference, as a share of the scale: right of 0 is better; dashed: the margin")
    axes.set_title(f"{found.suite}: {found.targets[1]} against {found.targets[0]}", loc="left", fontsize=10.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#d8dee4", linewidth=0.6)
    axes.set_axisbelow(True)
    try:
        # No time and no random ids, so that the same comparison gives the same file.
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, metadata=metadata)
    except OSError as error:
        raise NotAllowed(f"{str(path)!r} cannot be written: {error.strerror or error}", field="--plot") from error


def _with_verdict(said: str, one: MetricComparison) -> str:
    return f"{said}\n{one.verdict.value}" if one.verdict is not None and one.is_demanded else said


def _range(rows: list[MetricComparison]) -> tuple[float, float]:
    """Of the axis: every interval, zero and the margins, and some room."""
    ends = [0.0]
    for one in rows:
        if one.comparison is not None:
            ends += [one.comparison.lower, one.comparison.upper]
        ends += [-one.margin] if one.is_demanded else []
    room = 0.06 * (max(ends) - min(ends))
    return max(-1.02, min(ends) - room), min(1.02, max(ends) + room)
