"""What `eval run` and `eval compare` print for people."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output, Piece
from llmartifacts.evals.changes import losses
from llmartifacts.evals.shorten import number, shorten
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    from llmartifacts.evals.compare import ItemChange, ReportComparison
    from llmartifacts.evals.evaluate import Evaluation
    from llmartifacts.records.evidence import Comparison
    from llmartifacts.records.policy import Verdict

_STYLES = {"PASS": GOOD, "FAIL": BAD, "INCONCLUSIVE": WARN, "ERROR": BAD, "TAMPERED": BAD}
_MISSED = ("FAIL", "INCONCLUSIVE")
_ITEMS = 8
_WIDTH = 120
"""Characters of a line where there is no terminal."""


def show_evaluation(out: Output, made: Evaluation) -> None:
    """Print an evaluation: metrics, verdicts, the items to look at, what was logged."""
    report = made.report
    against = f", against {made.baseline}" if made.baseline is not None else ""
    out.line(
        (report.suite, NAME),
        " on ",
        (str(made.target), NAME),
        f"{against}, {counted(len(report.items), 'item')} of {made.dataset}",
    )
    verdicts = {name: _worst([r.verdict for r in made.rulings if r.metric == name]) for name in made.suite.metrics}
    out.table(
        (
            Column("metric", wraps=True),
            Column("value and 90 % interval"),
            Column("n", right=True, optional=True),
            Column(f"against {made.baseline}" if made.baseline is not None else "against the baseline"),
            Column("verdict"),
        ),
        [
            (
                m.name,
                "not measured" if m.value is None else f"{number(m.value)} [{number(m.lower)}, {number(m.upper)}]",
                str(m.n) if not m.errors else f"{m.n}, {m.errors} failed",
                _against(m.comparison, getattr(made.suite.thresholds.get(m.name), "margin", None)),
                _verdict(verdicts[m.name]),
            )
            for m in report.metrics
        ],
    )
    if made.uncompared:
        out.line((f"not compared: {made.uncompared}", FAINT))
    if not made.rulings:
        out.line(("no thresholds: nothing was judged, and a gate that asks for this suite lets nothing pass", WARN))
    for ruling in made.rulings:
        out.line(_verdict(ruling.verdict), f"  {ruling.metric}, {ruling.rule}: {ruling.message}")
        if ruling.next_step:
            out.line((f"    hint: {ruling.next_step}", FAINT))
    _show_items(out, made)
    for remark in made.remarks:
        out.line((f"note: {remark}", WARN))
    known = f", {made.reused:,} known already" if made.reused else ""
    out.line((f"{counted(made.asked, 'output')} made{known}", FAINT))
    if made.version is not None:
        out.line("logged ", (str(made.version), NAME), (f"  suite {made.suite_version}", FAINT))
    else:
        out.line(("not logged", FAINT))
    if made.verdict is not None:
        out.line((made.verdict.value, f"bold {_STYLES[made.verdict.value]}"))


def _show_items(out: Output, made: Evaluation) -> None:
    """The items that failed, and those that lost most on what did not pass."""
    report = made.report
    failed = [item for item in report.items if item.error]
    if failed:
        out.line((f"{counted(len(failed), 'item')} failed:", BAD))
        for item in failed[:_ITEMS]:
            out.line(f"  {item.id}  ", (shorten(item.error, 100), FAINT))
        if len(failed) > _ITEMS:
            out.line((f"  and {len(failed) - _ITEMS} more", FAINT))
    missed = sorted(
        (r for r in made.rulings if r.verdict.value in _MISSED), key=lambda r: _MISSED.index(r.verdict.value)
    )
    wanting = missed[0].metric if missed else None
    if wanting is None or wanting not in made.before:
        return
    lost, gained = losses(report, made.before[wanting], wanting)
    if not lost:
        return
    out.line(f"{wanting}: {len(lost)} items lost, {gained} gained; those that lost most:")
    out.table(
        (Column("item", NAME), Column("was", right=True), Column("is", right=True), Column("input", shrinks=True)),
        [
            (loss.id, number(loss.was), number(loss.now), shorten(made.items[loss.id].input, 80))
            for loss in lost[:_ITEMS]
        ],
        indent=2,
    )
    if made.version is not None:
        compare = f"llmartifacts eval compare {made.baseline} {made.target}"
        out.line((f"  all of them, once {made.baseline} has a report of its own too: {compare}", FAINT))


def show_comparison(out: Output, found: ReportComparison, limit: int) -> None:
    """Print a comparison: each metric with its interval as a plot, then the items that changed, worst first."""
    from llmartifacts.evals.interval import plot_interval

    out.line((found.suite, NAME), ": ", (found.targets[1], NAME), " against ", (found.targets[0], NAME))
    out.line((f"  reports {found.after} and {found.before}", FAINT))
    for one in found.metrics:
        values = [("not measured" if v is None else number(v)) for v in (one.before, one.after)]
        pieces: list[Piece] = [(one.metric, "bold"), f"  {values[0]} -> {values[1]}"]
        if one.comparison is not None and one.is_demanded:
            pieces += ["  ", _verdict(one.verdict)]
        out.line(*pieces)
        if one.comparison is not None:
            out.block("\n".join("  " + line for line in plot_interval(one.comparison, margin=one.margin).splitlines()))
    _show_changes(out, found.changed, limit)
    out.line((f"{found.unchanged} items score as before", FAINT))
    for remark in found.remarks:
        out.line((f"note: {remark}", WARN))


def _show_changes(out: Output, changed: Sequence[ItemChange], limit: int) -> None:
    if not changed:
        out.line("no item scores otherwise than before")
        return
    shown, width = changed[:limit], max(40, shutil.get_terminal_size((_WIDTH, 0)).columns - 12)
    out.line(f"{len(changed)} items changed" + (", worst first:" if shown else ""))
    for item in shown:
        style = BAD if item.worst < 0 else GOOD
        told = [f"{name} {number(a)} -> {number(b)}" for name, (a, b) in item.scores.items()]
        out.line("  ", (item.id, NAME), "  ", (f"{item.worst:+.3f}", style), f"  {', '.join(told[:4])}")
        out.line(("    asked  ", FAINT), shorten(item.input, width))
        for word, output, error in (("was    ", item.before, item.errors[0]), ("is     ", item.after, item.errors[1])):
            out.line(
                (f"    {word}", FAINT), (f"error: {shorten(error, width)}", BAD) if error else shorten(output, width)
            )
    if len(changed) > len(shown):
        out.line((f"  and {len(changed) - len(shown)} more; --limit shows them", FAINT))


def _against(found: Comparison | None, margin: float | None) -> str:
    if found is None:
        return ""
    digits = 3  # and as many more as it takes to see on which side of the margin the interval begins
    while margin and digits < 6 and found.lower != -margin and f"{found.lower:.{digits}f}" == f"{-margin:.{digits}f}":
        digits += 1
    return f"{found.delta:+.3f} [{found.lower:+.{digits}f}, {found.upper:+.3f}]"


def _verdict(verdict: Verdict | None) -> Piece:
    return "" if verdict is None else (verdict.value, _STYLES[verdict.value])


def _worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    from llmartifacts.records.policy import all_of

    return all_of(verdicts) if verdicts else None
