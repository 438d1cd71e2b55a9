"""Whatever was raised becomes one message and one exit code; a traceback is for those who ask for it."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping
from typing import Any

import typer

from llmartifacts.cli.output import BAD, FAINT, Output
from llmartifacts.errors import InvalidInput, LlmartifactsError, NotAllowed, NotFound, Unreachable
from llmartifacts.records.arguments import shown

DEBUG = "LLMARTIFACTS_DEBUG"
_USAGE_ERROR = typer.BadParameter.__mro__[1]  # Typer brings its own Click, or uses the installed one
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_WHERE_TO_LOOK = {
    "project": "llmartifacts project ls lists the projects.",
    "collection": "llmartifacts ls lists the collections of a project.",
    "version": "llmartifacts ls NAME lists the versions of a collection.",
    "alias": "llmartifacts alias ls lists the aliases.",
    "run": "llmartifacts run ls lists the runs.",
    "promotion": "llmartifacts history NAME:ALIAS lists the promotions of an alias.",
}
"""What was not found -> which command shows what there is."""
# Shown in the message, in its hint, or in a place of their own.
_ELSEWHERE = frozenset({"message", "field", "origin", "next_step", "what", "name", "near"})


def as_error(raised: BaseException) -> LlmartifactsError:
    """The typed error for anything raised."""
    if isinstance(raised, NotFound) and not raised.hint():
        return dataclasses.replace(raised, next_step=_WHERE_TO_LOOK.get(raised.what, ""))
    if isinstance(raised, LlmartifactsError):
        return raised
    if isinstance(raised, _USAGE_ERROR):
        return _wrong_use(raised)
    if isinstance(raised, OSError) and raised.errno is not None:
        return _from_system(raised)
    return LlmartifactsError(
        f"unexpected {type(raised).__name__}: {raised}",
        next_step=f"This is a bug in llmartifacts: please report it with the traceback that {DEBUG}=1 shows.",
    )


def is_usage_error(raised: BaseException) -> bool:
    """Whether the command line itself was wrong."""
    return isinstance(raised, _USAGE_ERROR)


def usage_of(raised: Any) -> tuple[str, str]:
    """How the command is used that a usage error is about, and an example of it; empty if it is about none."""
    if raised.ctx is None:
        return "", ""
    _, _, listed = (raised.ctx.command.epilog or "").partition("[bold]Examples[/bold]\n")
    example = listed.partition("\n")[0].strip().replace("\\[", "[")
    return raised.ctx.get_usage().partition(" ")[2].strip(), example if example.startswith("llmartifacts ") else ""


def tell(error: LlmartifactsError, out: Output, *, usage: tuple[str, str] = ("", ""), as_result: bool = False) -> None:
    """Print an error for people: message, field, origin, particulars, hint.

    Args:
        error: The error.
        out: Where to print it.
        usage: How the command is used and an example of it, where that was the mistake.
        as_result: Print it on standard output: it is what the command was asked for.
    """
    on_err = not as_result
    out.line(("error: ", BAD), error.message, error=on_err)
    for name in ("field", "origin"):
        value = getattr(error, name)
        if value and not (value.startswith("--") and value in error.message):
            out.line((f"  {name}: ", FAINT), value, error=on_err)
    for name, value in _particulars(error):
        _tell_particular(name, value, out, on_err)
    if error.hint():
        for number, step in enumerate(error.hint().split("\n")):
            out.line(("        " if number else "  hint: ", "bold"), step, error=on_err)
    for name, line in zip(("usage", "example"), usage, strict=True):
        if line:
            out.line((f"  {name}: ", FAINT), line, error=on_err)


def _particulars(error: LlmartifactsError) -> list[tuple[str, Any]]:
    said = f"{error.message} {error.origin}"
    found = ((f.name, getattr(error, f.name)) for f in dataclasses.fields(error) if f.name not in _ELSEWHERE)
    return [(name, value) for name, value in found if value not in ("", None, (), {}) and str(value) not in said]


def _tell_particular(name: str, value: Any, out: Output, on_err: bool) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(item, LlmartifactsError):
                out.line(f"  {key}: {item}", error=on_err)
                continue
            out.line("  ", (str(key), "bold"), f": {item}", error=on_err)
            if item.hint():
                out.line((f"    hint: {item.hint()}", FAINT), error=on_err)
    elif isinstance(value, tuple | list):
        out.line((f"  {name}:", FAINT), error=on_err)
        for item in value:
            out.line(f"  - {item}", error=on_err)
    else:
        out.line((f"  {name}: ", FAINT), str(value), error=on_err)


def _wrong_use(raised: Any) -> InvalidInput:
    """A usage error of Typer in our own words."""
    message = raised.format_message().replace("Value error, ", "")  # the words of pydantic
    possible = getattr(raised, "possibilities", None)
    param = getattr(raised, "param", None)
    field = getattr(raised, "option_name", "") or (_param_name(param) if param is not None else "")
    if type(raised).__name__ == "NoSuchOption":
        message = f"there is no option {raised.option_name!r}"
    path = raised.ctx.command_path if raised.ctx is not None else "llmartifacts"
    step = f"Did you mean {' or '.join(sorted(possible))}?" if possible else f"See {path} --help."
    return InvalidInput(" ".join(message.split()).rstrip("."), field=field, next_step=step)


def _param_name(param: Any) -> str:
    return str(max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name.upper())


def _from_system(raised: OSError) -> LlmartifactsError:
    told = raised.strerror or str(raised)
    origin = str(raised.filename) if raised.filename is not None else ""
    if isinstance(raised, FileNotFoundError):
        return NotFound(f"there is no file {origin!r}" if origin else told, what="file", name=origin)
    if isinstance(raised, IsADirectoryError | NotADirectoryError | FileExistsError):
        return InvalidInput(told, origin=origin, next_step="Name another path.")
    if raised.errno == errno.ENAMETOOLONG:
        return InvalidInput(told, origin=shown(origin), next_step="Name a shorter path.")
    if raised.errno in _NO_RIGHT:
        return NotAllowed(told, origin=origin, next_step="Check the rights of this path, or name another.")
    return Unreachable(
        f"the system refused: {told}", origin=origin, next_step="See to the disk or network, then again."
    )
