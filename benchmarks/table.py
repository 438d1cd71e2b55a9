"""The table, at most 120 columns wide, and the facts of the machine above it."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import apsw

from benchmarks.measure import Absent, Figure, Line, Subject
from llmartifacts.metadata.sqlite import file_system

WIDTH = 120
COLUMNS = {"name": 29, "ours": 21, "floor": 21, "floor is": 20, "ratio": 7, "budget": 12, "met?": 4}
GAP = " "
TICKS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
LEGEND = """
ours, floor: median of the runs, then the least and the greatest. ratio: how many times the floor's time ours takes
(of rates: how many times faster the floor is). met?: ours against the budget of the design; (no) where the floor itself
misses it on this machine; - where there is no budget, or it speaks of the sizes of --scale full.
"""


def header() -> list[str]:
    """The names of the columns, underlined."""
    return [_row({name: name for name in COLUMNS}), _row({name: "-" * width for name, width in COLUMNS.items()})]


def group(subject: Subject, lines: Iterable[Line | Absent]) -> Iterator[str]:
    """The lines of one subject, then what a reader must know of them."""
    yield subject.name
    done: list[Line] = []
    for line in lines:
        if isinstance(line, Absent):
            yield f"  {line.name}: not measured, {' '.join(line.why.split())}"[:WIDTH]
            continue
        done.append(line)
        yield _row(
            {
                "name": f"  {line.name}",
                "ours": shown(line.ours),
                "floor": shown(line.floor),
                "floor is": line.beside,
                "ratio": f"{_digits(line.ratio)}x" if line.ratio >= 0.01 else "<0.01x",
                "budget": line.budget.text if line.budget else "-",
                "met?": verdict(line),
            }
        )
    for note in dict.fromkeys(line.note for line in done if line.note):
        of = dict.fromkeys(line.name for line in done if line.note == note)
        most = 2 * len(of) > len({line.name for line in done})
        text = note if most else f"{'; '.join(of)}: {note}"
        yield from _wrapped(f"({text})")


def failure(why: str) -> list[str]:
    """That a subject could not be measured."""
    return _wrapped(f"(NOT MEASURED: {' '.join(why.split())[:800]})")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="     ", break_on_hyphens=False)


def verdict(line: Line) -> str:
    """What the last column says."""
    if line.met is None:
        return "-"
    if line.met:
        return "yes"
    return "NO" if line.possible else "(no)"


def shown(figure: Figure) -> str:
    """A figure as `1.23 ms 1.20..1.31`: median, least, greatest."""
    middle = figure.median
    if figure.unit == "% new":  # counted, not timed: the same at every run
        return f"{_digits(middle)} %"
    if figure.unit == "count":
        return f"{middle:,.4g} {min(figure.samples):,.4g}..{max(figure.samples):,.4g}"
    if figure.unit == "s":
        name, tick = next((t for t in TICKS if middle >= t[1]), TICKS[-1])
    else:
        name, tick = ("k/s", 1000.0) if figure.unit == "/s" and middle >= 10_000 else (figure.unit, 1.0)
    low, high = min(figure.samples) / tick, max(figure.samples) / tick
    return f"{_digits(middle / tick)} {name} {_digits(low)}..{_digits(high)}"


def _digits(value: float) -> str:
    """Three digits that say something."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _row(cells: dict[str, str]) -> str:
    return GAP.join(f"{cells[name]:{width}}" for name, width in COLUMNS.items()).rstrip()


def facts(folder: Path) -> dict[str, str]:
    """The machine, as far as the figures depend on it."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}, {_processor()}, {os.cpu_count()} CPUs",
        "load": f"{os.getloadavg()[0]:.1f} when it began",
        "libraries": f"SQLite {apsw.sqlite_lib_version()}, faiss {version('faiss-cpu')}, jinja2 {version('jinja2')}",
        "file system": f"{file_system(folder) or 'unknown'}, {_sync(folder) * 1e6:,.0f} µs to write 4 KiB durably",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _sync(folder: Path) -> float:
    """Seconds of one small durable write: the floor below all that is durable."""
    place, taken = folder / "sync", []
    with place.open("wb", buffering=0) as file:
        for _ in range(50):
            begin = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begin)
    place.unlink()
    return statistics.median(taken)
