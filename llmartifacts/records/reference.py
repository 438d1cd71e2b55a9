"""References: `[project/]name[:selector][@sha256:…]`; a selector is an alias or `vN`.

Example:
    >>> str(Reference.parse("acme/support-agent:prod"))
    'acme/support-agent:prod'
    >>> Reference.parse("support-agent:v3").number
    3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmartifacts.errors import InvalidReference
from llmartifacts.records.digest import Digest, parse_digest, short
from llmartifacts.records.names import LATEST, check_name, is_alias, version_number


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
            raise InvalidReference(f"{text!r:.100} is not a reference", field=field)
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
                        f"{selector!r:.160} in {text!r:.200} is neither an alias nor a version",
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


def parse_many(texts: str | Reference | Sequence[str | Reference], *, field: str = "references") -> list[Reference]:
    """Read one reference or several; one string is a list of one.

    Raises:
        InvalidReference: One is malformed, or there is none.
    """
    many = [texts] if isinstance(texts, str | Reference) else list(texts)
    if not many:
        raise InvalidReference("no reference was given", field=field)
    return [Reference.parse(t, field=f"{field}[{i}]" if len(many) > 1 else field) for i, t in enumerate(many)]


def strings(values: str | Sequence[str]) -> list[str]:
    """One string is a list of one."""
    return [values] if isinstance(values, str) else list(values)
