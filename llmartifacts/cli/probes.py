"""`eval probes`: open an index, ask its probe queries, and record what came of it."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import ReferenceArgument
from llmartifacts.cli.command import command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME
from llmartifacts.records.wording import counted


@command(
    "probes",
    examples=("eval probes kb:v5", "eval probes kb:v5 --embeddings my_app.models:embeddings"),
    shape='{"target", "report", "probes", "right", "texts", "verdict", "failed": [{"id", "error"}]}',
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
    from llmartifacts.evals.probing import METRIC, run_probes

    with session.open() as registry, session.out.working(f"opening {ref}"):
        found = run_probes(registry, ref, embeddings=embeddings, log=log)
    items = found.report.items
    failed = [{"id": item.id, "error": item.error} for item in items if item.scores[METRIC] != 1]
    out = session.out
    verdict = "FAIL" if failed else "PASS"
    data = {
        "target": found.target,
        "report": found.version,
        "probes": len(items),
        "right": len(items) - len(failed),
        "texts": found.texts,
        "verdict": verdict,
        "failed": failed,
    }

    def text() -> None:
        told = f"{len(items) - len(failed)} of {counted(len(items), 'query probe')} came out right"
        texts = f", and {counted(found.texts, 'text probe')} embedded as before" if found.texts and not failed else ""
        out.line((str(found.target), NAME), ": ", (told + texts, BAD if failed else GOOD))
        for why in dict.fromkeys(item["error"] for item in failed):
            out.line("  ", why)
        out.line((f"logged {found.version}" if found.version is not None else "not logged", FAINT))
        out.line((verdict, f"bold {BAD if failed else GOOD}"))

    out.result(data, text)
    if failed:
        raise typer.Exit(wire.REFUSED)
