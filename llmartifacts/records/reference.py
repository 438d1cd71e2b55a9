"""References: `[project/]name[:selector][@sha256:…]`; a selector is an alias or `vN`.

Example:
    >>> str(Reference.parse("acme/support-agent:prod"))
    'acme/support-agent:prod'
    >>> Reference.parse("support-agent:v3").number
    3
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from llmartifacts.errors import InvalidReference, TooLarge
from llmartifacts.records.arguments import shown
from llmartifacts.records.digest import Digest, parse_digest, short
from llmartifacts.records.names import LATEST, check_name, is_alias, version_number

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Reference:
    """One name with, at most, one selector and one digest.

    Attributes:
        name: Name of the collection.
        project: Name of the project; None means the registry's own.
        alias: Alias selector, such as `prod`; None if there is none.
        number: Version selector: N of `vN`; None if there is none.
        digest: Manifest digest that the version must have; None if not pinned.
    """

    name: str
    project: str | None = None
    alias: str | None = None
    number: int | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str | Reference, *, field: str = "reference") -> Reference:
        """Read a reference.

        Raises:
            InvalidReference: It is malformed; the message says which part.
        """
        if isinstance(text, Reference):
            return text
        if not isinstance(text, str):
            raise InvalidReference(f"{shown(text)} is not a reference", field=field, next_step=_said_by(text))
        rest, at, digest_text = text.partition("@")
        digest = parse_digest(digest_text, field=field) if at else None
        head, colon, selector = rest.partition(":")
        project, slash, name = head.rpartition("/")
        if slash:
            check_name(project, field=field)
        check_name(name, field=field)
        alias = number = None
        if colon:
            number = version_number(selector)
            if number is None:
                if not is_alias(selector):
                    raise InvalidReference(
                        f"{shown(selector, 160)} in {shown(text, 200)} is neither an alias nor a version",
                        field=field,
                        next_step="A version is v1, v2, …; an alias is in lower case, such as prod.",
                    )
                alias = selector
        return cls(name, project if slash else None, alias, number, digest)

    @property
    def selects(self) -> bool:
        """Whether it names a version by itself: by alias, number or digest."""
        return self.alias is not None or self.number is not None or self.digest is not None

    @property
    def selector(self) -> str:
        """`prod`, `v3`, a short digest, or empty."""
        if self.number is not None:
            return f"v{self.number}"
        return self.alias or (f"@{short(self.digest)}" if self.digest else "")

    def within(self, project: str) -> Reference:
        """The same reference with the project filled in where none is named."""
        return self if self.project else replace(self, project=project)

    def seen_from(self, project: str, home: str) -> Reference:
        """The same reference as those see it who are in `project`: without it, where it lies there.

        Args:
            project: Where it is seen from.
            home: What a reference without a project means.
        """
        owner = self.project or home
        return replace(self, project=None if owner == project else owner)

    def or_latest(self) -> Reference:
        """The same reference; without a selector it means `latest`."""
        return self if self.selects else replace(self, alias=LATEST)

    def required(self, verb: str, *, field: str = "reference") -> Reference:
        """The same reference, refused if it has no selector.

        Raises:
            InvalidReference: It names a collection only.
        """
        if not self.selects:
            raise InvalidReference(
                f"{verb} wants an alias, a version or a digest, and {str(self)!r} has none",
                field=field,
                next_step=f"Write {self}:prod, {self}:v1 or {self}:latest.",
            )
        return self

    def __str__(self) -> str:
        text = f"{self.project}/{self.name}" if self.project else self.name
        if self.number is not None:
            text += f":v{self.number}"
        elif self.alias is not None:
            text += f":{self.alias}"
        return f"{text}@{self.digest}" if self.digest else text


MAX_MANY = 10_000
"""Members of one list in one call."""


def parse_many(texts: str | Reference | Sequence[str | Reference], *, field: str = "references") -> list[Reference]:
    """Read one reference or several; one string is a list of one.

    Raises:
        InvalidReference: One is malformed, or there is none.
        TooLarge: There are more than 10,000.
    """
    many = [texts] if isinstance(texts, str | Reference) else _list_of(texts, field)
    if not many:
        raise InvalidReference("no reference was given", field=field)
    return [Reference.parse(t, field=f"{field}[{i}]" if len(many) > 1 else field) for i, t in enumerate(many)]


def strings(values: str | Sequence[str], *, field: str = "values") -> list[str]:
    """One string is a list of one.

    Raises:
        InvalidReference: It is neither a string nor a list.
        TooLarge: There are more than 10,000.
    """
    return [values] if isinstance(values, str) else _list_of(values, field)


def one_project(references: Sequence[Reference], home: str) -> str:
    """The one project that all references lie in; `home` is what those without a prefix mean.

    Raises:
        InvalidReference: They lie in several.
    """
    projects = {r.project or home for r in references}
    if len(projects) > 1:
        raise InvalidReference(
            f"the references lie in several projects: {', '.join(sorted(projects))}",
            field="references",
            next_step="One call stays within one project.",
        )
    return projects.pop() if projects else home


def collection_names(texts: Sequence[str], home: str) -> tuple[list[str], str]:
    """Bare names and their one project, from `[project/]name` without a selector.

    Raises:
        InvalidReference: One is malformed or has a selector, or they lie in several projects.
    """
    parsed = [Reference.parse(t, field="name") for t in texts]
    for reference in parsed:
        if reference.selects:
            raise InvalidReference(
                f"{reference} has a selector, and here the name of a collection is wanted",
                field="name",
                next_step=f"Write {reference.name!r}.",
            )
    return [r.name for r in parsed], one_project(parsed, home)


def _said_by(value: object) -> str:
    """What to write instead of an object that is no reference, and has one: a version."""
    named = getattr(value, "reference", None)
    return f"Give its reference: str(version), here {str(named)!r}." if isinstance(named, Reference) else ""


def _list_of(values: Iterable[V], field: str) -> list[V]:
    if not isinstance(values, Iterable) or isinstance(values, bytes | Mapping):
        raise InvalidReference(
            f"a {type(values).__name__} is no list",
            field=field,
            next_step=_said_by(values) or "Give one string, or a list of them.",
        )
    made = list(itertools.islice(values, MAX_MANY + 1))
    if len(made) > MAX_MANY:
        raise TooLarge(f"more than {MAX_MANY:,} were given", field=field, next_step="Make several calls.")
    return made
