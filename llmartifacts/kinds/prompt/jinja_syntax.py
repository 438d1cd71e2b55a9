"""What a Jinja2 template's syntax tree says: its variables, the helpers it needs, and what is refused unrendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, meta, nodes

from llmartifacts.errors import InvalidTemplate
from llmartifacts.kinds.prompt.helpers import FILTER_HELPERS, FUNCTION_HELPERS, MUTATION
from llmartifacts.kinds.prompt.jinja_guards import EACH, FILTERS, FLAT, MADE, MUTATORS, TESTS
from llmartifacts.kinds.prompt.places import Place, Use
from llmartifacts.records.names import near_names

MAX_LOOPS = 16
"""Loops inside one another; Python compiles at most 20 nested blocks."""
MAX_NESTING = 48
"""Statements inside one another; Python compiles at most 100 levels of indentation, Jinja2 uses up to two for one."""

_CHANGING = frozenset().union(*MUTATORS.values())
_INSTEAD = " Or build a new list: a + [b]."
_LITERALS = (nodes.List, nodes.Tuple, nodes.Dict)


@dataclass(frozen=True, slots=True)
class Syntax:
    """What is known of a template before it is rendered.

    Attributes:
        uses: Variable -> how it is used; helpers and Jinja2's own names are not among them.
        helpers: Names of the safe helpers that it uses.
    """

    uses: Mapping[str, Use]
    helpers: frozenset[str]


def read(
    environment: Environment, text: str, place: Place, allowed: frozenset[str] | None, lenient: bool
) -> tuple[nodes.Template, Syntax]:
    """Parse a template, refuse what it may not do, find its variables, and put the meter's hooks into its tree.

    Args:
        environment: The sandbox.
        text: The template.
        place: Where it stands.
        allowed: Safe helpers that it may use; None for any.
        lenient: Whether an undefined name is empty, so that asking whether it is true makes it optional.

    Raises:
        InvalidTemplate: It does not parse, or asks for what is not there; line and name are given.
    """
    try:
        tree = environment.parse(text)
        helpers = _check(tree, place)
        names = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError as error:
        raise place.error(f"the template does not parse: {error.message}", error.lineno) from None
    except (RecursionError, MemoryError):
        raise place.error("the template nests too deep") from None
    except InvalidTemplate:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a template does ends as a typed error
        raise place.error(f"the template does not parse: {error}") from None
    functions = _called(tree, names & FUNCTION_HELPERS)
    used = {name: line for name, line in helpers.items() if name not in FUNCTION_HELPERS or name in functions}
    for name, line in sorted(used.items()):
        if allowed is not None and name not in allowed:
            raise place.error(
                f"the template needs the helper {name!r}, which is not allowed",
                line,
                variable=name,
                next_step=f"Name it in helpers=, or leave helpers= out.{_INSTEAD if name == MUTATION else ''}",
            )
    syntax = Syntax(_uses(tree, names - functions, lenient), frozenset(used))
    _hook(tree)
    return tree, syntax


def _check(tree: nodes.Template, place: Place) -> dict[str, int]:
    """Refuse what is refused; the helpers that are used, each with a line."""
    helpers: dict[str, int] = {}
    for node, loops, depth in _walk(tree):
        line = node.lineno
        if isinstance(node, nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport):
            word = {"Extends": "extends", "Include": "include"}.get(type(node).__name__, "import")
            raise place.error(
                f"'{word}' is refused: a prompt loads no other template",
                line,
                variable=word,
                next_step="Copy the other template's text into this one, or define a macro in it.",
            )
        if loops > MAX_LOOPS or depth > MAX_NESTING:
            raise place.error(f"more than {MAX_LOOPS} loops or {MAX_NESTING} statements inside one another", line)
        if type(node).__name__ in ("Break", "Continue") and not loops:
            raise place.error(f"'{type(node).__name__.lower()}' outside a loop", line)
        if isinstance(node, nodes.Filter | nodes.Test):
            _check_known(node, place)
            if isinstance(node, nodes.Filter) and node.name in FILTER_HELPERS:
                helpers.setdefault(node.name, line)
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("__"):
            raise place.error(f"the attribute {node.attr!r} is not for templates", line, variable=node.attr)
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr in _CHANGING:
            helpers.setdefault(MUTATION, line)
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in FUNCTION_HELPERS:
            helpers.setdefault(node.node.name, line)
        elif isinstance(node, nodes.Name) and node.name == "lipsum":
            raise place.error("'lipsum' is refused: it writes another text each time", line, variable="lipsum")
    return helpers


def _check_known(node: nodes.Filter | nodes.Test, place: Place) -> None:
    what, table = ("filter", FILTERS) if isinstance(node, nodes.Filter) else ("test", TESTS)
    if node.name not in table:
        near = near_names(node.name, table)
        raise place.error(
            f"no {what} is called {node.name!r}",
            node.lineno,
            variable=node.name,
            next_step=f"Did you mean {' or '.join(near)}?"
            if near
            else f"Known: {', '.join(sorted(n for n in table if n[0] != ' '))}.",
        )


def _walk(tree: nodes.Node) -> Iterator[tuple[nodes.Node, int, int]]:
    """Every node, with the number of loops and of statements around it."""
    stack: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while stack:
        node, loops, depth = stack.pop()
        yield node, loops, depth
        loops += isinstance(node, nodes.For)
        depth += isinstance(node, nodes.Stmt)
        stack.extend((child, loops, depth) for child in node.iter_child_nodes())


def _called(tree: nodes.Template, names: set[str]) -> frozenset[str]:
    """The names that are only ever called: `zip(a, b)` is the helper, `{{ zip }}` a variable."""
    called = {id(node.node) for node in tree.find_all(nodes.Call)}
    return frozenset(names - {n.name for n in tree.find_all(nodes.Name) if n.ctx == "load" and id(n) not in called})


def _uses(tree: nodes.Template, names: set[str], lenient: bool) -> dict[str, Use]:
    """How each variable is used. Required unless it is tested by `is defined`, given a default everywhere, or set."""
    first: dict[str, int] = {}
    optional: set[str] = set()
    guarded: set[int] = set()
    found: Iterator[Any] = tree.find_all((nodes.Assign, nodes.AssignBlock))
    for assign in found:
        targets = [assign.target, *assign.target.find_all(nodes.Name)]
        optional.update(n.name for n in targets if isinstance(n, nodes.Name))
    for asked in tree.find_all((nodes.Test, nodes.Filter)):
        if isinstance(asked.node, nodes.Name):
            if isinstance(asked, nodes.Test) and asked.name in ("defined", "undefined"):
                optional.add(asked.node.name)
            elif isinstance(asked, nodes.Filter) and asked.name in ("default", "d"):
                guarded.add(id(asked.node))
    if lenient:
        found = tree.find_all((nodes.If, nodes.CondExpr))
        optional.update(name for asked in found for name in _truths(asked.test))
    bare: set[str] = set()
    found = tree.find_all((nodes.Name, nodes.NSRef))
    for name in found:
        first[name.name] = min(first.get(name.name, name.lineno), name.lineno)
        if id(name) not in guarded and getattr(name, "ctx", "load") == "load":
            bare.add(name.name)
    return {name: Use(first.get(name, 1), name in bare - optional) for name in sorted(names)}


def _truths(test: Any) -> Iterator[str]:
    """Names that a condition asks for truth: `x`, `not x`, `x and y`."""
    if isinstance(test, nodes.Name):
        yield test.name
    elif isinstance(test, nodes.Not):
        yield from _truths(test.node)
    elif isinstance(test, nodes.And | nodes.Or):
        yield from _truths(test.left)
        yield from _truths(test.right)


def _hook(tree: nodes.Template) -> None:
    """Count loop turns, weigh what is compared or used as a key, and count long literals and slices."""
    for node, _, _ in list(_walk(tree)):
        if isinstance(node, nodes.For):
            text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
            node.iter = _filter(EACH, node.iter, nodes.Const(text, lineno=node.lineno))
        elif isinstance(node, nodes.Compare):
            node.expr = _flat(node.expr)
            for operand in node.ops:
                operand.expr = _flat(operand.expr)
        elif isinstance(node, nodes.Dict):
            for pair in node.items:
                pair.key = _flat(pair.key)
        for field, value in node.iter_fields():
            if isinstance(value, nodes.Expr) and _large(value):
                setattr(node, field, _filter(MADE, value))
            elif isinstance(value, list) and any(isinstance(v, nodes.Expr) and _large(v) for v in value):
                value[:] = [_filter(MADE, v) if isinstance(v, nodes.Expr) and _large(v) else v for v in value]


def _large(node: nodes.Expr) -> bool:
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Slice)
    return isinstance(node, _LITERALS) and len(node.items) > 16 and getattr(node, "ctx", "load") == "load"


def _flat(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(FLAT, node)


def _filter(name: str, node: Any, *args: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
    made.environment = node.environment
    return made
