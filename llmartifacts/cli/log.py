"""`log`: a file becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmartifacts import plugins
from llmartifacts.cli.arguments import bare_name, existing, pairs
from llmartifacts.cli.command import LOOK, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.look import kind_summary
from llmartifacts.cli.output import FAINT, GOOD, NAME, joined
from llmartifacts.cli.plain import size
from llmartifacts.cli.progress import metered
from llmartifacts.records.digest import short

_ALIAS_HINT = "Write the name alone; an alias goes into --alias prod."


@command(
    "log",
    panel=LOOK,
    examples=(
        "log prompt support-agent agent.j2 -m 'shorter greeting'",
        "log eval_dataset support-eval questions.jsonl --tag owner=qa",
        "log files train data/ --input docs:v3 --alias staging",
    ),
    shape='Version; "created" says whether it is new',
)
def log(
    session: Session,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of: {', '.join(plugins.BUILT_IN['kinds'])}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Collection; the first log makes it.")],
    source: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files or folders that hold the content.")],
    alias: Annotated[
        list[str] | None, typer.Option("--alias", "-a", metavar="ALIAS", help="Also move this alias to it. Repeatable.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What to say of it.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Label it. Repeatable.")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option("--input", metavar="REF", help="A version it was made from. Repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="How the kind reads the source. Repeatable."),
    ] = None,
) -> None:
    """Log files as a version; the same content again gives the same version."""
    from llmartifacts.packing import kind_named

    bare_name(name, field="NAME", next_step=_ALIAS_HINT)
    reader = kind_named(kind)
    out = session.out
    tags, options = pairs(tag or (), "--tag"), pairs(option or (), "--option")
    files = existing(source, field="SOURCE")
    with session.open() as registry:
        with out.working(f"reading {', '.join(p.name for p in files)}"):
            value = reader.read_source(files, options)
        with metered(registry, out, f"logging {name}"):
            version = registry.log(name, value, aliases=alias or (), message=message, inputs=input or (), tags=tags)
        summary = kind_summary(registry.find(version.pinned).manifest)

    def text() -> None:
        news = ("new", GOOD) if version.created else ("this content was logged before", FAINT)
        out.line((str(version), NAME), f"  sha256:{short(version.digest)}  ", news)
        out.fields(
            (
                (version.kind, summary),
                ("size", size(version.size)),
                ("aliases", ", ".join(version.aliases)),
                ("tags", joined(version.tags)),
            )
        )

    out.result(version, text)
