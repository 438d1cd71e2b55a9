"""A million versions beside a thousand: what a reader and a writer notice.

Nine tenths are versions of one collection, the rest are in a collection each. They are real ones (manifest, move and
audit entry each), committed in batches of 10,000 through the backend, as `log_many` commits them. Every tenth of the
large collection carries a tag, and its fifth one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Bench, Line, Measured, Subject, per_call, seconds, times_floor
from llmartifacts.records.backend import Draft
from llmartifacts.records.manifest import Manifest
from llmartifacts.registry import Registry

FEW = 1000
BATCH = 10_000
PAGE = 50
FLAT = 1.5
BESIDE = f"with {FEW:,}"
TAG = {"ticket": "CHG-1042"}
Work = Callable[[Registry, int], object]

READS: tuple[tuple[str, Work], ...] = (
    ("get an alias", lambda r, n: r.get("agent:prod")),
    ("get a version by number", lambda r, n: r.get(f"agent:v{n // 2}")),
    ("page of 50, the newest", lambda r, n: r.versions("agent", limit=PAGE)),
    ("page of 50, the oldest", lambda r, n: r.versions("agent", limit=PAGE, before=PAGE + 1)),
    ("page of 50, by a rare tag", lambda r, n: r.versions("agent", limit=PAGE, tags=TAG)),
    ("page of 50, by a common tag", lambda r, n: r.versions("agent", limit=PAGE, tags={"by": "nightly"})),
    ("history of latest, 50", lambda r, n: r.history("agent:latest", limit=PAGE)),
    ("history of prod, 50", lambda r, n: r.history("agent:prod", limit=PAGE)),
)


def measure(bench: Bench) -> Iterator[Line]:
    many = bench.size(20_000, 1_000_000)
    bench.say(f"logging {many:,} versions")
    few_made, _ = filled(bench.folder / "few", FEW)
    many_made, rate = filled(bench.folder / "many", many)
    note = f"{many:,} versions beside {FEW:,}, logged at {rate:,.0f} a second"
    fresh = iter(range(1 << 30))
    with few_made as few, many_made as full:

        def line(name: str, of_many: Measured, of_few: Measured) -> Line:
            ours, floor = bench.beside(of_many, of_few)
            return Line(name, ours, floor, BESIDE, times_floor(FLAT), bench.full, note)

        for name, work in READS:
            yield line(name, _calls(work, full, many), _calls(work, few, FEW))
        yield line("log one more", lambda: _log(full, fresh), lambda: _log(few, fresh))
        yield line("promote", lambda: _promote(full), lambda: _promote(few))
        whole = (
            f"looks at every collection, {len(full.collections()):,} beside {len(few.collections()):,}, not at a page"
        )
        listings: tuple[tuple[str, Callable[[Registry], object]], ...] = (
            ("list the collections", lambda r: r.collections()),
            ("state of prod", lambda r: r.state("prod")),
        )
        for name, listing in listings:
            ours, floor = bench.beside(partial(_listed, listing, full), partial(_listed, listing, few))
            yield Line(name, ours, floor, BESIDE, note=whole)


def _listed(listing: Callable[[Registry], object], registry: Registry) -> float:
    return per_call(lambda: listing(registry))


def filled(place: Path, count: int) -> tuple[Registry, float]:
    """A registry with so many versions, and how many of them were logged in a second."""
    registry, taken = la.init(place), 0.0
    config = la.Prompt("{{ question }}", template_format="jinja2").to_config()
    for begin in range(0, count, BATCH):
        drafts = [_draft(config, i) for i in range(begin, min(count, begin + BATCH))]
        taken += seconds(lambda: registry.backend.commit("default", drafts, actor="nightly"))  # noqa: B023 - at once
    registry.tag("agent:v5", set=TAG)
    for number in range(1, 2 * PAGE):
        registry.promote(f"agent:v{count // 2 + number % 2}", to="prod", reason="measured")
    return registry, count / taken


def _draft(config: dict[str, object], number: int) -> Draft:
    manifest = Manifest.build("prompt", {**config, "template": f"{number}: {{{{ question }}}}"})
    if number % 10 == 9:
        return Draft(f"agent-{number}", manifest)
    return Draft("agent", manifest, tags={"by": "nightly"} if number % 10 == 0 else {})


def _calls(work: Work, registry: Registry, count: int) -> Measured:
    return lambda: per_call(lambda: work(registry, count))


def _log(registry: Registry, fresh: Iterator[int]) -> float:
    made = iter(prompts(100, mark=f"another {next(fresh)} "))
    return seconds(lambda: registry.log("agent", next(made)), 100) / 100


def _promote(registry: Registry) -> float:
    goals = itertools.cycle(["agent:v1", "agent:v2"])
    return seconds(lambda: registry.promote(next(goals), to="prod", reason="measured"), 100) / 100


SUBJECT = Subject(
    "scale",
    "a million versions (small: 20,000): looking up, every listed page, logging, moving",
    "the same with 1,000 versions",
    measure,
)
