"""Arguments that several commands read the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llmartifacts.errors import InvalidInput, InvalidReference, NotFound
from llmartifacts.records.names import near_names
from llmartifacts.records.reference import Reference


def _not_blank(value: str) -> str:
    if not value.strip():
        raise typer.BadParameter("say why, in a few words")
    return value


ReferenceArgument = Annotated[str, typer.Argument(metavar="REF", help="name, name:alias, name:vN or name@sha256:…")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept for good.", callback=_not_blank)]


def pairs(values: Sequence[str], option: str, form: str = "key=value") -> dict[str, str]:
    """`key=value` arguments as a mapping.

    Args:
        values: What was given.
        option: What the option or argument is called, for messages.
        form: How one is written, for messages.

    Raises:
        InvalidInput: One has no `=` or no key, or a key comes twice.
    """
    made: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            wanted = f"{option} {form}" if option.startswith("--") else form
            raise InvalidInput(f"{text!r:.160} is not {form}", field=option, next_step=f"Write {wanted}.")
        if key in made:
            raise InvalidInput(f"{key!r:.160} is given twice", field=option, next_step="Give each key once.")
        made[key] = value
    return made


def expectations(values: Sequence[str]) -> dict[str, str | None] | None:
    """`name=vN` and `name=none` as `Registry.promote` takes them; None if nothing was given.

    Raises:
        InvalidInput: As `pairs`.
    """
    given = pairs(values, "--expect", "NAME=vN")
    return {name: None if value.lower() == "none" else value for name, value in given.items()} or None


def bare_name(text: str, *, field: str, next_step: str) -> str:
    """`[project/]name`, refused if it has a selector.

    Raises:
        InvalidReference: It is malformed, or names a version.
    """
    parsed = Reference.parse(text, field=field)
    if parsed.selects:
        raise InvalidReference(
            f"{text!r} names a version, and here the name of a collection is wanted", field=field, next_step=next_step
        )
    return text


def existing(paths: Sequence[Path], *, field: str) -> list[Path]:
    """Files and folders that are there.

    Raises:
        NotFound: One is not; names that look alike are given.
    """
    for path in paths:
        if not path.exists():
            beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
            near = tuple(str(path.parent / name) for name in near_names(path.name, beside))
            quotes = "A text with spaces wants quotes: -m 'shorter greeting'." if len(paths) > 1 else ""
            raise NotFound(
                f"there is no file {str(path)!r}",
                what="file",
                name=str(path),
                near=near,
                field=field,
                next_step="" if near else quotes or f"The working directory is {Path.cwd()}.",
            )
    return list(paths)
