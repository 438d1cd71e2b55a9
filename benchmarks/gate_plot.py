"""The figures of `gate_statistics`, drawn: how often each method is wrong, and how often it lets a good one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gate_methods import MARGIN, METHODS, Method, most_lost, share_passing, worst_share
from benchmarks.gate_scores import SIZES as GRADED_SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.gate_statistics import Grid

FEW = (30, 40, 50, 60, 70, 80, 100, 120, 150, 200, 250, 300, 400, 500, 700, 1000)
DISCORDANT = 0.1
STYLES: dict[str, dict[str, Any]] = {  # in the order of METHODS: ours stands out
    method.name: style
    for method, style in zip(
        METHODS,
        (
            {"color": "#0b5fa5", "linewidth": 2.8, "marker": "o", "zorder": 5},
            {"color": "#e07b00", "linewidth": 1.5, "marker": "s"},
            {"color": "#3a8f3a", "linewidth": 1.5, "marker": "^"},
            {"color": "#b0413e", "linewidth": 1.5, "marker": "x"},
        ),
        strict=True,
    )
}


def draw(file: Path, on_graded: Sequence[Grid], *, full: bool = False) -> None:
    """Draw wrong promotions above and power below, on pass/fail and on graded scores.

    Args:
        file: Where the PNG goes.
        on_graded: Tables of `on_graded_scores`; the first is drawn.
        full: Whether pass/fail is worked out at every tenth number of items, which shows the saw of each method.
    """
    from matplotlib.figure import Figure

    sizes = tuple(sorted({*FEW, *range(30, 401, 10)})) if full else FEW
    made = Figure(figsize=(12, 8.4), dpi=110, layout="constrained")
    (wrong, wrong_graded), (power, power_graded) = made.subplots(2, 2)
    shape = on_graded[0].title.partition(": ")[2].partition(";")[0]

    _lines(wrong, sizes, lambda method, n: worst_share(most_lost(method, n), MARGIN))
    _wrong(wrong, "pass/fail, worst discordance (exact)")
    _graded_lines(wrong_graded, on_graded[0], 0)
    _wrong(wrong_graded, f"{shape} (simulated)")
    half = DISCORDANT / 2
    _lines(power, sizes, lambda method, n: share_passing(most_lost(method, n), half, half))
    _power(power, f"pass/fail, {DISCORDANT:.0%} discordant (exact)")
    _graded_lines(power_graded, on_graded[0], 1)
    _power(power_graded, f"{shape} (simulated)")

    handles, names = wrong.get_legend_handles_labels()
    made.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=11)
    made.suptitle(
        f"A candidate that is worse by exactly the margin ({100 * MARGIN:g} points) may pass 5 times in 100",
        fontsize=13,
    )
    made.savefig(file, format="png")


def _lines(axes: Axes, sizes: Sequence[int], share: Callable[[Method, int], float]) -> None:
    for method in METHODS:
        shares = [100 * share(method, n) for n in sizes]
        axes.plot(sizes, shares, label=method.name, markersize=4, **STYLES[method.name])


def _graded_lines(axes: Axes, grid: Grid, which: int) -> None:
    for name, cells in grid.rows.items():
        axes.plot(GRADED_SIZES, [cell[0] for cell in cells[which::2]], label=name, markersize=5, **STYLES[name])


def _wrong(axes: Axes, what: str) -> None:
    axes.set_title(f"Worse by the margin, and passes: {what}", fontsize=10)
    axes.set_yscale("log")
    axes.set_ylim(0.8, 110)
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.axhline(5, color="black", linewidth=1, linestyle="--")
    axes.annotate(
        "allowed: 5 %",
        (0, 5),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=9,
    )
    axes.set_ylabel("promoted, % (log)")
    _items(axes)


def _power(axes: Axes, what: str) -> None:
    axes.set_title(f"Equal, and passes: {what}", fontsize=10)
    axes.set_ylim(0, 103)
    axes.axhline(80, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("promoted, %")
    _items(axes)


def _items(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(27, 1110)
    ticks = (30, 50, 100, 200, 400, 1000)
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("items")
    axes.grid(alpha=0.25)
