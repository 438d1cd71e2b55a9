"""The one validator of names and paths, used wherever one enters: log, pull, server, client, lockfile."""

from __future__ import annotations

import difflib
import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from llmartifacts.errors import InvalidPath, InvalidReference, TooLarge
from llmartifacts.records.arguments import check_mapping, shown

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
ALIAS = r"[a-z0-9][a-z0-9._-]{0,127}"
LATEST = "latest"
DEFAULT_PROJECT = "default"
MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255
MAX_TAG_VALUE = 1024
MAX_TAGS = 256
MAX_VERSIONS = 999_999_999
"""Of one collection: `vN` has at most nine digits."""
MAX_NEAR = 10_000
"""Names that are compared with a mistyped one; comparing takes a while."""

_NAME = re.compile(NAME)
_ALIAS = re.compile(ALIAS)
_NUMBER = re.compile(r"v[1-9][0-9]{0,8}")
_LIKE_NUMBER = re.compile(r"v[0-9]+")
_RESERVED_NAMES = frozenset({"sha256"})


def check_name(name: str, *, field: str = "name") -> str:
    """Check the name of a collection or a project, matched whole.

    Raises:
        InvalidReference: It is not `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, or it is `sha256`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidReference(
            f"{shown(name, 160)} is not a name",
            field=field,
            next_step="A name has 1 to 128 ASCII letters, digits, '.', '_' or '-', the first a letter or a digit.",
        )
    if name.lower() in _RESERVED_NAMES:
        raise InvalidReference(
            f"the name {name!r} is reserved",
            field=field,
            next_step="Write name@sha256:… for a version by its digest, or choose another name.",
        )
    return name


def check_alias(alias: str, *, field: str = "alias") -> str:
    """Check an alias that somebody wants to set.

    Raises:
        InvalidReference: It is malformed, looks like a version, or is the automatic `latest`.
    """
    if not is_alias(alias):
        raise InvalidReference(
            f"{shown(alias, 160)} is not an alias",
            field=field,
            next_step="An alias is like a name but in lower case, and never 'v' followed by digits only.",
        )
    if alias == LATEST:
        raise InvalidReference(
            "the alias 'latest' moves by itself and is never set by hand",
            field=field,
            next_step="Use another alias, such as prod or staging.",
        )
    return alias


def is_alias(text: str) -> bool:
    """Whether a selector has the form of an alias (`latest` included)."""
    return isinstance(text, str) and bool(_ALIAS.fullmatch(text)) and not _LIKE_NUMBER.fullmatch(text)


def version_number(text: str) -> int | None:
    """The number in `vN`, or None if the text is no version selector."""
    return int(text[1:]) if _NUMBER.fullmatch(text) else None


def check_tag(key: str, value: str, *, field: str = "tags") -> tuple[str, str]:
    """Check one `key=value` label.

    Raises:
        InvalidReference: The key is not a name, or the value is no printable text of at most 1,024 characters.
    """
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise InvalidReference(
            f"{shown(key, 160)} is not a tag key", field=field, next_step="A tag key is like a name."
        )
    if not isinstance(value, str) or len(value) > MAX_TAG_VALUE or not value.isprintable():
        raise InvalidReference(
            f"the value of tag {key!r} is not printable text of at most {MAX_TAG_VALUE} characters",
            field=f"{field}.{key}",
            next_step="Put long or multi-line text into the message.",
        )
    return key, value


def check_tags(tags: Any, *, field: str = "tags") -> dict[str, str]:
    """Check the labels of one call; None is none.

    Raises:
        InvalidInput: They are no mapping.
        InvalidReference: As `check_tag`.
        TooLarge: There are more than 256.
    """
    given = check_mapping(tags, field=field)
    refuse_too_many_tags(len(given), field=field)
    return dict(check_tag(k, v, field=field) for k, v in given.items())


def refuse_too_many_tags(count: int, *, field: str = "tags") -> None:
    """Raises `TooLarge` beyond 256: they are read whenever their version is."""
    if count > MAX_TAGS:
        raise TooLarge(
            f"{count} tags, the limit of one version is {MAX_TAGS}",
            field=field,
            next_step="Put what is not filtered by into the message, or into a file.",
        )


def check_path(path: str, *, field: str = "path") -> str:
    """Check one file path of an artifact.

    Raises:
        InvalidPath: It is absolute, climbs, is not NFC, or holds characters that some system reads otherwise.
    """
    problem = _path_problem(path)
    if problem:
        raise InvalidPath(f"the path {path!r:.200} {problem}", field=field)
    return path


def check_paths(paths: Iterable[str], *, field: str = "files") -> None:
    """Check all file paths of one artifact: each by itself, no doubles, no case clash, no file that is a folder.

    Raises:
        InvalidPath: As `check_path`, or two paths would meet on a file system that ignores case.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for i, path in enumerate(paths):
        where = f"{field}[{i}].path"
        check_path(path, field=where)
        folded = path.casefold()
        if folded in seen:
            what = "appears twice" if seen[folded] == path else f"differs from {seen[folded]!r} in case only"
            raise InvalidPath(f"the path {path!r} {what}", field=where)
        seen[folded] = path
        while "/" in folded:
            folded, _, _ = folded.rpartition("/")
            path = path.rpartition("/")[0]
            known = folders.setdefault(folded, path)
            if known != path:
                raise InvalidPath(f"the folder {path!r} differs from {known!r} in case only", field=where)
            if known is not path:
                break
    for folder in folders:
        if folder in seen:
            raise InvalidPath(f"the path {seen[folder]!r} is both a file and a folder", field=field)


def _path_problem(path: object) -> str:
    if not isinstance(path, str) or not path:
        return "is empty"
    if not path.isascii():
        if any("\ud800" <= c <= "\udfff" for c in path):
            return "holds a lone surrogate"
        if unicodedata.normalize("NFC", path) != path:
            return "is not in Unicode normal form NFC"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in path):
        return "holds a control or invisible character"
    if "\\" in path or ":" in path:
        return "holds a backslash or a colon, which other systems read as a separator"
    if path.startswith("/"):
        return "is absolute"
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            return f"has the segment {segment!r}"
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            return f"has a segment longer than {MAX_SEGMENT_BYTES} bytes"
        if segment.endswith(".") or segment != segment.strip():
            return f"has the segment {segment!r}, which ends in a dot or has a space at an end"
    return ""


def did_you_mean(name: object, known: Iterable[str], otherwise: str = "") -> str:
    """`Did you mean …?` with the near names, for the `next_step` of an error; if none is near, another hint."""
    near = near_names(str(name), known)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise


def near_names(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Known names that look like a mistyped one, best first; another case of the same name always comes first."""
    by_fold: dict[str, str] = {}
    for candidate in itertools.islice(known, MAX_NEAR):
        by_fold.setdefault(candidate.casefold(), candidate)
    close = difflib.get_close_matches(name.casefold(), by_fold, n=limit, cutoff=0.6)
    return tuple(by_fold[c] for c in close)
