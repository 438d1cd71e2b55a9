"""Verifying a registry of a million versions: seconds, and peak memory of the process that does it.

The registry is that of `scale`: nine tenths are versions of one collection, the rest are in a collection each. Quick:
every row against the audit, every manifest against its digest, SQLite's own check; there is no data to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.measure import Bench, Budget, Figure, Line, Subject, python_tells, within
from benchmarks.scale import filled

PEAK = 300
"""MiB that it may take."""
SECONDS = 60
BESIDE = "SQLite's check"
_TELL = """
import json, sys, time
begin = time.perf_counter()
{work}
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({{"seconds": time.perf_counter() - begin, "cpu": time.process_time(), "MiB": peak, "ok": ok}}))
"""
OURS = _TELL.format(
    work="""
import llmartifacts
with llmartifacts.connect(sys.argv[1]) as registry:
    ok = registry.verify().ok
"""
)
PLAIN = _TELL.format(
    work="""
import apsw
database = apsw.Connection(sys.argv[1] + "/registry.db", flags=apsw.SQLITE_OPEN_READONLY)
ok = list(database.execute("pragma integrity_check")) == [("ok",)]
"""
)


def measure(bench: Bench) -> Iterator[Line]:
    many = bench.size(20_000, 1_000_000)
    bench.say(f"logging {many:,} versions")
    place = bench.folder / "verified"
    filled(place, many)[0].close()
    ours, floor = [_told(OURS, place) for _ in range(bench.runs)], [_told(PLAIN, place) for _ in range(bench.runs)]
    note = f"{many:,} versions; a new process, its start and its imports included"
    yield Line(
        "verify, quick", _figure(ours, "seconds", "s"), _figure(floor, "seconds", "s"), BESIDE, within(SECONDS),
        bench.full, note,
    )  # fmt: skip
    yield Line("the same, seconds of processor", _figure(ours, "cpu", "s"), _figure(floor, "cpu", "s"), BESIDE)
    most = Budget(f"{PEAK} MiB", lambda ours, floor: ours <= PEAK * 1.048576)
    yield Line("its peak memory", _figure(ours, "MiB", "MB"), _figure(floor, "MiB", "MB"), BESIDE, most, bench.full)


def _told(code: str, place: Any) -> dict[str, float]:
    told = python_tells(code, str(place))
    if not told["ok"]:
        raise RuntimeError("what was just written does not verify")
    return told


def _figure(told: list[dict[str, float]], what: str, unit: Any) -> Figure:
    factor = 1.048576 if unit == "MB" else 1.0
    return Figure(tuple(one[what] * factor for one in told), unit)


SUBJECT = Subject(
    "verifying",
    "verify over a million versions (small: 20,000): time, and peak memory",
    "SQLite's own check of the file",
    measure,
)
