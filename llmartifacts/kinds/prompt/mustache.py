"""Mustache templates, as the Mustache specification says: interpolation, sections, partials, dynamic partial names.

`{{x}}` is escaped for HTML, `{{{x}}}` and `{{&x}}` are not, as the specification and LangChain have it. Partials are
pinned inside the prompt (`includes`); nothing is loaded. Two optional modules of the specification are refused when the
template is read or a value is given: inheritance (`{{<parent}}`, `{{$block}}`), which LangChain has not either, and
lambdas, because a function is no JSON. `{{.}}` outside a section is refused, because a prompt's values have names.

Where the specification is silent, values print as LangChain prints them: None, empty texts and empty lists print
nothing, all else what `str` makes of it; a section of 0 or an empty text is not entered. Where LangChain leaves the
specification (a dotted name of which only the first part is found goes on searching outwards), this does not.

Source: https://github.com/mustache/spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.errors import RenderLimitExceeded
from llmartifacts.kinds.prompt.limits import Meter
from llmartifacts.kinds.prompt.places import Place, Use

MAX_NESTING = 50
"""Sections inside one another."""

_MISSING = object()


@dataclass(slots=True)
class _Variable:
    path: tuple[str, ...]
    escape: bool


@dataclass(slots=True)
class _Section:
    path: tuple[str, ...]
    inverted: bool
    line: int
    nodes: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Partial:
    name: str
    path: tuple[str, ...] | None
    indent: str


_Node = str | _Variable | _Section | _Partial


class MustacheTemplate:
    """One Mustache template with the partials it may include.

    Args:
        text: The template.
        place: Where it stands.
        includes: Name -> template of each partial; a name that is not there includes nothing.

    Raises:
        InvalidTemplate: It does not parse, or uses what is refused.
    """

    def __init__(self, text: str, place: Place, includes: Mapping[str, str] | None = None) -> None:
        self._place = place
        self._includes = dict(includes or {})
        self._nodes = _parse(text, place)
        self._parsed: dict[tuple[str, str], list[_Node]] = {
            (name, ""): _parse(body, Place(f"includes.{name}", place.origin)) for name, body in self._includes.items()
        }
        self.uses: Mapping[str, Use] = self._find_uses(text)
        self.helpers: frozenset[str] = frozenset()

    def render(self, values: Mapping[str, Any], meter: Meter) -> str:
        """Render with private, JSON-plain values; a name that is not there prints nothing.

        Raises:
            RenderLimitExceeded: It recurses too deep, runs too long or writes too much.
        """
        out: list[str] = []
        try:
            self._render(self._nodes, [values], meter, out)
        except RenderLimitExceeded as error:
            raise self._place.settle(error) from None
        return "".join(out)

    def _render(self, nodes: Sequence[_Node], stack: list[Any], meter: Meter, out: list[str]) -> None:
        meter.enter()
        for node in nodes:
            meter.tick()
            if isinstance(node, str):
                self._write(node, meter, out)
            elif isinstance(node, _Variable):
                text = _text(_look_up(node.path, stack), meter)
                self._write(_escape(text) if node.escape else text, meter, out)
            elif isinstance(node, _Section):
                self._section(node, stack, meter, out)
            else:
                self._render(self._partial(node, stack, meter), stack, meter, out)
        meter.leave()

    def _section(self, node: _Section, stack: list[Any], meter: Meter, out: list[str]) -> None:
        value = _look_up(node.path, stack)
        if node.inverted or not value or value is _MISSING:
            if node.inverted and (not value or value is _MISSING):
                self._render(node.nodes, stack, meter, out)
            return
        for item in value if isinstance(value, list) else [value]:
            stack.append(item)
            self._render(node.nodes, stack, meter, out)
            stack.pop()

    def _partial(self, node: _Partial, stack: list[Any], meter: Meter) -> list[_Node]:
        name = node.name
        if node.path is not None:
            found = _look_up(node.path, stack)
            name = found if isinstance(found, str) else ""
        if name not in self._includes:
            return []
        key = (name, node.indent)
        nodes = self._parsed.get(key)
        if nodes is None:
            # The indent is part of the template, so a value of several lines is not indented.
            body = self._includes[name]
            meter.room(len(body) + len(node.indent) * (body.count("\n") + 1))
            text = re.sub(r"(?m)^(?=[\s\S])", node.indent, body)
            meter.made(text)
            nodes = self._parsed[key] = _parse(text, Place(f"includes.{name}", self._place.origin))
        return nodes

    def _write(self, text: str, meter: Meter, out: list[str]) -> None:
        if text:
            meter.charge(len(text))
            out.append(text)
            meter.written += len(text)
            if meter.written > meter.limits.output:
                meter.refuse(f"writes more than {meter.limits.output:,} characters")

    def _find_uses(self, text: str) -> dict[str, Use]:
        """Variables by their first name: required where they print outside a section, else optional."""
        uses: dict[str, Use] = {}
        lines = _first_lines(text)
        for nodes, own in [(self._nodes, True), *((nodes, False) for nodes in self._parsed.values())]:
            for node, inside in _walk(nodes):
                path = getattr(node, "path", None)
                if not path or path[0] == ".":
                    if path and own and not inside:
                        raise self._place.error(
                            "'{{.}}' outside a section is refused: a prompt's values have names",
                            variable=".",
                            next_step="Give the value a name and print that.",
                        )
                    continue
                required = own and not inside and isinstance(node, _Variable)
                known = uses.get(path[0])
                uses[path[0]] = Use(lines.get(path[0], 1), required or (known is not None and known.required))
        return uses


def _walk(nodes: Sequence[_Node]) -> Iterator[tuple[_Node, bool]]:
    stack = [(node, False) for node in reversed(nodes)]
    while stack:
        node, inside = stack.pop()
        yield node, inside
        if isinstance(node, _Section):
            stack.extend((child, True) for child in reversed(node.nodes))


def _first_lines(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    for i, line in enumerate(text.split("\n"), 1):
        for name in re.findall(r"[^\s{}#^&>*=!./]+", line):
            lines.setdefault(name, i)
    return lines


# --- values


def _look_up(path: tuple[str, ...], stack: Sequence[Any]) -> Any:
    """The first part from the innermost context that has it, the others from what was found, with no way back."""
    if path == (".",):
        return stack[-1]
    for context in reversed(stack):
        found = _step(context, path[0])
        if found is not _MISSING:
            for part in path[1:]:
                found = _step(found, part)
                if found is _MISSING:
                    break
            return found
    return _MISSING


def _step(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, _MISSING)
    if isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(value):
        return value[int(name)]
    return _MISSING


def _text(value: Any, meter: Meter) -> str:
    if isinstance(value, str):
        return value
    if value is _MISSING or value is None or (isinstance(value, list | dict) and not value):
        return ""
    meter.weigh(value)
    return str(value)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


# --- parsing

_STANDALONE = frozenset("#^/>!=")
_LINE_END = re.compile(r"[ \t]*(?:\r?\n|\Z)")


def _parse(text: str, place: Place) -> list[_Node]:
    root: list[_Node] = []
    open_: list[_Section] = []
    opening, closing = "{{", "}}"
    at, line, fresh = 0, 1, 0  # `fresh`: end of the last tag
    while True:
        nodes = open_[-1].nodes if open_ else root
        start = text.find(opening, at)
        if start < 0:
            nodes.append(text[at:])
            break
        line += text.count("\n", at, start)
        kind, name, end = _tag(text, start, opening, closing, line, place)
        before, indent = text[at:start], ""
        if kind in _STANDALONE:
            line_start = text.rfind("\n", fresh, start) + 1 or fresh
            begins = line_start == 0 or text[line_start - 1] == "\n"
            after = _LINE_END.match(text, end)
            if after and begins and not text[line_start:start].strip(" \t"):
                indent = text[line_start:start]
                before = text[at:line_start]
                line += text.count("\n", start, after.end())
                end = after.end()
                fresh = end
            else:
                line += text.count("\n", start, end)
                fresh = end
        else:
            line += text.count("\n", start, end)
            fresh = end
        if before:
            nodes.append(before)
        at = end
        if kind == "=":
            opening, closing = _delimiters(name, line, place)
        elif kind in ("#", "^"):
            if len(open_) >= MAX_NESTING:
                raise place.error(f"more than {MAX_NESTING} sections inside one another", line)
            section = _Section(_path(name, line, place), kind == "^", line)
            nodes.append(section)
            open_.append(section)
        elif kind == "/":
            if not open_ or open_[-1].path != _path(name, line, place):
                raise place.error(f"'{{{{/{name:.60}}}}}' closes no open section of that name", line, variable=name)
            open_.pop()
        elif kind == ">":
            dynamic = name.startswith("*")
            path = _path(name[1:].strip(), line, place) if dynamic else None
            nodes.append(_Partial("" if dynamic else name, path, indent))
        elif kind != "!":
            nodes.append(_Variable(_path(name, line, place), kind == ""))
    if open_:
        name = ".".join(open_[-1].path)
        raise place.error(f"the section {name!r} is never closed", open_[-1].line, variable=name)
    return root


def _tag(text: str, start: int, opening: str, closing: str, line: int, place: Place) -> tuple[str, str, int]:
    """Kind, content and end of the tag at `start`."""
    inside = start + len(opening)
    kind = text[inside : inside + 1]
    if kind in ("<", "$"):
        raise place.error(
            f"'{opening}{kind}' is refused: Mustache inheritance is not supported",
            line,
            variable=kind,
            next_step="Use a partial: {{>name}} with includes={'name': …}.",
        )
    ending = {"{": "}" + closing, "=": "=" + closing}.get(kind, closing)
    if kind not in ("{", "&", *_STANDALONE):
        kind = ""
    first = inside + len(kind)
    stop = text.find(ending, first) if kind else text.find(closing, inside)
    if stop < 0:
        raise place.error(f"the tag that begins with {text[start : start + 20]!r} is never closed", line)
    name = text[first:stop].strip()
    if kind != "!" and not name:
        raise place.error("a tag has no name", line)
    return kind, name, stop + len(ending)


def _path(name: str, line: int, place: Place) -> tuple[str, ...]:
    if name == ".":
        return (".",)
    if re.search(r"[\s*]", name):
        raise place.error(f"{name!r:.60} is no name", line, variable=name)
    path = tuple(name.split("."))
    if not all(path):
        raise place.error(f"{name!r:.60} is no name: a part of it is empty", line, variable=name)
    return path


def _delimiters(name: str, line: int, place: Place) -> tuple[str, str]:
    parts = name.split()
    if len(parts) != 2 or any("=" in part for part in parts):
        raise place.error(f"{name!r:.60} are no two delimiters", line)
    return parts[0], parts[1]
