"""How often a gate is wrong: the atom bound beside the bootstrap, the t test and McNemar's test, and what it costs.

`python -m benchmarks.gate_statistics` prints every table and, with `--plot FILE`, draws them; `python -m benchmarks
gate_statistics` takes the times. Pass/fail scores are counted out exactly; graded scores are drawn from a fixed seed.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import gate_clusters
from benchmarks.gate_methods import (
    ALPHA,
    ATOM,
    MARGIN,
    MCNEMAR,
    METHODS,
    PAIRED_T,
    PERCENTILE,
    RESAMPLES,
    most_lost,
    share_passing,
    worst_share,
)
from benchmarks.gate_scores import SHAPES, graded
from benchmarks.gate_scores import SIZES as GRADED_SIZES
from benchmarks.measure import Bench, Budget, Figure, Line, Subject, per_call
from llmartifacts.evals.statistics import compare
from llmartifacts.records.evidence import items_needed

SIZES = (50, 100, 200, 400, 1000)
ANY_SIZE = range(30, 401)
Cell = tuple[float, float | None]  # measured, and expected where the method was chosen by it; in percent


@dataclass(frozen=True, slots=True)
class Grid:
    """One table.

    Attributes:
        title: What its figures are.
        columns: One heading per figure.
        rows: Name -> figures.
        note: What a reader must know; empty if nothing.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    note: str = ""


# Percentages from the simulations that the method was chosen by, in the order of the columns.
WRONG = {
    ATOM.name: (3.3, 3.7, 4.1, 4.3, 4.6, 3.8, 4.3),
    PAIRED_T.name: (10.4, 11.8, 12.4, 6.7, 6.4, 13.3, 9.7),
    MCNEMAR.name: (90.9, 85.8, 77.3, 61.8, 29.1, 94.9, 87.5),
}
WRONG_AT_ANY_SIZE = {ATOM.name: 5.0, PAIRED_T.name: 24.1}
EQUAL_PASSES = {0.05: (22, 53, 85, 99, 100), 0.1: (15, 35, 63, 91, 100), 0.3: (11, 18, 32, 54, 88)}
DROP_FAILS = {0.05: (10, 56, 97, 96, 96), 0.1: (13, 35, 67, 93, 96), 0.3: (11, 18, 32, 54, 88)}
GRADED: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {  # wrong promotions, then equal passing
    "nDCG@10, one relevant": {
        ATOM.name: ((1.7, 3.1, 3.5, 3.9), (18, 50, 84, 99)),
        PERCENTILE.name: ((9.8, 8.3, 5.8, 5.8), ()),
        PAIRED_T.name: ((7.3, 6.7, 6.4, 5.7), (50, 70, 91, 100)),
    },
    "perfect, rare total loss": {
        ATOM.name: ((0, 3.6), (0, 100)),
        PERCENTILE.name: ((7.8, 9.0), ()),
        PAIRED_T.name: ((7.5, 11.7), (100, 100)),
    },
}


def wrong_promotions() -> Grid:
    """Candidates worse by exactly the margin that pass, on pass/fail items."""
    cases = [*((n, MARGIN) for n in SIZES), (100, 0.02), (400, 0.02)]
    rows = {
        method.name: _cells([worst_share(most_lost(method, n, m), m) for n, m in cases], WRONG.get(method.name))
        for method in METHODS
    }
    return Grid(
        "Wrong promotions, %: pass/fail, candidate worse by exactly the margin, worst over discordance to 50 %, exact",
        (*(f"n={n}" for n in SIZES), "m=.02: 100", "400"),
        rows,
        "margin 0.05 where none is named; 5 % are allowed",
    )


def wrong_at_any_size(sizes: Sequence[int] = ANY_SIZE) -> Grid:
    """The same at every number of items, and the worst of them: a method must not be lucky with round numbers."""
    rows: dict[str, tuple[Cell, ...]] = {}
    for method in METHODS:
        shares = [worst_share(method.most_lost(n, MARGIN), MARGIN) for n in sizes]
        at = int(np.argmax(shares))
        expected = WRONG_AT_ANY_SIZE.get(method.name) if sizes == ANY_SIZE else None
        rows[f"{method.name}, n={sizes[at]}"] = ((100 * shares[at], expected),)
    return Grid(
        f"Wrong promotions, %: as in the first table, but the worst of all n from {sizes[0]} to {sizes[-1]}",
        ("worst",),
        rows,
    )


def equal_passing() -> Grid:
    """Power: candidates that are equal to their baseline and pass, on pass/fail items."""
    rows = {}
    for discordant, expected in EQUAL_PASSES.items():
        for method in METHODS:
            shares = [share_passing(most_lost(method, n), discordant / 2, discordant / 2) for n in SIZES]
            known = expected if method is ATOM else None
            rows[f"{discordant:.0%} discordant: {method.name}"] = _cells(shares, known)
    return Grid(
        "Power, %: an equal candidate passes; pass/fail, margin 0.05, exact",
        tuple(f"n={n}" for n in SIZES),
        rows,
        "no least number of items is asked for; who is wrong more often than allowed is not stronger, only looser",
    )


def proven_worse() -> Grid:
    """A drop as large as the margin that is told as FAIL, and equal candidates that are, on pass/fail items."""
    rows: dict[str, tuple[Cell, ...]] = {}
    for discordant, expected in DROP_FAILS.items():
        losing, winning = (discordant + MARGIN) / 2, (discordant - MARGIN) / 2
        rows[f"{discordant:.0%} discordant: 5-point drop"] = _cells(
            [_failing(n, losing, winning) for n in SIZES], expected
        )
        equal = [_failing(n, discordant / 2, discordant / 2) for n in SIZES]
        rows[f"{discordant:.0%} discordant: equal (wrong)"] = _cells(equal, None)
    return Grid("FAIL, %: the upper atom bound is below 0; pass/fail, exact", tuple(f"n={n}" for n in SIZES), rows)


def at_items_needed() -> Grid:
    """Power at the number of items that an INCONCLUSIVE verdict says would decide, on pass/fail items."""
    margins = (0.05, 0.02)
    rows = {}
    for discordant in (0.01, 0.02, 0.05, 0.1, 0.3):
        sizes = [items_needed(math.sqrt(discordant), margin) for margin in margins]
        shares = [
            share_passing(most_lost(ATOM, n, margin), discordant / 2, discordant / 2)
            for n, margin in zip(sizes, margins, strict=True)
        ]
        named = " and ".join(f"{n:,}" for n in sizes)
        rows[f"{discordant:.0%} discordant: {named} items"] = _cells(shares, None)
    return Grid(
        "Power, %: an equal candidate passes with as many items as INCONCLUSIVE says would decide; 80 is meant; exact",
        tuple(f"m={margin:g}" for margin in margins),
        rows,
    )


def on_graded_scores(sets: int, seed: int) -> Iterator[Grid]:
    """Wrong promotions and power on drawn graded scores, one table for each shape of them."""
    for shape in SHAPES:
        rows: dict[str, list[Cell]] = {method.name: [] for method in METHODS}
        for at, n in enumerate(GRADED_SIZES):
            rng = np.random.default_rng([seed, n, list(SHAPES).index(shape)])
            drawn = [graded(shape, sets, n, drop, rng) for drop in (MARGIN, 0.0)]
            for method in METHODS:
                for which, differences in enumerate(drawn):
                    known = GRADED.get(shape, {}).get(method.name, ((), ()))[which]
                    share = float(method.passes(differences, MARGIN).mean())
                    rows[method.name].append((100 * share, known[at] if at < len(known) else None))
        yield Grid(
            f"Graded scores, %: {shape}; wrong promotions at the margin, then power; {sets:,} data sets each",
            tuple(part for n in GRADED_SIZES for part in (f"n={n}", "power")),
            {name: tuple(cells) for name, cells in rows.items()},
            "the shape of scores is another than that of the figures in brackets"
            if shape in GRADED and not shape.startswith("perfect")
            else "",
        )


def on_clusters(sets: int, seed: int) -> Grid:
    """Wrong promotions where questions of one document are alike."""
    rows: dict[str, list[Cell]] = {}
    for shape in gate_clusters.SHAPES:
        for documents in gate_clusters.DOCUMENTS:
            for name, share in gate_clusters.wrong_promotions(shape, documents, sets, seed).items():
                rows.setdefault(f"{shape}: {name}", []).append((100 * share, None))
    return Grid(
        f"Questions of documents, %: wrong promotions at the margin; {sets:,} data sets each",
        tuple(f"{documents} docs" for documents in gate_clusters.DOCUMENTS),
        {name: tuple(cells) for name, cells in rows.items()},
        "known beforehand, with other laws: by document 0 to 4.7; bootstrapped 5 to 6.5, lost documents 13 to 30; "
        "ignoring them 9 to 12 at correlation 0.1, 18 to 21 at 0.3, 22 to 27 for lost documents",
    )


def table(grid: Grid) -> Iterator[str]:
    """A table as lines of text: each figure, and the expected one in brackets."""
    yield grid.title
    wide = max(map(len, grid.rows)) + 2
    cells = {name: [_shown(cell) for cell in row] for name, row in grid.rows.items()}
    column = max(max(len(text) for row in cells.values() for text in row), *map(len, grid.columns)) + 1
    yield " " * wide + "".join(f"{name:>{column}}" for name in grid.columns)
    for name, row in cells.items():
        yield f"  {name:{wide - 2}}" + "".join(f"{text:>{column}}" for text in row)
    if grid.note:
        yield from textwrap.wrap(f"({grid.note})", 118, initial_indent="  ", subsequent_indent="   ")
    yield ""


def measure(bench: Bench) -> Iterator[Line]:
    """What a comparison costs, and how sure it is, beside the usual methods."""
    rng = np.random.default_rng(0)
    for n in (400, 10_000):
        before, after = ({f"q{i}": float(s) for i, s in enumerate(rng.random(n).round(3))} for _ in range(2))
        ways = {
            "paired t test": partial(_t_bound, before, after),
            "percentile bootstrap": partial(_percentile_bound, before, after),
        }
        ours, *floors = bench.beside(
            partial(per_call, partial(compare, before, after, lo=0, hi=1)),
            *(partial(per_call, way) for way in ways.values()),
        )
        for name, floor in zip(ways, floors, strict=True):
            note = f"compare() gives three bounds, t and the bootstrap ({RESAMPLES:,} resamples) one each"
            yield Line(f"compare {n:,} items", ours, floor, name, note=note)
    refused = Budget("95 %", lambda ours, floor: ours >= 95)
    for n in (50, 100, 400):
        ours, theirs = (Figure((100 - 100 * worst_share(most_lost(m, n), MARGIN),), "%") for m in (ATOM, PERCENTILE))
        note = "share refused of candidates worse by exactly the margin; pass/fail, worst discordance, exact, not timed"
        yield Line(f"refused at the margin, n={n}", ours, theirs, PERCENTILE.name, refused, note=note)


SUBJECT = Subject(
    "gate_statistics",
    "comparing two targets: its time, and how often it is wrong (all tables: python -m benchmarks.gate_statistics)",
    "Student's paired t test and the percentile bootstrap",
    measure,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every table, and draw them where a file is named."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gate_statistics",
        description="How often gates are wrong, by method, beside the figures the method was chosen by (in brackets).",
    )
    made.add_argument(
        "--full", action="store_true", help="more data sets, and every n from 30 to 400; some two minutes"
    )
    made.add_argument("--sets", type=int, metavar="N", help="data sets of drawn scores (default 1,000; full: 6,000)")
    made.add_argument("--seed", type=int, default=20, help="of the drawn scores (default 20)")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures there, as PNG; needs the extra plots")
    given = made.parse_args(arguments)
    sets = (6000 if given.full else 1000) if given.sets is None else given.sets
    if sets < 1:
        made.error("--sets is at least 1")
    begin = time.perf_counter()
    exact = [wrong_promotions(), equal_passing(), proven_worse(), at_items_needed()]
    for grid in [*exact, *([wrong_at_any_size()] if given.full else [])]:
        print(*table(grid), sep="\n", flush=True)
    on_graded: list[Grid] = []
    for grid in on_graded_scores(sets, given.seed):
        on_graded.append(grid)
        print(*table(grid), sep="\n", flush=True)
    print(*table(on_clusters(math.ceil(sets / 2), given.seed)), sep="\n", flush=True)
    error = 100 * math.sqrt(ALPHA * (1 - ALPHA) / sets)
    print(f"One standard error at 5 % is {error:.1f} points with {sets:,} data sets. Seed {given.seed}.")
    if given.plot:
        from benchmarks.gate_plot import draw

        draw(given.plot, on_graded, full=given.full)
        print(f"Drawn to {given.plot}.")
    print(f"... {time.perf_counter() - begin:.0f} s in all", file=sys.stderr)
    return 0


def _failing(n: int, losing: float, winning: float) -> float:
    """The probability of FAIL: proven worse, and not passed before that was asked."""
    not_failing = np.maximum(most_lost(ATOM, n), ATOM.proves_worse(n) - 1)
    return 1 - share_passing(not_failing, losing, winning)


def _cells(shares: Sequence[float], expected: Sequence[float] | None) -> tuple[Cell, ...]:
    known: Sequence[float | None] = expected or [None] * len(shares)
    return tuple((100 * share, one) for share, one in zip(shares, known, strict=True))


def _shown(cell: Cell) -> str:
    figure, expected = cell
    text = f"{figure:.1f}"
    return text if expected is None else f"{text} ({expected:g})"


def _t_bound(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    from scipy.stats import t

    found = np.array([after[item] - score for item, score in before.items()])
    return float(found.mean() - t.ppf(1 - ALPHA, found.size - 1) * found.std(ddof=1) / math.sqrt(found.size))


def _percentile_bound(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    found = np.array([after[item] - score for item, score in before.items()])
    rng = np.random.default_rng(0)
    means = [found[rng.integers(0, found.size, found.size)].mean() for _ in range(RESAMPLES)]
    return float(np.quantile(means, ALPHA))


if __name__ == "__main__":
    sys.exit(main())
