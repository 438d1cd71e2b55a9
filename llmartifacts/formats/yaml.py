"""YAML that somebody wrote by hand, read as plain JSON values: no tags, no aliases, no doubles, bounded.

Each value's line can be had too, so that what is wrong with it later can be told by its line.

Source of the limits: an alias inside an anchor grows a few lines into billions of nodes ("billion laughs"), so
anchors are refused as a whole; a deep document ends a recursive reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import InvalidManifest, InvalidValue, TooLarge
from llmartifacts.records.canonical import MAX_DEPTH, plain_json

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000

Place = tuple[str | int, ...]
"""Where a value stands in a document: keys and indexes from the top, such as `("scorers", 2, "type")`."""
Lines = Mapping[Place, int]
"""Place -> its line, counted from 1; of a key's value it is the line of the key."""


def parse_yaml(data: bytes, *, origin: str = "") -> Any:
    """Read YAML from UTF-8 bytes.

    Args:
        data: The document.
        origin: Where it came from, such as a file's path, for error messages.

    Returns:
        None, bool, int, float, str, list or dict with text keys.

    Raises:
        InvalidValue: It is not YAML, or holds tags, anchors, double keys or values that are not JSON; line named.
        TooLarge: More than 256 KiB, 20,000 nodes or 64 levels.
    """
    return read_yaml_with_lines(data, origin=origin)[0]


def read_yaml_with_lines(data: bytes, *, origin: str = "") -> tuple[Any, Lines]:
    r"""Read YAML from UTF-8 bytes, and know the line of every value; arguments and errors as `parse_yaml`.

    Example:
        >>> value, lines = read_yaml_with_lines(b"name: a\nsteps:\n- x\n- y\n")
        >>> value, lines["steps", 1]
        ({'name': 'a', 'steps': ['x', 'y']}, 4)
    """
    import yaml  # 20 ms; only for those who read YAML

    if len(data) > MAX_BYTES:
        raise TooLarge(f"more than {MAX_BYTES} bytes of YAML", origin=origin)

    def at(mark: Any) -> str:
        return located(origin, mark.line + 1) if mark is not None else origin

    try:
        text = data.decode("utf-8-sig")
        nodes = depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
            if anchor is not None:
                raise InvalidValue("anchors and aliases are not taken", origin=at(event.start_mark))
            if tag is not None:
                raise InvalidValue(f"the tag {tag!r:.80} is not taken", origin=at(event.start_mark))
            nodes += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if nodes > MAX_NODES or depth > MAX_DEPTH:
                raise TooLarge(f"more than {MAX_NODES} nodes or {MAX_DEPTH} levels", origin=at(event.start_mark))
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = _lines(root, at)
        value = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8 at byte {error.start}", origin=origin) from None
    except yaml.YAMLError as error:
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InvalidValue(f"not YAML: {what}", origin=at(getattr(error, "problem_mark", None))) from None
    except ValueError as error:  # a scalar that looks like a date and is none
        raise InvalidValue(f"not YAML: {error}", origin=origin, next_step="Put the value in quotes.") from None
    try:
        return plain_json(value), lines
    except InvalidManifest as error:
        hint = error.next_step or "Put the value in quotes."
        line = next((n for place, n in lines.items() if place_text(place) == error.field), None)
        raise InvalidValue.of(error, origin=located(origin, line), next_step=hint) from None


def located(origin: str, line: int | None) -> str:
    """An origin with a line: `suite.yaml, line 12`; without either, what is known of it."""
    return f"{origin}, line {line}".lstrip(", ") if line else origin


def line_of(lines: Lines, place: Place) -> int | None:
    """The line of a place, or of the nearest one around it; None if nothing is known."""
    for end in range(len(place), -1, -1):
        if place[:end] in lines:
            return lines[place[:end]]
    return None


def place_text(place: Place) -> str:
    """A place as errors name it.

    Example:
        >>> place_text(("scorers", 2, "type"))
        'scorers[2].type'
    """
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _lines(root: Any, at: Any) -> dict[Place, int]:
    """The line of every node; the keys are checked on the way."""
    import yaml

    found: dict[Place, int] = {}
    waiting: list[tuple[Place, Any]] = [((), root)] if root is not None else []
    while waiting:
        place, node = waiting.pop()
        found.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, item in node.value:
                where = at(key.start_mark)
                if key.tag != "tag:yaml.org,2002:str":
                    raise InvalidValue("a key is not text", origin=where, next_step="Put the key in quotes.")
                if key.value in seen:
                    raise InvalidValue(f"the key {key.value!r:.80} appears twice", origin=where)
                seen.add(key.value)
                found[(*place, key.value)] = key.start_mark.line + 1
                waiting.append(((*place, key.value), item))
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(((*place, i), item) for i, item in enumerate(node.value))
    return found
