"""The benchmarks measure and tell: one table with everything beside its floor. No time is asserted here or there."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 120
COLUMNS = ["name", "ours", "floor", "floor is", "ratio", "budget", "met?"]
FIGURE = re.compile(r"[\d.,]+ (s|ms|µs|ns|/s|k/s|%) [\d.,]+\.\.[\d.,]+")
QUICK = {
    "startup": ["import llmartifacts", "resolve a prompt", "import every public name"],
    "resolving": ["registry.get, an alias", "registry.resolve, a prompt", "registry.read, 5 at once"],
    "moving": ["promote 3 components", "roll the 3 back"],
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def load(module: str) -> Any:
    return importlib.import_module(f"benchmarks.{module}")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def cells(line: str, rule: str) -> list[str]:
    """A line of the table, cut where the rule below its header has gaps."""
    return [line[m.start() : m.end()].strip() for m in re.finditer("-+", rule)]


@pytest.mark.matrix
def test_the_table_has_a_line_for_everything_measured_with_its_floor_ratio_and_budget(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = run(*QUICK, "--runs", "1", "--json", str(told), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.partition(":")[0] for line in lines[:6]] == [
        *("python", "system", "load", "libraries", "file system", "scale")
    ]

    rule = next(line for line in lines if line.startswith("---"))
    assert cells(lines[lines.index(rule) - 1], rule) == COLUMNS
    measured: dict[str, list[str]] = {}
    body = lines[lines.index(rule) + 1 :]
    for line in body[: body.index("")]:
        if not line.startswith(" "):
            measured[line] = []
        elif not line.startswith("    "):
            name, ours, floor, beside, ratio, budget, met = cells(line, rule)
            measured[next(reversed(measured))].append(name)
            assert FIGURE.fullmatch(ours)
            assert FIGURE.fullmatch(floor)
            assert beside
            assert re.fullmatch(r"<?[\d.,]+x", ratio)
            assert met in ("yes", "NO", "(no)") if budget != "-" else met == "-"
    assert measured == QUICK

    written = json.loads(told.read_text())
    assert {name: [line["name"] for line in made] for name, made in written["subjects"].items()} == QUICK
    assert all(
        len(line[k]["samples"]) == 1
        for made in written["subjects"].values()
        for line in made
        for k in ("ours", "floor")
    )
    assert not list(tmp_path.glob("llmartifacts-*")), "its folder is removed"


def test_every_subject_is_listed_in_the_help_with_what_it_measures_and_its_floor(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    subjects = load("__main__").SUBJECTS
    for subject in subjects.values():
        assert subject.about
        assert subject.floor
        assert f"  {subject.name:14} {subject.about}\n  {'':14} beside {subject.floor}" in done.stdout


def test_every_file_with_a_subject_is_run_under_its_own_name() -> None:
    subjects = load("__main__").SUBJECTS
    files = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\nSUBJECT = " in p.read_text()}
    assert set(subjects) == files


def test_a_subject_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    done = run("startups", folder=tmp_path)
    assert done.returncode == 2
    assert "there is no subject 'startups'" in done.stderr
    assert "index_start" in done.stderr


def test_one_subject_that_fails_is_told_and_the_others_are_still_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main, measure = load("__main__"), load("measure")

    def broken(bench: Any) -> Iterator[Any]:
        raise OSError("no such disk")

    def works(bench: Any) -> Iterator[Any]:
        yield measure.Line("counting", *bench.beside(lambda: 2.0, lambda: 1.0), "counting less")

    subjects = [measure.Subject(n, "a", "f", m) for n, m in (("broken", broken), ("works", works))]
    monkeypatch.setattr(main, "SUBJECTS", {s.name: s for s in subjects})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main.main([]) == 1
    out = capsys.readouterr().out
    assert "(NOT MEASURED: OSError: no such disk)" in out
    assert re.search(r"counting +2\.00 s 2\.00\.\.2\.00 +1\.00 s 1\.00\.\.1\.00 +counting less +2\.00x", out)


@pytest.mark.parametrize(
    ("budget", "ours", "floor", "verdict"),
    [
        (("within", 50e-6), 49e-6, 1e-6, "yes"),
        (("within", 50e-6), 51e-6, 1e-6, "NO"),
        (("within", 50e-6), 80e-6, 60e-6, "(no)"),
        (("above_floor", 0.1), 0.112, 0.012, "yes"),
        (("above_floor", 0.1), 0.12, 0.012, "NO"),
        (("times_floor", 1.2), 1.19, 1.0, "yes"),
        (("times_floor", 1.2), 1.21, 1.0, "NO"),
        (("at_least", 1000), 1000, 5000, "yes"),
        (("at_least", 1000), 999, 5000, "NO"),
        (("at_least", 1000), 441, 798, "(no)"),
    ],
)
def test_a_verdict_holds_ours_against_the_budget_and_says_where_the_floor_itself_misses_it(
    budget: tuple[str, float], ours: float, floor: float, verdict: str
) -> None:
    measure, table = load("measure"), load("table")
    made = getattr(measure, budget[0])(budget[1])
    unit = "/s" if budget[0] == "at_least" else "s"
    figures = [measure.Figure((n,), unit) for n in (ours, floor)]
    assert table.verdict(measure.Line("x", *figures, "y", made)) == verdict
    assert table.verdict(measure.Line("x", *figures, "y", made, binding=False)) == "-"
    assert table.verdict(measure.Line("x", *figures, "y")) == "-"


def test_a_ratio_above_one_means_worse_than_the_floor_for_times_and_for_rates() -> None:
    measure = load("measure")
    times = measure.Line("x", measure.Figure((3.0, 2.0, 9.0)), measure.Figure((1.0,)), "y")
    rates = measure.Line("x", measure.Figure((100.0,), "/s"), measure.Figure((250.0,), "/s"), "y")
    assert (times.ratio, rates.ratio) == (3.0, 2.5)


@pytest.mark.parametrize(
    ("samples", "unit", "text"),
    [
        ((0.0123, 0.012, 0.2), "s", "12.3 ms 12.0..200"),
        ((39.1e-6,), "s", "39.1 µs 39.1..39.1"),
        ((445e-9,), "s", "445 ns 445..445"),
        ((3.711, 3.6), "s", "3.66 s 3.60..3.71"),
        ((2724.4, 2450.0, 2897.0), "/s", "2,724 /s 2,450..2,897"),
        ((27_600.0,), "/s", "27.6 k/s 27.6..27.6"),
        ((95.7,), "%", "95.7 % 95.7..95.7"),
        ((0.0,), "s", "0.00 ns 0.00..0.00"),
    ],
)
def test_a_figure_is_shown_as_its_median_with_the_least_and_the_greatest(
    samples: tuple[float, ...], unit: str, text: str
) -> None:
    assert load("table").shown(load("measure").Figure(samples, unit)) == text


def test_ours_and_the_floor_are_taken_in_turn_after_one_that_is_forgotten(tmp_path: Path) -> None:
    order: list[str] = []

    def taking(name: str, numbers: Iterator[float]) -> Any:
        def take() -> float:
            order.append(name)
            return next(numbers)

        return take

    bench = load("measure").Bench(tmp_path, "small", 2)
    ours, floor = bench.beside(taking("ours", iter([9.0, 1.0, 2.0])), taking("floor", iter([8.0, 3.0, 4.0])))
    assert order == ["ours", "floor"] * 3
    assert (ours.samples, floor.samples) == ((1.0, 2.0), (3.0, 4.0))


def test_a_measured_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        load("measure").python("raise SystemExit('no such thing')")
