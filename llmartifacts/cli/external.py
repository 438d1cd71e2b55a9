"""What commands say of files that are kept outside the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts import wire
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import FAINT, GOOD, WARN, Output
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    from llmartifacts.records.external import ExternalCheck
    from llmartifacts.registry import Registry

ExternalOption = Annotated[
    bool | None,
    typer.Option(
        "--external/--no-external",
        help="Read files that are kept outside too; --external ends with exit code 5 where one is not as logged.",
        show_default="with --read-data they are read, and told",
    ),
]


def check(registry: Registry, name: str | None, asked: bool | None, *, read_data: bool) -> ExternalCheck | None:
    """Read what is kept outside, where that is wanted; None where it is not.

    Args:
        registry: The registry.
        name: Collection; None for all.
        asked: What `--external` or `--no-external` says; None for neither.
        read_data: Whether every stored byte is read.
    """
    return registry.check_external(name) if (read_data if asked is None else asked) else None


def plain(found: ExternalCheck | None) -> dict[str, Any]:
    """What `--json` says of it."""
    from llmartifacts.cli.plain import plain as plainly

    if found is None or not found.files:
        return {}
    files = [{**plainly(file), "state": file.state} for file in found.files]
    return {"external": {"ok": found.ok, "counts": found.counts, "files": files}}


def say(out: Output, found: ExternalCheck | None) -> None:
    """Say it to people; nothing where nothing is kept outside."""
    if found is None or not found.files:
        return
    words = {"same": "as logged", "changed": "changed", "gone": "gone", "unread": "not to be read"}
    told = ", ".join(f"{count} {words[state]}" for state, count in sorted(found.counts.items()))
    out.line(f"{counted(len(found.files), 'file')} kept outside: ", (told, GOOD if found.ok else WARN))
    for file in found.files:
        if file.error is not None:
            tell(file.error, out, as_result=True)
    if not found.ok:
        out.line(("the registry itself is not damaged by that", FAINT))


def refuse(found: ExternalCheck | None, asked: bool | None) -> None:
    """End with exit code 5 where they were asked for and one is not what it was, 6 where one could not be read."""
    if not asked or found is None or found.ok:
        return
    damaged = any(file.state in ("changed", "gone") for file in found.files)
    raise typer.Exit(wire.DAMAGED if damaged else wire.UNREACHABLE)
