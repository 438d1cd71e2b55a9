"""YAML that somebody wrote by hand, read as plain JSON values: no tags, no aliases, no doubles, bounded.

Source of the limits: an alias inside an anchor grows a few lines into billions of nodes ("billion laughs"), so
anchors are refused as a whole; a deep document ends a recursive reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmartifacts.errors import InvalidManifest, InvalidValue, TooLarge
from llmartifacts.kinds.disk import read_regular
from llmartifacts.records.canonical import MAX_DEPTH, plain_json

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000


def read_yaml(file: Path) -> Any:
    """Read a YAML file.

    Returns:
        None, bool, int, float, str, list or dict with text keys.

    Raises:
        InvalidValue: It is not YAML, or holds tags, anchors, double keys or values that are not JSON; line named.
        TooLarge: More than 256 KiB, 20,000 nodes or 64 levels.
        NotFound: It is not there.
    """
    return parse_yaml(read_regular(file, MAX_BYTES, field="paths"), origin=str(file))


def parse_yaml(data: bytes, *, origin: str = "") -> Any:
    """Read YAML from UTF-8 bytes; result, limits and errors as `read_yaml`."""
    import yaml  # 20 ms; only for those who log from YAML

    if len(data) > MAX_BYTES:
        raise TooLarge(f"more than {MAX_BYTES} bytes of YAML", origin=origin)

    def at(mark: Any) -> str:
        return f"{origin}, line {mark.line + 1}".lstrip(", ") if mark is not None else origin

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
        _check_keys(root, at)
        value = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8 at byte {error.start}", origin=origin) from None
    except yaml.YAMLError as error:
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InvalidValue(f"not YAML: {what}", origin=at(getattr(error, "problem_mark", None))) from None
    except ValueError as error:  # a scalar that looks like a date and is none
        raise InvalidValue(f"not YAML: {error}", origin=origin, next_step="Put the value in quotes.") from None
    try:
        return plain_json(value)
    except InvalidManifest as error:
        hint = error.next_step or "Put the value in quotes."
        raise InvalidValue.of(error, origin=origin, next_step=hint) from None


def _check_keys(root: Any, at: Any) -> None:
    import yaml

    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, item in node.value:
                where = at(key.start_mark)
                if key.tag != "tag:yaml.org,2002:str":
                    raise InvalidValue("a key is not text", origin=where, next_step="Put the key in quotes.")
                if key.value in seen:
                    raise InvalidValue(f"the key {key.value!r:.80} appears twice", origin=where)
                seen.add(key.value)
                waiting.append(item)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
