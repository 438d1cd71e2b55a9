"""Many rows at once: a database that is a file of this process may keep more of it in memory meanwhile.

What is keyed by a digest is strewn over the whole of its index. With the little memory that a connection has otherwise,
a transaction of some thousand rows writes most pages of a large index out and reads them back, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata.database import Database

_SQLITE = "without rowid"
MEMORY = 96 * 1024
"""KiB of pages that are kept."""


@contextmanager
def many_rows(database: Database) -> Iterator[None]:
    """Make many changes in this thread; a database on a server has its own memory, and is left alone.

    Args:
        database: The database. No transaction of this thread is open.
    """
    if database.types["keyed"] != _SQLITE:
        yield
        return
    with database.reading() as s:
        row = s.row("pragma cache_size")
        s.run(f"pragma cache_size=-{MEMORY}")
    try:
        yield
    finally:
        with suppress(LlmartifactsError), database.reading() as s:
            s.run(f"pragma cache_size={int(row[0]) if row else -2000}")
            s.run("pragma shrink_memory")
