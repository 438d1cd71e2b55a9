"""What nothing needs and what is not deleted yet: keys of the store, each with the time at which gc condemned it.

Whoever relies on one of them again takes it off the list, in the transaction in which it begins to; and gc itself,
which looks at all that is needed, takes off what is needed after all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmartifacts.metadata.database import Session


def all_of(s: Session) -> dict[str, int]:
    """Every condemned key -> when it was condemned, in microseconds since 1970, UTC."""
    return {row[0]: int(row[1]) for row in s.rows("select key, at from condemned")}


def any_of(s: Session) -> bool:
    """Whether anything is condemned."""
    return s.row("select 1 from condemned limit 1") is not None


def replace(s: Session, waiting: Mapping[str, tuple[int, int]]) -> None:
    """Let exactly these be condemned.

    Args:
        s: A write transaction.
        waiting: Key -> when it was condemned, and its bytes.
    """
    before = all_of(s)
    s.run_many("delete from condemned where key = :k", [{"k": key} for key in before.keys() - waiting.keys()])
    s.run_many(
        "insert into condemned(key, at, size) values (:k, :at, :n)"
        " on conflict(key) do update set at = excluded.at, size = excluded.size",
        [{"k": key, "at": at, "n": size} for key, (at, size) in waiting.items() if before.get(key) != at],
    )


def spare(s: Session, keys: Iterable[str]) -> list[str]:
    """Take keys off the list; returns those that were on it."""
    found = []
    for key in keys:
        row = s.row("delete from condemned where key = :k returning key", {"k": key})
        if row is not None:
            found.append(str(row[0]))
    return found
