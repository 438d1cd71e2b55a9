"""Jinja2 templates in a metered sandbox; what they write is byte for byte what the plain engine writes.

Plain engine: `jinja2.Environment()` with its own defaults and `StrictUndefined`, unless the prompt's `jinja` options
say otherwise; `jinja="transformers"` is the environment that transformers renders chat templates in (blocks trimmed,
an undefined name is empty, `tojson` writes plain JSON). `{% break %}` and `{% continue %}` are there always.

What is refused: loading other templates, attributes that are not on a closed list, changing a list or dict (unless by
the helper `mutation`), and whatever passes the limits. No text of a template is run while it is
compiled: constants are worked out when rendering, under the meter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinMethodType, MethodType, TracebackType
from typing import Any, NoReturn

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from llmartifacts.errors import InvalidTemplate, LlmartifactsError, MissingVariable, RenderLimitExceeded
from llmartifacts.kinds.prompt import jinja_guards as guards
from llmartifacts.kinds.prompt.helpers import MUTATION
from llmartifacts.kinds.prompt.jinja_guards import METER
from llmartifacts.kinds.prompt.jinja_syntax import read
from llmartifacts.kinds.prompt.limits import Meter
from llmartifacts.kinds.prompt.places import Place, Use

_METHOD = BuiltinMethodType | MethodType
_PRINTABLE: tuple[type, ...] = (
    str,
    int,
    float,
    complex,
    list,
    tuple,
    dict,
    set,
    range,
    type(None),
    Undefined,
    Namespace,
    Macro,
)
_PRINTABLE += (type({}.keys()), type({}.values()), type({}.items()))


class JinjaTemplate:
    """One Jinja2 template: read when made, compiled at first use, once.

    Args:
        text: The template.
        place: Where it stands.
        options: `trim_blocks`, `lstrip_blocks`, `keep_trailing_newline` (bool), `undefined` (`strict` or `lenient`),
            `tojson` (`html` or `plain`); absent ones are Jinja2's defaults.
        helpers: Safe helpers that it may use; None for any.

    Raises:
        InvalidTemplate: It does not parse or asks for what is refused.
    """

    def __init__(self, text: str, place: Place, options: Mapping[str, Any], helpers: frozenset[str] | None) -> None:
        self._place = place
        self._environment = _Sandbox(options)
        self._tree: nodes.Template | None
        self._tree, syntax = read(self._environment, text, place, helpers, options.get("undefined") == "lenient")
        self._environment.mutation = MUTATION in syntax.helpers
        self.uses: Mapping[str, Use] = syntax.uses
        self.helpers: frozenset[str] = syntax.helpers
        self._template: Any = None

    def render(self, values: Mapping[str, Any], meter: Meter) -> str:
        """Render with private, JSON-plain values.

        Raises:
            MissingVariable: The template reads a variable or field that is not there.
            RenderLimitExceeded: It runs too long or writes too much.
            InvalidTemplate: It fails otherwise; the line is named.
        """
        token = METER.set(meter)
        running: Any = None
        try:
            template = self._compiled()
            running = template.root_render_func(template.new_context(dict(values)))
            parts, size = [], 0
            for part in running:
                size += len(part)
                if size > meter.limits.output:
                    meter.refuse(f"writes more than {meter.limits.output:,} characters")
                parts.append(part)
            return "".join(parts)
        except Exception as error:  # noqa: BLE001 - whatever a template does ends as a typed error
            frame = getattr(running, "gi_frame", None)
            self._explain(error, self._line(error.__traceback__, None if frame is None else frame.f_lineno))
        finally:
            METER.reset(token)

    def _compiled(self) -> Any:
        # Two threads may both compile; either result is as good, and the tree is only read.
        if self._template is None:
            tree = self._tree
            if tree is None:
                return self._template
            code = self._environment.compile(tree, name="prompt", filename="<prompt>")
            helpers = {name: f for name, f in _FUNCTIONS.items() if name in self.helpers}
            made = self._environment.template_class.from_code(
                self._environment, code, self._environment.make_globals(helpers)
            )
            made.root_render_func.__globals__.update(_RUNTIME)
            self._template = made
            self._tree = None
        return self._template

    def _explain(self, error: Exception, line: int | None) -> NoReturn:
        if isinstance(error, InvalidTemplate):
            raise self._place.settle(error, line) from None
        if isinstance(error, LlmartifactsError):
            raise error
        if isinstance(error, RecursionError | MemoryError):
            raise self._place.error(
                "the template nests, recurses or grows too far", line, kind=RenderLimitExceeded
            ) from None
        text = str(error) or type(error).__name__
        if isinstance(error, UndefinedError):
            name = _name(text)
            raise self._place.error(
                f"the template reads what is not there: {text}", line, variable=name, kind=MissingVariable
            ) from None
        if isinstance(error, SecurityError):
            raise self._place.error(f"refused: {text}", line) from None
        if isinstance(error, TemplateError | SyntaxError):
            line = error.lineno if isinstance(error, TemplateSyntaxError) else line
            raise self._place.error(f"the template fails: {text}", line) from None
        raise self._place.error(f"the template fails: {type(error).__name__}: {text}", line) from None

    def _line(self, trace: TracebackType | None, line: int | None) -> int | None:
        """Line of the template; `line` is that of the compiled code where it waits, if it does."""
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<prompt>":
                line = trace.tb_lineno
            trace = trace.tb_next
        return None if line is None or self._template is None else int(self._template.get_corresponding_lineno(line))


def _name(message: str) -> str:
    found = re.search(r"'([^']*)' is undefined", message) or re.search(
        r"has no (?:attribute|element) '?([^']*)", message
    )
    return found.group(1) if found else ""


class JinjaMeter(Meter):
    """A meter that knows Jinja2's namespaces."""

    __slots__ = ()

    def inside(self, item: Any) -> Iterable[Any]:
        """The values of a namespace; nothing of other objects."""
        return item._Namespace__attrs.values() if isinstance(item, Namespace) else ()


class _Sandbox(ImmutableSandboxedEnvironment):
    """Closed attribute lists, counted operators and calls, nothing folded at compile time, no loader."""

    concat = staticmethod(lambda parts: _concat(parts))
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    mutation = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(
            trim_blocks=options.get("trim_blocks", False),
            lstrip_blocks=options.get("lstrip_blocks", False),
            keep_trailing_newline=options.get("keep_trailing_newline", False),
            undefined=Undefined if options.get("undefined") == "lenient" else StrictUndefined,
            extensions=("jinja2.ext.loopcontrols",),
            finalize=_finalize,
            optimized=False,
            cache_size=0,
        )
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "cycler": Cycler,
            "joiner": Joiner,
            "namespace": Namespace,
        }
        self.filters = dict(guards.FILTERS)
        if options.get("tojson") == "plain":
            self.filters["tojson"] = _PLAIN_TOJSON
        self.tests = dict(guards.TESTS)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not attr.startswith("_") and guards.is_known_attribute(obj, attr, mutation=self.mutation)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"the attribute {attribute!r} of a {type(obj).__name__} is not for templates")

    def getattr(self, obj: Any, attribute: str) -> Any:
        value = super().getattr(obj, attribute)
        return guards.guarded_method(value, attribute) if isinstance(value, _METHOD) else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, str | int):
            METER.get().weigh(argument)
        value = super().getitem(obj, argument)
        return guards.guarded_method(value, argument) if isinstance(value, _METHOD) else value

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if not isinstance(value, _METHOD) or value.__name__ not in ("format", "format_map"):
            return None
        owner, mapped = value.__self__, value.__name__ == "format_map"
        if not isinstance(owner, str):
            return None

        def formatted(*args: Any, **kwargs: Any) -> str:
            for given in (*args, *kwargs.values()):
                METER.get().weigh(given)
            if mapped:
                (kwargs,) = args
                args = ()
            escape = owner.escape if isinstance(owner, Markup) else None
            formatter = _EscapeFormatter(self, escape=escape) if escape else _Formatter(self)
            return type(owner)(formatter.vformat(owner, args, kwargs))

        return formatted

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return guards.binary(METER.get(), operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        meter = METER.get()
        meter.enter()
        if __obj is dict or __obj is Namespace:  # they hash their keys
            for given in args:
                meter.weigh(given)
        try:
            return meter.made(super().call(__context, __obj, *args, **kwargs))
        finally:
            meter.leave()


class _Formatter(SandboxedFormatter):
    _size = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        guards.format_spec(METER.get(), format_spec)
        text = super().format_field(value, format_spec)
        self._size += len(text)
        METER.get().room(self._size)
        return text


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    pass


@pass_context
def _finalize(_context: Context, value: Any) -> Any:
    """Ask before a value is printed. Given the context, Jinja2 prints no constant while it compiles."""
    meter = METER.get()
    if type(value) is str:
        meter.charge(len(value))
        return value
    if not isinstance(value, _PRINTABLE):
        raise TypeError(f"a {type(value).__name__} cannot be printed; make it a list with |list, or call it")
    meter.charge(meter.weigh(value))
    return value


# --- what compiled templates use at run time, in place of Jinja2's own


class _MeteredLoop(LoopContext):
    def __next__(self) -> Any:
        METER.get().tick()
        return super().__next__()


def _concat(parts: Iterable[str]) -> str:
    meter, collected = METER.get(), list(parts)
    meter.room(sum(map(len, collected)))
    return str(meter.made("".join(collected)))


def _concatenated(join: Callable[[Iterable[Any]], str]) -> Callable[[Iterable[Any]], str]:
    def joined(parts: Iterable[Any]) -> str:
        meter, collected = METER.get(), list(parts)
        meter.tick()
        meter.room(sum(map(meter.weigh, collected)))
        return str(meter.made(join(collected))) if join is str_join else join(collected)

    return joined


_RUNTIME: Mapping[str, Any] = {
    "LoopContext": _MeteredLoop,
    "markup_join": _concatenated(markup_join),
    "str_join": _concatenated(str_join),
}


# --- helpers


def _raise_exception(message: Any = "") -> NoReturn:
    METER.get().weigh(message)
    raise InvalidTemplate(
        f"the template refuses these values: {message}",
        variable="raise_exception",
        next_step="Give the values in the form that the template asks for.",
    )


def _strftime_now(form: str) -> str:
    # The C library takes widths (%99999999Y), so a short form could write gigabytes.
    if len(form) > 1000 or re.search(r"%[-_0^#+]*\d", form):
        METER.get().refuse("asks for a date of unbounded length")
    return METER.get().now().strftime(form)


def _zip(*iterables: Any) -> Any:
    meter = METER.get()
    for pair in zip(*iterables, strict=False):
        meter.tick(1 + (len(pair) >> 4))
        yield meter.made(pair)


def _plain_tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _plain_guard(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    indent = kwargs.get("indent", args[1] if len(args) > 1 else None)
    separators = kwargs.get("separators", args[2] if len(args) > 2 else None)
    by = len(indent) if isinstance(indent, str) else indent if isinstance(indent, int) else 0
    between = sum(map(len, separators)) if isinstance(separators, list | tuple) else 0
    meter.room(meter.weigh(value) * max(by, between, 0) // 4)


_PLAIN_TOJSON = guards.metered("tojson", _plain_tojson, {"tojson": _plain_guard})
_FUNCTIONS: Mapping[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "zip": _zip}
