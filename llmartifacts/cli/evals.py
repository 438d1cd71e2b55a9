"""`eval run`, `eval compare`: measure a version, and say item by item what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import existing
from llmartifacts.cli.command import MEASURE, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import Output
from llmartifacts.cli.probes import probes
from llmartifacts.errors import InvalidInput

if TYPE_CHECKING:
    from llmartifacts.evals.evaluate import Evaluation

_VERDICT_EXIT = {
    "PASS": wire.DONE,
    "FAIL": wire.REFUSED,
    "INCONCLUSIVE": wire.INCONCLUSIVE,
    "ERROR": wire.GATE_ERROR,
    "TAMPERED": wire.DAMAGED,
}
_SUITE_HELP = "A suite's YAML file, or its name in the registry, such as support-retrieval or support-retrieval:v3."
_NOTE = {
    "Exit codes": "  the worst verdict: 0 PASS, 1 FAIL, 7 INCONCLUSIVE, 8 ERROR",
    "Code": (
        "  What a suite names as package.module:name is imported, from the working\n"
        "  directory too, and runs with your rights: run suites of people whom you\n"
        "  would let run code. No other command imports it."
    ),
}


@command(
    "run",
    examples=(
        "eval run eval_suites/stdlib_retrieval.yaml --target kb:v2",
        "eval run docs-retrieval --target kb:staging --baseline kb:v3",
        "eval run answers.yaml --target agent:v3 --outputs answers.jsonl",
        "eval run answers.yaml --junit report.xml --markdown summary.md",
    ),
    shape=(
        '{"verdict", "rulings": [{"metric", "rule", "verdict", "message", "next_step"}], "metrics": [Metric], '
        '"report", "suite", "target", "dataset", "baseline", "uncompared", "failed": [{"id", "error"}], "asked", '
        '"reused", "remarks"}'
    ),
    more=_NOTE,
)
def run(
    session: Session,
    suite: Annotated[str, typer.Argument(metavar="SUITE", help=_SUITE_HELP)],
    target: Annotated[
        str | None, typer.Option("--target", metavar="REF", help="What to evaluate; by default what the suite says.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="REF|ALIAS|none", help="What to compare with; by default what the suite says."
        ),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(
            "--outputs", metavar="FILE", help="Recorded outputs of the target: JSON Lines with id and output."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=256, metavar="N", help="Items asked at a time.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats", min=1, max=1000, metavar="N", help="Ask each item so often: as another suite, SUITE-xN."
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask anew, even what was asked before; goes on where it was interrupted.")
    ] = False,
    no_log: Annotated[bool, typer.Option("--no-log", help="Log neither the suite nor the report.")] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Also write JUnit XML there, for a build's test page."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Also write a summary there, for a pull request.")
    ] = None,
) -> None:
    """Run a suite on a version: measure, compare with the baseline, log the report."""
    from llmartifacts.evals.evaluate import evaluate_logged

    if outputs is not None:
        existing([outputs], field="--outputs")
    named: str | Path = existing([Path(suite)], field="SUITE")[0] if suite.endswith((".yaml", ".yml")) else suite
    for place in filter(None, (junit, markdown)):
        if not place.parent.is_dir():
            raise InvalidInput(f"there is no folder {str(place.parent)!r}", field=str(place))
    with session.open() as registry, _progress(session.out) as progress:
        made = evaluate_logged(
            registry,
            named,
            target,
            baseline=baseline,
            outputs=outputs,
            concurrency=concurrency,
            repeats=repeats,
            cache=not no_cache,
            progress=progress,
            log=not no_log,
        )
    _write(made, junit, markdown)
    session.out.result(_document(made), lambda: _show(session.out, made))
    if made.verdict is not None and made.verdict.value != "PASS":
        raise typer.Exit(_VERDICT_EXIT[made.verdict.value])


def _show(out: Output, made: Evaluation) -> None:
    from llmartifacts.cli.eval_show import show_evaluation

    show_evaluation(out, made)


def _document(made: Evaluation) -> dict[str, Any]:
    return {
        "verdict": made.verdict,
        "rulings": made.rulings,
        "metrics": made.report.metrics,
        "report": made.version,
        "suite": made.suite_version,
        "target": made.target,
        "dataset": made.dataset,
        "baseline": made.baseline,
        "uncompared": made.uncompared,
        "failed": [{"id": item.id, "error": item.error} for item in made.report.items if item.error],
        "asked": made.asked,
        "reused": made.reused,
        "remarks": made.remarks,
    }


def _write(made: Evaluation, junit: Path | None, markdown: Path | None) -> None:
    """The files for a build and a pull request."""
    from datetime import datetime

    from llmartifacts.evals import ci
    from llmartifacts.evals.changes import failing_items

    report = made.report
    title = f"{report.suite} on {made.target}"
    cases = [
        ci.Case(
            f"{r.metric}: {r.rule}",
            r.verdict,
            r.message,
            r.next_step,
            () if r.verdict.value == "PASS" else failing_items(report, r.metric, made.before.get(r.metric)),
        )
        for r in made.rulings
    ]
    if junit is not None:
        taken = datetime.fromisoformat(report.ended) - datetime.fromisoformat(report.started)
        text = ci.junit(title, cases, seconds=taken.total_seconds(), timestamp=report.started)
        junit.write_text(text, encoding="utf-8")
    if markdown is not None:
        about = [
            ("report", str(made.version) if made.version else "not logged"),
            ("dataset", str(made.dataset)),
            ("baseline", str(made.baseline) if made.baseline else made.uncompared),
        ]
        text = ci.markdown(title, cases, report=report, about=about, remarks=made.remarks)
        markdown.write_text(text, encoding="utf-8")


@command(
    "compare",
    examples=(
        "eval compare kb:v1 kb:v2",
        "eval compare docs-report:v3 docs-report:v4 --plot a.png",
    ),
    shape=(
        '{"before", "after", "targets", "suite", "dataset", "metrics": [{"metric", "before", "after", "comparison", '
        '"margin", "min_samples", "verdict", "is_demanded"}], "changed": [{"id", "worst", "scores", "input", "before", '
        '"after", "errors"}], "unchanged", "remarks"}'
    ),
)
def compare(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="A report, or a version that was evaluated.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another of the same suite; its gains are positive.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="At most so many items.")] = 10,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png|.svg", help="Also draw the intervals there; wants the extra 'plots'."),
    ] = None,
) -> None:
    """Compare two reports: each metric with its interval, and the items that changed, worst first."""
    from llmartifacts.evals.compare import compare_reports

    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise InvalidInput(
            f"{plot.name!r} is neither .png nor .svg",
            field="--plot",
            next_step="Name a file that ends in .png or .svg.",
        )
    with session.open() as registry:
        found = compare_reports(registry, before, after)
    if plot is not None:
        from llmartifacts.evals.plot import draw

        draw(found, plot)

    def text() -> None:
        from llmartifacts.cli.eval_show import show_comparison

        show_comparison(session.out, found, limit)
        if plot is not None:
            session.out.line(f"drawn: {plot}")

    session.out.result(found, text)


@contextmanager
def _progress(out: Output) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar for each thing that is being done, on a terminal; and a word when it is interrupted."""
    try:
        if not out.shows_progress:
            yield None
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=out.progress_console(), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def told(label: str, done: int, total: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=total)
                bars.update(tasks[label], completed=done, total=total)

            yield told
    except KeyboardInterrupt:
        out.line("what was answered is kept; the same command goes on from there", error=True)
        raise


GROUP = CommandGroup("eval", "Measure a version, and compare what was found.", MEASURE, (run, compare, probes))
