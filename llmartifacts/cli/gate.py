"""`gate`, `evidence`, `review`: what stands between a version and an alias."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import Reason, ReferenceArgument
from llmartifacts.cli.command import GOVERN, MEASURE, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.cli.plain import minute, plain
from llmartifacts.records.digest import short
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    from llmartifacts.records.policy import Decision, GateResult

STYLES = {"PASS": GOOD, "INCONCLUSIVE": WARN, "FAIL": BAD, "ERROR": BAD, "TAMPERED": BAD}
"""Verdict -> how it looks."""

_INDENT = 15
Ticket = Annotated[str, typer.Option("--ticket", metavar="TEXT", help="The ticket that would be given.")]


@command(
    "gate",
    panel=GOVERN,
    examples=(
        "gate kb:v5 --to prod",
        "gate agent:v2 kb:v5 --to prod --ticket CHG-1042 --reason better",
        "gate kb:v5 --to prod --junit gate.xml --markdown gate.md",
    ),
    shape='Decision; each result GateResult {"gate", "rule", "verdict", "message", "next_step", "subject", "evidence"}',
)
def gate(
    session: Session,
    refs: Annotated[list[str], typer.Argument(metavar="REF", help="Versions that would move together.")],
    to: Annotated[list[str], typer.Option("--to", metavar="ALIAS", help="Alias to move. Repeatable.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason that would be given.")] = "",
    ticket: Ticket = "",
    break_glass: Annotated[bool, typer.Option("--break-glass", help="As if the glass were broken.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML for CI.")] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a summary for a pull request.")
    ] = None,
) -> None:
    """Ask every gate, and move nothing; the exit code tells the verdict, or 9: all pass, but you may not."""
    with session.open() as registry:
        found = registry.gate(refs, to, reason=reason, ticket=ticket, break_glass=break_glass)
    if junit is not None or markdown is not None:
        from llmartifacts.evals.ci import Case
        from llmartifacts.evals.ci import junit as as_junit
        from llmartifacts.evals.ci import markdown as as_markdown

        title = f"{', '.join(refs)} to {', '.join(to)}"
        cases = [Case(_rule(r), r.verdict, r.message, r.next_step, r.evidence) for r in found.results]
        if junit is not None:
            junit.write_text(as_junit(title, cases), encoding="utf-8")
        if markdown is not None:
            about = [("policy", f"{found.policy_number} ({found.policy})" if found.policy else "none")]
            markdown.write_text(
                as_markdown(title, cases, about=[*(("moves", m) for m in found.moves), *about]), "utf-8"
            )
    session.out.result(found, lambda: show_decision(session.out, found))
    if found.verdict != "PASS" and not found.break_glass:
        raise typer.Exit(wire.verdict_code(found.verdict))
    if not found.may_move:
        raise typer.Exit(wire.NOT_ALLOWED)


def show_decision(out: Output, found: Decision) -> None:
    """A decision as people read it: what would move, every rule, and what to do."""
    for move in found.moves:
        out.line((move, NAME))
    if found.policy is None:
        out.line(("no policy holds; only what always holds is asked", FAINT))
    elif not found.protected:
        out.line((f"the policy {found.policy_number} ({short(found.policy)}) does not protect this alias", FAINT))
    else:
        names = ", ".join(found.protected)
        out.line((f"the policy {found.policy_number} ({short(found.policy)}) protects {names}", FAINT))
    show_results(out, found.results)
    if found.approvals:
        out.line((f"approved by {', '.join(found.approvals)}", FAINT))
    denied = len(found.denied)
    if found.verdict == "PASS":
        out.line(("PASS", GOOD), ": it may move" if found.may_move else ": the gates let it move")
    elif found.break_glass:
        out.line(
            (found.verdict.value, WARN), ": it moves all the same: the glass is broken, and somebody must review it"
        )
    else:
        kinds = Counter(r.verdict.value for r in found.denied)
        of = "" if len(kinds) == 1 else f" ({', '.join(f'{n} {v}' for v, n in kinds.most_common())})"
        told = f": it may not move, {counted(denied, 'rule')} denied{of}"
        out.line((found.verdict.value, STYLES[found.verdict]), told)
    if not found.may_move:
        out.line(("you may not move it: ", BAD), found.refusal)


def show_results(out: Output, results: tuple[GateResult, ...]) -> None:
    """Every gate's answer, each with its evidence and how to satisfy it."""
    subjects = {r.subject for r in results if r.subject}
    for r in results:
        about = f" {r.subject}" if r.subject and len(subjects) > 1 else ""
        out.line("  ", (f"{r.verdict.value:<12}", STYLES[r.verdict]), " ", (r.rule, NAME), (about, FAINT))
        out.indented(r.message, indent=_INDENT)
        for one in r.evidence:
            out.indented((f"evidence: {one}", FAINT), indent=_INDENT)
        if r.next_step and r.verdict != "PASS":
            out.indented(("to do: ", WARN), r.next_step, indent=_INDENT)
        elif r.next_step:
            out.indented((f"note: {r.next_step}", FAINT), indent=_INDENT)


@command(
    "evidence",
    panel=MEASURE,
    examples=("evidence kb:v5",),
    shape='{"version": Version, "reports": [{"report", "suite", "at", "by", "signers", "metrics", "problem", '
    '"counts"}]}',
)
def evidence(session: Session, ref: ReferenceArgument) -> None:
    """What is recorded about a version: its reports, the newest first, and who signed them."""
    with session.open() as registry:
        version, found = registry.evidence(ref)
    out = session.out
    data = [
        {
            "report": str(r.version.pinned),
            "suite": r.facts.suite,
            "at": r.version.created_at,
            "by": r.version.author,
            "signers": [plain(s) for s in r.signers],
            "metrics": {m.name: plain(m) for m in r.facts.metrics.values()},
            "problem": r.problem or r.facts.problem,
            "counts": r.vouched,
        }
        for r in found
    ]

    def text() -> None:
        out.line((str(version), NAME), f"  {version.kind}, logged by {version.author}")
        if not found:
            out.line(
                ("no report was logged with it; ", FAINT), (f"llmartifacts eval run SUITE --target {version}", NAME)
            )
            return
        out.table(
            (
                Column("report", NAME),
                Column("when, UTC", FAINT),
                Column("suite"),
                Column("counts", WARN, optional=True),
                Column("metrics", wraps=True),
                Column("signed by"),
                Column("problem", BAD, optional=True, wraps=True),
            ),
            [
                (
                    str(r.version),
                    minute(r.version.created_at),
                    r.facts.suite,
                    "" if r.vouched else f"no: {r.version.author}",
                    ", ".join(
                        f"{m.name} {'-' if m.value is None else f'{m.value:.3g}'}" for m in r.facts.metrics.values()
                    ),
                    ", ".join(s.person + (" (void)" if s.problem else "") for s in r.signers),
                    r.problem or r.facts.problem,
                )
                for r in found
            ],
        )

    out.result({"version": version, "reports": data}, text)


def _rule(result: GateResult) -> str:
    return f"{result.rule} {result.subject}".strip()


@command(
    "review",
    panel=GOVERN,
    examples=("review default@r12 --reason 'was right: the index was corrupt'",),
    shape="Promotion",
)
def review(
    session: Session,
    promotion: Annotated[str, typer.Argument(metavar="PROMOTION", help="Id of the move that broke the glass.")],
    reason: Reason,
) -> None:
    """Say that you looked at a move that broke the glass; not for one's own."""
    with session.open() as registry:
        made = registry.review(promotion, reason=reason)
    session.out.result(
        made, lambda: session.out.line((made.id, NAME), f" reviewed by {made.reviewed_by}: {made.review}")
    )
