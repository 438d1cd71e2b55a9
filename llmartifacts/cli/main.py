"""The entry point: builds the app, runs it, and ends with one message and one exit code of `llmartifacts.wire`."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llmartifacts import wire
from llmartifacts.cli import (
    alias,
    approve,
    audit,
    backup,
    dataset,
    demo,
    erase,
    evals,
    gate,
    gc,
    grant,
    key,
    lineage,
    lock,
    log,
    login,
    look,
    policy,
    project,
    promotion,
    registry,
    run,
    serve,
    tag,
    team,
    token,
    transfer,
    upkeep,
    user,
    verify,
)
from llmartifacts.cli.command import (
    Command,
    CommandGroup,
    Group,
    Interrupted,
    JsonOption,
    ProjectOption,
    RegistryOption,
    enter,
)
from llmartifacts.cli.context import Everywhere
from llmartifacts.cli.failures import DEBUG, as_error, is_usage_error, tell, usage_of
from llmartifacts.cli.output import WARN, Output, Quiet
from llmartifacts.cli.welcome import welcome

PROGRAM = "llmartifacts"
_HELP = (
    "The registry for the components of an LLM application.\n\n"
    "Prompts, vector indexes, eval datasets and bundles get immutable versions. Aliases such as prod move several of "
    "them at once and roll back in one call; a service starts from them as one verified set."
)
_EPILOG = """[bold]References[/bold]
  support-agent            its latest version, where that is enough
  support-agent:prod       by alias
  support-agent:v3         by number
  support-agent@sha256:…   by content
  team/support-agent:prod  in another project

[bold]Exit codes[/bold]
  0 done   1 refused   2 wrong use   3 not found   4 conflict or busy
  5 damaged   6 unreachable or out of time   7 inconclusive
  8 error in a gate   9 not allowed   10 newer format   70 a bug
  130 interrupted

With --json standard output carries one document: the result, or
{"errors": \\[{"code", "message", "detail"}]}; the exit code tells which.
"""

COMMANDS: tuple[Command | CommandGroup, ...] = (
    demo.demo,
    registry.init,
    log.log,
    look.ls,
    look.show,
    look.diff,
    look.pull,
    promotion.promote,
    promotion.rollback,
    promotion.history,
    promotion.state,
    promotion.yank,
    alias.GROUP,
    evals.GROUP,
    dataset.GROUP,
    policy.GROUP,
    gate.gate,
    gate.evidence,
    approve.approve,
    key.GROUP,
    gate.review,
    tag.tag,
    lineage.lineage,
    run.GROUP,
    audit.GROUP,
    lock.lock,
    lock.install,
    login.login,
    login.logout,
    user.GROUP,
    team.GROUP,
    grant.GROUP,
    token.GROUP,
    project.GROUP,
    serve.serve,
    verify.verify,
    verify.repair,
    gc.gc,
    erase.GROUP,
    erase.erase,
    upkeep.stats,
    upkeep.migrate,
    backup.backup,
    backup.restore,
    transfer.export,
    transfer.import_,
)
"""Every command, in the order that help lists them."""


def build() -> typer.Typer:
    """The app with every command, in the order that help lists them."""
    app = typer.Typer(cls=Group, rich_markup_mode="rich", help=_HELP, epilog=_EPILOG, name=PROGRAM)

    @app.callback(invoke_without_command=True)
    def opened(
        ctx: typer.Context,
        json: JsonOption = False,
        project: ProjectOption = None,
        registry: RegistryOption = None,
        version: Annotated[bool, typer.Option("--version", help="Print the version of this program.")] = False,
    ) -> None:
        if version:
            _version(json)
            raise typer.Exit
        enter(ctx, Everywhere(json, project, registry), lambda session: welcome(session, _panels(ctx)))

    for one in COMMANDS:
        one.add_to(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: The arguments; those of the process by default.

    Returns:
        The exit code, of the table in `llmartifacts.wire`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    quiet: Any = Quiet(sys.stdout)  # help is printed by Typer, and its reader may leave too
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
        out = Output(json=_wants_json(given))
        warnings.showwarning = lambda message, *_, **__: out.line(("warning: ", WARN), str(message), error=True)
        notes: list[str] = []
        try:
            code = _run(given)
        except Interrupted as stop:
            code, notes = wire.INTERRUPTED, stop.notes
        except KeyboardInterrupt:
            code = wire.INTERRUPTED
        except Exception as raised:  # noqa: BLE001 - the one place where everything ends
            code = _failed(raised, out)
        if code == wire.INTERRUPTED:
            out.line("interrupted", error=True)
            for note in notes:
                out.line(note, error=True)
        quiet.flush()
    return code


def _run(arguments: list[str]) -> int:
    program: Any = typer.main.get_command(build())
    try:
        code = program.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        return wire.INTERRUPTED
    return code if isinstance(code, int) else wire.DONE


def _failed(raised: Exception, out: Output) -> int:
    error = as_error(raised)
    if os.environ.get(DEBUG):
        out.block("".join(traceback.format_exception(raised)), error=True)
    if out.json:
        out.document(wire.error_body(error))
    else:
        tell(error, out, usage=usage_of(raised) if is_usage_error(raised) else ("", ""))
    return wire.exit_code(error)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the options, as far as it can be told from a line that may be wrong."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _panels(ctx: typer.Context) -> dict[str, list[str]]:
    """Panel -> names of its commands, as help groups them."""
    panels: dict[str, list[str]] = {}
    commands: dict[str, Any] = getattr(ctx.command, "commands", {})
    for name, one in commands.items():
        panels.setdefault(one.rich_help_panel or "", []).append(name)
    return panels


def _version(json: bool) -> None:
    from importlib.metadata import version

    out = Output(json=json)
    out.result({"name": PROGRAM, "version": version(PROGRAM)}, lambda: out.line(f"{PROGRAM} {version(PROGRAM)}"))


if __name__ == "__main__":
    sys.exit(main())
