"""Where chunks are, as a client knows it: in the virtual objects of a server, and in small packs kept beside the cache.

A virtual object stands for the pack of one blob: it is called after the blob, and a table says what lies where in it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmartifacts.blobs.chunks.entries import ID_BYTES, Entries
from llmartifacts.blobs.chunks.index import ChunkIndex, NewPack
from llmartifacts.blobs.chunks.overlay import Overlay
from llmartifacts.blobs.chunks.pack import Footer, Place
from llmartifacts.blobs.chunks.table import Rows, footer_of, tag_of
from llmartifacts.records.digest import Digest
from llmartifacts.records.forks import renew_after_fork

_TABLES = 64
"""Virtual objects that are known at once; one that is forgotten is asked for again."""
_ID = f"S{ID_BYTES}"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What lies where in the virtual object of a blob.

    Attributes:
        tag: Tells it from another of the same blob.
        chunks: The chunks.
    """

    tag: str
    chunks: Overlay


class RemoteIndex(ChunkIndex):
    """The chunks of the blobs that were asked for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._sides = Overlay()
        self._files: dict[str, Path] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Have a lock of its own in a forked child; a change that another thread was in the middle of does no harm."""
        self._lock = threading.Lock()

    def add_table(self, digest: Digest, rows: Rows) -> None:
        """Know the virtual object of a blob."""
        name, footer = digest[7:], footer_of(rows)
        size = int(footer["offset"][-1] + footer["stored"][-1]) if len(footer) else 0
        table = Table(tag_of(rows), Overlay().extended([(name, size, footer)]))
        with self._lock:
            self._tables[name] = table
            self._tables.move_to_end(name)
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)

    def add_side(self, name: str, file: Path, footer: Footer) -> None:
        """Know a small pack that lies in a file."""
        with self._lock:
            sides = self._sides
            if name not in self._files:
                sides = sides.extended([(name, file.stat().st_size, footer)])
            self._files[name] = file  # first: nothing is found in a pack without a file
            self._sides = sides

    def forget(self, name: str) -> None:
        """Forget a virtual object, by the hex digits of its blob, or a small pack."""
        with self._lock:
            self._tables.pop(name, None)
            if name in self._files:
                self._sides = self._sides.kept(self._sides.packs.keys() - {name})
                del self._files[name]

    def side(self, name: str) -> Path | None:
        """The file of a small pack."""
        return self._files.get(name)

    def table(self, name: str) -> Table | None:
        """The virtual object of a blob, by its hex digits."""
        return self._tables.get(name)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known; on this host, if they are."""
        with self._lock:
            overlays = [self._sides, *(table.chunks for table in reversed(self._tables.values()))]
        found: dict[bytes, Place] = {}
        rest = ids
        for overlay in overlays:
            if not rest:
                break
            found |= overlay.find(rest)
            rest = [name for name in rest if name not in found]
        return found

    def add(self, packs: Sequence[NewPack]) -> None:
        """Nothing is published from here."""
        raise NotImplementedError

    def remove(self, packs: Iterable[str]) -> None:
        """Nothing is removed from here."""
        raise NotImplementedError

    def packs(self) -> dict[str, int]:
        """Name -> bytes of every pack that is known."""
        with self._lock:
            made = dict(self._sides.packs)
            for table in self._tables.values():
                made |= table.chunks.packs
        return made

    def refresh(self) -> None:
        """A blob whose chunks are not known has to be asked for again; nothing is looked for here."""


class ParentIndex(ChunkIndex):
    """The chunks of some blobs of one project: what a new blob may rely on there.

    Args:
        inner: Knows where they are.
    """

    def __init__(self, inner: RemoteIndex) -> None:
        self._inner = inner
        self._allowed: Any = np.zeros(0, _ID)

    def allow(self, entries: Entries) -> None:
        """The chunks of one more blob."""
        ids = np.ascontiguousarray(entries["id"]).view(_ID)
        self._allowed = np.unique(np.concatenate([self._allowed, ids]))

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that may be relied on; where one is not known by now, a place that nothing is read from."""
        if not ids or not len(self._allowed):
            return {}
        wanted = np.frombuffer(b"".join(ids), _ID)
        at = np.minimum(np.searchsorted(self._allowed, wanted), len(self._allowed) - 1)
        names = [ids[hit] for hit in np.flatnonzero(self._allowed[at] == wanted).tolist()]
        found = self._inner.find(names)
        return found if len(found) == len(names) else {name: found.get(name, _NOWHERE) for name in names}

    def add(self, packs: Sequence[NewPack]) -> None:
        """Nothing is published from here."""
        raise NotImplementedError

    def remove(self, packs: Iterable[str]) -> None:
        """Nothing is removed from here."""
        raise NotImplementedError

    def packs(self) -> dict[str, int]:
        """Name -> bytes of every pack that is known."""
        return self._inner.packs()

    def refresh(self) -> None:
        """Nothing is looked for here."""


NOWHERE = "0" * 64
_NOWHERE = Place(NOWHERE, 0, 0, 0, 0)
