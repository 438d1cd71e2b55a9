"""What a Jinja2 template may call, and what is asked before a call can make something large.

Closed lists: the attributes of each type, the methods whose result can be far larger than their input, the filters.
Whatever is on no list is refused. Source: the behaviour of CPython's `str`, `list`, `dict` and of Jinja2 3.1's filters.
"""

from __future__ import annotations

import functools
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.nodes import Impossible
from jinja2.runtime import LoopContext, Macro
from jinja2.tests import TESTS as DEFAULT_TESTS
from jinja2.utils import Cycler, Namespace
from markupsafe import Markup

from llmartifacts.kinds.prompt.limits import MAX_BITS, Meter

METER: ContextVar[Meter] = ContextVar("llmartifacts_prompt_meter")
"""The meter of the rendering that runs in this thread or task."""

EACH, MADE, FLAT = " each", " made", " flat"
"""Filters that `jinja_syntax` puts into the tree; no template can write their names."""

MUTATORS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        list: frozenset(("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort")),
        dict: frozenset(("clear", "pop", "popitem", "setdefault", "update")),
    }
)
"""Type -> methods that change it in place; for prompts that declare the helper `mutation`."""

_STR = frozenset(n for n in dir(str) if not n.startswith("_")) - {"encode", "maketrans", "translate"}
_ATTRIBUTES: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: _STR,
        Markup: _STR | {"striptags", "unescape"},
        int: frozenset({"bit_length", "is_integer", "numerator", "denominator", "real", "imag"}),
        bool: frozenset(),
        float: frozenset({"is_integer", "real", "imag"}),
        list: frozenset({"copy", "count", "index"}),
        tuple: frozenset({"count", "index"}),
        dict: frozenset({"copy", "get", "items", "keys", "values"}),
        range: frozenset({"count", "index", "start", "stop", "step"}),
        Cycler: frozenset({"current", "next", "reset"}),
        Macro: frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"}),
    }
)
_LOOP_NAMES = """
changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0
"""
_LOOP = frozenset(_LOOP_NAMES.split())


def is_known_attribute(value: Any, name: str, *, mutation: bool) -> bool:
    """Whether a template may read this attribute of this value."""
    kind = type(value)
    if kind is Namespace:
        return True
    if isinstance(value, LoopContext):
        return name in _LOOP
    if kind in _ATTRIBUTES:
        return name in _ATTRIBUTES[kind] or (mutation and name in MUTATORS.get(kind, frozenset()))
    return kind.__name__ == "_GroupTuple" and name in ("grouper", "list", "count", "index")


# --- operators

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
        "**": operator.pow,
        "%": operator.mod,
    }
)
_SIZED = (str, list, tuple)


def binary(meter: Meter, sign: str, left: Any, right: Any) -> Any:
    """One binary operator, asked before and counted after."""
    meter.tick()
    if sign == "*":
        if isinstance(right, _SIZED):
            left, right = right, left
            return _times(meter, left, right)
        if isinstance(left, _SIZED):
            return _times(meter, left, right)
        if isinstance(left, int) and isinstance(right, int):
            _bits(meter, left.bit_length() + right.bit_length())
    elif sign == "+":
        if isinstance(left, str) and isinstance(right, str):
            meter.room(len(left) + len(right))
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            meter.room(0, len(left) + len(right))
    elif sign == "**":
        if isinstance(left, int) and isinstance(right, int):
            _bits(meter, max(left.bit_length(), 1) * abs(right) if abs(left) > 1 else 1)
    elif sign == "%" and isinstance(left, str):
        _percent(meter, left, right)
    result = _OPERATORS[sign](left, right)
    if isinstance(result, int):
        _bits(meter, result.bit_length())
    return meter.made(result)


def _times(meter: Meter, value: Any, count: Any) -> Any:
    if isinstance(count, int) and count > 0:
        size = len(value) * count
        meter.room(size if isinstance(value, str) else 0, 0 if isinstance(value, str) else size)
    return meter.made(value * count)


def _bits(meter: Meter, bits: int) -> None:
    if bits > MAX_BITS:
        meter.refuse(f"makes an integer of more than {MAX_BITS:,} bits")


_CONVERSION = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\d+|\*)?(?:\.(\d+|\*))?")


def _percent(meter: Meter, text: str, values: Any) -> None:
    """Bound the result of `text % values`: widths as written or given, and each conversion prints the longest value."""
    numbers = [v for v in (values if isinstance(values, tuple) else (values,)) if isinstance(v, int)]
    longest = max((abs(n) for n in numbers), default=0) if "*" in text else 0
    total, count = len(text), 0
    for found in _CONVERSION.finditer(text):
        count += 1
        for width in found.groups():
            if width:
                total += longest if width == "*" else _width(meter, width)
    parts: Iterable[Any] = values.values() if isinstance(values, dict) else values
    if not isinstance(values, tuple | dict):
        parts = (values,)
    meter.room(total + count * max((meter.weigh(part) for part in parts), default=0))


def _width(meter: Meter, digits: str) -> int:
    if len(digits) > 9:
        meter.refuse("asks for a field of more than 999,999,999 characters")
    return int(digits)


def format_spec(meter: Meter, spec: str) -> None:
    """Ask before `str.format` fills a field with this specification."""
    meter.tick()
    for digits in re.findall(r"\d+", spec):
        meter.room(_width(meter, digits))


# --- methods: (meter, the method's own value, its arguments) -> None


def _padding(meter: Meter, text: str, width: Any = 0, *_: Any) -> None:
    if isinstance(width, int):
        meter.room(max(width, len(text)))


def _tabs(meter: Meter, text: str, tabsize: Any = 8) -> None:
    if isinstance(tabsize, int):
        meter.room(len(text) + text.count("\t") * max(tabsize, 0))


def _replaced(meter: Meter, text: Any, old: Any = "", new: Any = "", count: Any = -1) -> None:
    text, old, new = str(text), str(old), str(new)
    times = text.count(old)
    if isinstance(count, int) and 0 <= count < times:
        times = count
    meter.room(len(text) + times * max(len(new) - len(old), 0))


def _splits(meter: Meter, text: str, *_: Any, **__: Any) -> None:
    meter.charge(16 * len(text))  # at worst every second character becomes a text of its own


def _deep(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    for part in (value, *args, *kwargs.values()):
        meter.weigh(part)


def _grows(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    added = sum(len(a) for a in args if hasattr(a, "__len__"))
    meter.room(0, len(value) + added + len(kwargs) + 1)
    meter.charge(8 * (added + len(kwargs) + 1))
    _deep(meter, None, *args)


_METHODS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padding),
        **dict.fromkeys(("split", "rsplit", "splitlines"), _splits),
        **dict.fromkeys(("count", "index", "remove", "sort", "get", "setdefault"), _deep),
        **dict.fromkeys(("append", "extend", "insert", "update"), _grows),
        "expandtabs": _tabs,
        "replace": _replaced,
        "striptags": lambda meter, text: _quadratic(meter, text),
    }
)


def guarded_method(method: Any, name: str) -> Any:
    """The bound method, or one that asks the meter first where its result may be large."""
    owner = getattr(method, "__self__", None)
    if name == "join" and isinstance(owner, str):
        return functools.partial(_join, owner)
    guard = _deep if name == "changed" and isinstance(owner, LoopContext) else _METHODS.get(name)
    if guard is None or not isinstance(owner, str | list | tuple | dict | range | LoopContext):
        return method

    def call(*args: Any, **kwargs: Any) -> Any:
        guard(METER.get(), owner, *args, **kwargs)
        return method(*args, **kwargs)

    return call


def _join(separator: str, parts: Any) -> str:
    meter = METER.get()
    collected = list(meter.each(parts))
    meter.room(meter.weigh(collected) + len(separator) * len(collected))
    return separator.join(collected)


# --- filters and tests

_SHALLOW_NAMES = """
abs attr batch callable count d default defined divisibleby e escape escaped even false filter first float integer items
iterable last length list lower map mapping none number odd random reject rejectattr reverse safe sameas select
selectattr sequence slice string test true undefined upper
"""
_SHALLOW = frozenset(_SHALLOW_NAMES.split())
"""Filters and tests that do not walk into their value; where a filter has the name of a test, `_FILTERS` weighs it."""


_COLLECTING = frozenset(("groupby", "max", "min", "most_frequent", "sort", "unique"))
"""Filters that compare or hash every item, so that a lazy value is collected first and weighed."""


def _quadratic(meter: Meter, value: Any, *_: Any, **__: Any) -> None:
    text = str(value)
    if text.count("<") * len(text) > 256 * meter.limits.value:
        meter.refuse("strips tags from a text with too many of them")


def _slow(meter: Meter, value: Any, *_: Any, **__: Any) -> None:
    if meter.weigh(value) > 256 * 1024:
        meter.refuse("uses a slow filter on a value of more than 262,144 characters")


def _indented(meter: Meter, value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    text, by = str(value), len(width) if isinstance(width, str) else width
    if isinstance(by, int) and by > 0:
        meter.room(len(text) + by * (len(text.splitlines()) + 2))


def _json(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    indent = kwargs.get("indent", args[0] if args else None)
    by = len(indent) if isinstance(indent, str) else indent if isinstance(indent, int) else 0
    meter.room(meter.weigh(value) * max(by, 0) // 4)


def _rounded(meter: Meter, value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(precision, int) and abs(precision) > 300:
        meter.refuse("rounds to more than 300 digits")


def _parsed(meter: Meter, value: Any, *_: Any, **__: Any) -> None:
    if isinstance(value, str) and len(value) > 4300:
        meter.refuse("reads an integer of more than 4,300 digits")


def _batched(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    for size in (*args, *kwargs.values()):
        if isinstance(size, int):
            meter.room(0, size)


_FILTERS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "center": lambda meter, value, width=80: _padding(meter, str(value), width),
        "indent": _indented,
        "replace": _replaced,
        "format": lambda meter, value, *args, **kwargs: _percent(meter, str(value), kwargs or args),
        "tojson": _json,
        "round": _rounded,
        "int": _parsed,
        "batch": _batched,
        "slice": _batched,
        "striptags": _quadratic,
        "escape": _deep,
        "e": _deep,
        "lower": _deep,
        "string": _deep,
        "upper": _deep,
        **dict.fromkeys(("pprint", "title", "wordcount", "wordwrap", "xmlattr"), _slow),
    }
)


def metered(name: str, function: Callable[..., Any], guards: Mapping[str, Callable[..., None]]) -> Callable[..., Any]:
    """A filter or test that counts its steps, weighs what it walks and asks before it makes something large."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0
    guard, deep, collects = guards.get(name), name not in _SHALLOW, name in _COLLECTING

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get(None)
        if meter is None:
            raise Impossible  # the compiler tries constants; those are worked out when rendering, under the meter
        if collects and len(args) > skip and isinstance(args[skip], Iterator):
            args = (*args[:skip], list(meter.each(args[skip])), *args[skip + 1 :])
        value = args[skip] if len(args) > skip else None
        meter.tick(1 + (len(value) >> 4) if isinstance(value, (*_SIZED, dict, range)) else 1)
        if deep:
            _deep(meter, None, *args[skip:], **kwargs)
        if guard is not None:
            guard(meter, *args[skip:], **kwargs)
        return meter.made(function(*args, **kwargs))

    return call


def _each(value: Any, text: int) -> Any:
    return _Items(value, text)


class _Items:
    """What a `for` runs over: the value itself, one counted step at a time."""

    __slots__ = ("_text", "_value")

    def __init__(self, value: Any, text: int) -> None:
        self._value = value
        self._text = text

    def __iter__(self) -> Any:
        return METER.get().each(iter(self._value), self._text)

    def __len__(self) -> int:
        return len(self._value)


def _flat(value: Any) -> Any:
    METER.get().weigh(value)
    return value


def _joined(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def join(eval_ctx: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        meter = METER.get()
        collected = list(meter.each(value))
        meter.room(meter.weigh(collected) + len(str(d)) * len(collected))
        return filter_(eval_ctx, collected, d, attribute)

    return join


def _summed(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def total(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
        meter = METER.get()
        if not isinstance(start, list | tuple):
            return filter_(environment, meter.each(iterable), attribute, start)
        if attribute is not None:
            iterable = map(make_attrgetter(environment, attribute), iterable)
        for item in iterable:  # adding n lists one by one copies n * n / 2 items
            start = binary(meter, "+", start, item)
        return start

    return total


def most_frequent(items: Iterable[Any]) -> list[Any] | None:
    """The items that appear most often, in order of appearance; None if there are none (promptsource's filter)."""
    counted = Counter(METER.get().each(items)).most_common()
    return [item for item, count in counted if count == counted[0][1]] if counted else None


def _draw(_context: Any, items: Any) -> Any:
    return METER.get().rng.choice(items)


def _random(context: Any, seq: Any) -> Any:
    try:
        return METER.get().rng.choice(seq)
    except IndexError:
        return context.environment.undefined("No random item, sequence was empty.")


def _filters() -> dict[str, Callable[..., Any]]:
    plain: dict[str, Callable[..., Any]] = {n: f for n, f in DEFAULT_FILTERS.items() if n != "urlize"}
    plain["join"] = _joined(plain["join"])
    plain["sum"] = _summed(plain["sum"])
    plain["random"] = functools.wraps(plain["random"])(_random)
    plain["choice"] = functools.wraps(plain["random"])(_draw)
    plain["most_frequent"] = most_frequent
    made = {name: metered(name, function, _FILTERS) for name, function in plain.items()}
    return {**made, EACH: _each, MADE: lambda value: METER.get().made(value), FLAT: _flat}


FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(_filters())
TESTS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: metered(name, function, {}) for name, function in DEFAULT_TESTS.items()}  # type: ignore[arg-type]
)
