"""What goes wrong with PostgreSQL, as typed errors that say what to do, and say no password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from llmartifacts.errors import (
    Busy,
    Damaged,
    DeadlineExceeded,
    InvalidInput,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    Unreachable,
)

_BACKUP = "Restore the database from a backup."
_AGAIN = "Nothing of it was kept; try again."
_NO_TABLE = "42P01"


@contextmanager
def postgres_errors(place: str) -> Iterator[None]:
    """Turn whatever a transaction on PostgreSQL raises into a typed error.

    Args:
        place: The database, as it may be shown.

    Raises:
        Busy: Another writer holds it, or the server has no connection left.
        NotFound: It is no registry, or there is no such database.
        Damaged: It holds what no release writes, or its files are damaged.
        NotAllowed: Its user may not do this, or it cannot be written.
        DeadlineExceeded: A statement took longer than it may.
        Unreachable: The server cannot be had, or the connection was lost; nothing was kept.
    """
    try:
        yield
    except LlmartifactsError:
        raise
    except psycopg.Error as error:
        # Its details quote stored values, and a traceback in a log would too.
        raise typed(place, error) from (None if error.diag.message_detail else error)
    except (LookupError, OverflowError, ValueError) as error:
        # Arguments were checked before; a database that was changed by hand can hold what no release writes.
        raise _contradiction(place, f"{type(error).__name__}: {error}") from error


def is_lost(connection: psycopg.Connection[Any], error: BaseException) -> bool:
    """Whether an error means that its connection is gone."""
    state = getattr(error, "sqlstate", None) or ""
    # What psycopg itself raises has no state: a socket that hung up, before the connection is told to be closed.
    cut = isinstance(error, psycopg.OperationalError) and not state
    return cut or connection.closed or state.startswith(("08", "57P")) or state == "25P03"


def unknown_outcome(place: str) -> Unreachable:
    """The error for a connection that was lost while its transaction was being committed."""
    return Unreachable(
        f"the connection to {place} was lost while a change was being committed: whether it was is not known",
        field="registry",
        next_step="Send it again with the same idempotency key, or look first: it may have happened.",
    )


def typed(place: str, error: psycopg.Error) -> LlmartifactsError:
    """The typed error of one of psycopg's.

    Args:
        place: The database, as it may be shown.
        error: What psycopg raised.
    """
    state, said = error.sqlstate or "", _said(error)
    made = _by_state(place, state, said) if state else None
    if made is not None:
        return made
    if isinstance(error, psycopg.OperationalError):  # no answer from a server, or the last one was cut off
        return _no_server(place, said)
    if isinstance(error, psycopg.DataError) and not state:  # psycopg's own: what cannot be sent at all
        return InvalidInput(f"what was given cannot be stored: {said}")
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError):
        return _contradiction(place, said)
    return Unreachable(f"the database {place} failed: {said}", next_step="Look at the log of the server.")


def _by_state(place: str, state: str, said: str) -> LlmartifactsError | None:
    kind = state[:2]
    if state == "55P03":
        return Busy(f"{place} stayed locked by another writer", field="registry")
    if state in ("40001", "40P01"):
        return Busy(f"{place}: {said}", field="registry", next_step=_AGAIN)
    if kind == "53":
        return _no_resources(place, state, said)
    if state == "57014":
        return DeadlineExceeded(f"{place}: {said}", next_step=_AGAIN)
    if kind in ("08", "57") or state == "25P03":
        return Unreachable(f"{place}: {said}", next_step=_AGAIN)
    if kind == "28":
        return NotAllowed(f"{place}: {said}", field="database", next_step="Look at the user and password of its URL.")
    if state == "3D000":
        step = "Make it: createdb."
        return NotFound(f"{place}: {said}", what="database", name=place, next_step=step)
    if state in ("42501", "25006") or (state == "0A000" and "recovery" in said):
        return _not_permitted(place, state, said)
    if state == _NO_TABLE and '"meta"' in said:
        return NotFound(f"{place} is no registry: {said}", what="registry", name=place)
    if kind in ("58", "XX"):
        return Damaged(f"the database {place} failed: {said}", file=place, next_step=f"Look at its log. {_BACKUP}")
    return None


def _no_resources(place: str, state: str, said: str) -> LlmartifactsError:
    if state == "53100":
        step = "Free some space there and try again; nothing was left half-written."
        return NotAllowed(f"{place} cannot be written: {said}", field="database", next_step=step)
    if state == "53300":
        step = "Try again in a moment; if it stays, raise max_connections there, or run fewer processes."
        return Busy(f"{place} has no connection left: {said}", field="database", next_step=step)
    return Unreachable(f"{place}: {said}", next_step=_AGAIN)


def _not_permitted(place: str, state: str, said: str) -> NotAllowed:
    step = "Let the user of the URL own the database, or grant it what is missing (GRANT CREATE, USAGE ON SCHEMA …)."
    if state != "42501":
        step = "Name the primary, or several hosts with target_session_attrs=read-write."
    return NotAllowed(f"{place}: {said}", field="database", next_step=step)


def _no_server(place: str, said: str) -> LlmartifactsError:
    # While it connects, the server's refusals come as text alone.
    if "authentication failed" in said or "no password supplied" in said or "no pg_hba.conf entry" in said:
        return NotAllowed(f"{place}: {said}", field="database", next_step="Look at the user and password of its URL.")
    if "does not exist" in said and "database" in said:
        return NotFound(f"{place}: {said}", what="database", name=place, next_step="Make it: createdb.")
    if "too many clients" in said or "remaining connection slots" in said:
        return _no_resources(place, "53300", said)
    step = "See that PostgreSQL runs there, and that it can be reached from here."
    return Unreachable(f"the database {place} cannot be had: {said}", next_step=step)


def _contradiction(place: str, said: str) -> Damaged:
    return Damaged(
        f"the database {place} holds what no release writes: {said}",
        file=place,
        next_step=f"See what is wrong with `llmartifacts verify`. {_BACKUP}",
    )


def _said(error: psycopg.Error) -> str:
    """The server's own sentence: its details quote stored values, which may be anybody's."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(text.split())[:300]
