"""How a command is declared.

`@command("ls", …)` adds the options accepted everywhere to a function's own, hands it a `Session`, and writes its
examples and the shape of its JSON under its help.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from llmartifacts.cli.context import Everywhere, Session
from llmartifacts.errors import InvalidInput
from llmartifacts.records.names import near_names

START = "Start"
LOOK = "Log and look"
MOVE = "Move"
MEASURE = "Evaluate"
GOVERN = "Guard"
TRACE = "Trace"
SERVE = "Start a service"
TEAM = "Team"
KEEP = "Keep in order"
_PANEL = "Everywhere"

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text.", rich_help_panel=_PANEL)
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Project that names without a prefix mean; else $LLMARTIFACTS_PROJECT, else 'default'.",
        rich_help_panel=_PANEL,
    ),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="PLACE",
        help="The registry, a directory or https://…; else $LLMARTIFACTS_REGISTRY, else the nearest .llmartifacts/.",
        rich_help_panel=_PANEL,
    ),
]
_OTHER_WORDS = {
    word: f"llmartifacts {command}"
    for command, words in {
        "log": "add put push upload commit save register",
        "ls": "list search find",
        "show": "get cat info inspect describe view resolve",
        "pull": "download fetch checkout",
        "promote": "set deploy release publish",
        "rollback": "revert undo",
        "diff": "compare",
        "history": "moves",
        "yank": "delete rm remove archive deprecate withdraw",
        "verify": "check fsck doctor",
        "stats": "du size usage",
        "gc": "prune clean cleanup vacuum compact collect",
        "init": "new create setup",
    }.items()
    for word in words.split()
}
"""What other tools call it -> what it is called here."""
_EVERYWHERE = {"json": (JsonOption, False), "project": (ProjectOption, None), "registry": (RegistryOption, None)}


class Interrupted(Exception):
    """What an interrupt becomes: Typer would keep nothing of it but the exit code.

    Attributes:
        notes: What whoever was interrupted says of it.
    """

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes


class Group(TyperGroup):
    """A group of commands that offers near names for a mistyped one."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the line names. Raises `Interrupted`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(list(getattr(stop, "__notes__", ()))) from stop

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the line names.

        Raises:
            InvalidInput: There is none; near names are given.
        """
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            # Nouns have few verbs of their own; but `alias set` is what others call a promotion.
            meant = _OTHER_WORDS.get(args[0].lower()) if ctx.parent is None or ctx.info_name == "alias" else None
            near = (
                ((meant,) if meant else ())
                or near_names(args[0], self.commands)
                or tuple(name for name in self.commands if len(args[0]) > 1 and name.startswith(args[0]))
            )
            raise InvalidInput(
                f"there is no command {args[0]!r}",
                field="command",
                next_step=f"Did you mean {' or '.join(near)}?" if near else f"See {ctx.command_path} --help.",
            )
        return super().resolve_command(ctx, args)


@dataclass(frozen=True, slots=True)
class Command:
    """One declared command.

    Attributes:
        name: Its name.
        function: What it does: takes a `Session` and its own arguments.
        panel: Heading that it is listed under.
        examples: Command lines to copy, without the leading `llmartifacts`.
        shape: What `--json` prints: `{"key": Record, …}`, or the name of a record, whose fields are the keys.
        more: Heading -> lines, for whatever else its help has to say.
    """

    name: str
    function: Callable[..., None]
    panel: str | None = None
    examples: tuple[str, ...] = ()
    shape: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    def add_to(self, app: typer.Typer) -> None:
        """Add it to an app or a group."""
        app.command(self.name, rich_help_panel=self.panel, epilog=_epilog(self))(self._with_session())

    def _with_session(self) -> Callable[..., None]:
        """The function as Typer wants it: the options accepted everywhere instead of the session."""
        function = self.function
        hints = get_type_hints(function, include_extras=True)
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "session"]

        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            here = Everywhere(**{key: given.pop(key) for key in _EVERYWHERE})
            function(Session(_outer(ctx).then(here)), **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
        parameters += [p.replace(kind=keyword, annotation=hints[p.name]) for p in own]
        parameters += [
            inspect.Parameter(key, keyword, default=default, annotation=hint)
            for key, (hint, default) in _EVERYWHERE.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """Commands under one noun, such as `project`; by itself it shows its help.

    Attributes:
        name: The noun.
        help: What they are about.
        panel: Heading that it is listed under.
        commands: The commands.
    """

    name: str
    help: str
    panel: str
    commands: tuple[Command, ...]

    def add_to(self, app: typer.Typer) -> None:
        """Add it to an app."""
        made = typer.Typer(cls=Group, rich_markup_mode="rich", help=self.help)

        @made.callback(invoke_without_command=True)
        def opened(
            ctx: typer.Context, json: JsonOption = False, project: ProjectOption = None, registry: RegistryOption = None
        ) -> None:
            enter(ctx, Everywhere(json, project, registry))

        for one in self.commands:
            one.add_to(made)
        app.add_typer(made, name=self.name, rich_help_panel=self.panel)


def command(
    name: str,
    *,
    panel: str | None = None,
    examples: tuple[str, ...] = (),
    shape: str = "",
    more: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Command]:
    """Declare a function as a command; arguments as the attributes of `Command`."""
    return lambda function: Command(name, function, panel, examples, shape, more or {})


def enter(ctx: typer.Context, here: Everywhere, first_screen: Callable[[Session], None] | None = None) -> None:
    """Take the options given before a command's name; without a command, show the first screen.

    Args:
        ctx: The context of the group.
        here: The options.
        first_screen: Prints it; by default the group's help.

    Raises:
        InvalidInput: There is no command and `--json` is given: such a screen is no JSON document.
    """
    ctx.obj = _outer(ctx).then(here)
    if ctx.invoked_subcommand is not None:
        return
    if ctx.obj.json:
        raise InvalidInput("no command was given", field="command", next_step=f"See {ctx.command_path} --help.")
    if first_screen is None:
        typer.echo(ctx.get_help())
    else:
        first_screen(Session(ctx.obj))


def _outer(ctx: typer.Context) -> Everywhere:
    return ctx.obj if isinstance(ctx.obj, Everywhere) else Everywhere()


def _epilog(one: Command) -> str:
    sections = {
        "Examples": "\n".join(f"  llmartifacts {example}" for example in one.examples),
        **one.more,
        "With --json": f"  {one.shape}" if one.shape else "",
    }
    return "\n\n".join(f"[bold]{title}[/bold]\n{_escape(text)}" for title, text in sections.items() if text)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
