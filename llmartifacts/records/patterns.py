"""Patterns of aliases: which ones a grant is for, and which ones are protected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from llmartifacts.errors import InvalidInput, TooLarge
from llmartifacts.records.arguments import shown

MAX_PATTERNS = 64
_PATTERN = re.compile(r"!?[a-z0-9*?][a-z0-9._*?-]{0,127}")


def alias_matches(patterns: Sequence[str], alias: str) -> bool:
    """Whether an alias is among those that patterns name.

    Args:
        patterns: `*` stands for any characters and `?` for one; those that begin with `!` leave out, wherever they
            stand.
        alias: The alias, in lower case.

    Example:
        >>> alias_matches(("*", "!prod"), "staging"), alias_matches(("*", "!prod"), "prod")
        (True, False)
    """
    if any(p.startswith("!") and fnmatchcase(alias, p[1:]) for p in patterns):
        return False
    return any(not p.startswith("!") and fnmatchcase(alias, p) for p in patterns)


def check_patterns(patterns: object, *, field: str = "aliases") -> tuple[str, ...]:
    """Check patterns of aliases.

    Returns:
        The patterns, each once, in the order given.

    Raises:
        InvalidInput: They are none, or some are malformed, or all of them leave out.
        TooLarge: There are more than 64.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    if not isinstance(patterns, list | tuple) or not patterns:
        raise InvalidInput("no patterns of aliases", field=field, next_step="Any alias is '*'.")
    if len(patterns) > MAX_PATTERNS:
        raise TooLarge(f"{len(patterns)} patterns of aliases, the limit is {MAX_PATTERNS}", field=field)
    for pattern in patterns:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            raise InvalidInput(
                f"{shown(pattern, 140)} is no pattern of aliases",
                field=field,
                next_step="Write an alias in lower case, with * for any characters and ? for one; ! first leaves out.",
            )
    if all(p.startswith("!") for p in patterns):
        raise InvalidInput(
            f"the patterns {' '.join(patterns)} only leave out, so no alias is left",
            field=field,
            next_step=f"Any but these: '*' {' '.join(repr(p) for p in patterns)}.",
        )
    return tuple(dict.fromkeys(patterns))
