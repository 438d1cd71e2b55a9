"""`eval probes`: open an index, ask its probe queries, and record what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import ReferenceArgument
from llmartifacts.cli.command import command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME


@command(
    "probes",
    examples=("eval probes kb:v5", "eval probes kb:v5 --embeddings my_app.models:embeddings"),
    shape='{"target", "report", "probes", "right", "verdict", "failed": [{"id", "error"}]}',
)
def probes(
    session: Session,
    ref: ReferenceArgument,
    embeddings: Annotated[
        str | None,
        typer.Option("--embeddings", metavar="MODULE:NAME", help="Also embed its probe texts again, by this embedder."),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Record the report, which the gate `probes` reads.")
    ] = True,
) -> None:
    """Open an index and ask its probe queries; exit code 1 if one finds something else than when it was logged."""
    from llmartifacts.evals.importing import imported
    from llmartifacts.evals.probing import METRIC, run_probes

    embedder = None if embeddings is None else imported(embeddings, field="--embeddings")
    with session.open() as registry, session.out.working(f"opening {ref}"):
        made = embedder() if isinstance(embedder, type) else embedder
        report, logged = run_probes(registry, ref, embeddings=made, log=log)
    failed = [{"id": item.id, "error": item.error} for item in report.items if item.scores[METRIC] != 1]
    right, target = len(report.items) - len(failed), next(iter(report.targets))
    out = session.out
    data = {
        "target": target,
        "report": None if logged is None else str(logged),
        "probes": len(report.items),
        "right": right,
        "verdict": "FAIL" if failed else "PASS",
        "failed": failed,
    }

    def text() -> None:
        style = BAD if failed else GOOD
        out.line((target, NAME), ": ", (f"{right} of {len(report.items)} probes came out right", style))
        for why in dict.fromkeys(item["error"] for item in failed):
            out.line("  ", why)
        if logged is not None:
            out.line((f"recorded as {logged}", FAINT))

    out.result(data, text)
    if failed:
        raise typer.Exit(wire.REFUSED)
