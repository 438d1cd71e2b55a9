"""f-string templates, as LangChain means them: `{name}`, `{name!r}`, `{name:>10}`, `{{` and `}}`, and nothing else.

The text is what `string.Formatter` makes of it. Attribute and item access, positional fields and fields inside a format
are refused when the template is read, as LangChain does since 1.0; an f-string never evaluates anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from llmartifacts.errors import MissingVariable, RenderLimitExceeded
from llmartifacts.kinds.prompt.limits import Meter
from llmartifacts.kinds.prompt.places import Place, Use

MAX_WIDTH = 10_000
"""Largest width or precision of a field, in characters."""

_NAME = re.compile(r"[^\W\d](?:[\w -]*\w)?")


class FStringTemplate:
    """One f-string template.

    Raises:
        InvalidTemplate: It does not parse, or a field is more than a name.
    """

    def __init__(self, text: str, place: Place) -> None:
        self._place = place
        self._parts: list[tuple[str, str | None, str | None, str, int]] = []
        uses: dict[str, Use] = {}
        line = 1
        try:
            for literal, name, spec, conversion in Formatter().parse(text):
                line += literal.count("\n")
                if name is not None:
                    self._check(name, spec or "", conversion, line)
                    uses.setdefault(name, Use(line, True))
                self._parts.append((literal, name, conversion, spec or "", line))
                line += (name or "").count("\n") + (spec or "").count("\n")
        except ValueError as error:
            raise place.error(
                f"the template does not parse: {error}", line, next_step="Write a literal brace twice: {{ or }}."
            ) from None
        self.uses: Mapping[str, Use] = uses
        self.helpers: frozenset[str] = frozenset()

    def render(self, values: Mapping[str, Any], meter: Meter) -> str:
        """Render with private, JSON-plain values.

        Raises:
            InvalidTemplate: A value does not take the field's format; the line is named.
            RenderLimitExceeded: The text grows too long.
        """
        parts, size = [], 0
        for literal, name, conversion, spec, line in self._parts:
            try:
                parts.append(literal if name is None else literal + self._field(name, conversion, spec, values, meter))
                size += len(parts[-1])
                meter.tick()
                if size > meter.limits.output:
                    meter.refuse(f"writes more than {meter.limits.output:,} characters")
            except RenderLimitExceeded as error:
                raise self._place.settle(error, line) from None
            except (ValueError, TypeError) as error:
                raise self._place.error(f"{name!r} cannot be written so: {error}", line, variable=name or "") from None
            except KeyError:
                raise self._place.error(
                    f"{name!r} is not given", line, variable=name or "", kind=MissingVariable
                ) from None
        return "".join(parts)

    def _field(self, name: str, conversion: str | None, spec: str, values: Mapping[str, Any], meter: Meter) -> str:
        meter.weigh(values[name])
        return format(_CONVERT[conversion](values[name]), spec)

    def _check(self, name: str, spec: str, conversion: str | None, line: int) -> None:
        if not _NAME.fullmatch(name):
            what = "attribute or item access" if re.search(r"[.\[\]]", name) else "no name"
            raise self._place.error(
                f"the field {{{name:.60}}} is refused: {what}",
                line,
                variable=name,
                next_step="A field is {name}; write a literal brace twice: {{ or }}.",
            )
        if conversion not in _CONVERT:
            raise self._place.error(f"no conversion is called {conversion!r}; known: r, s, a", line, variable=name)
        if "{" in spec or "}" in spec:
            raise self._place.error(f"the format of {name!r} holds a field of its own", line, variable=name)
        if any(len(n) > 5 or int(n) > MAX_WIDTH for n in re.findall(r"\d+", spec)):
            raise self._place.error(f"the format of {name!r} is wider than {MAX_WIDTH:,}", line, variable=name)


_CONVERT: Mapping[str | None, Any] = {None: lambda value: value, "s": str, "r": repr, "a": ascii}
