"""`RecordedIndex`: where each chunk lies, recorded in the metadata database, in the transaction of the version itself.

The rows are derived: `rebuild` makes them anew from the packs. A pack that is stored and not recorded, because the
index was lost or a process died between the two, is read by `refresh` and held in memory: reading needs no right to
write. The next version that relies on such a pack records it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.chunks.index import ChunkIndex, NewPack
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import Damaged
from llmartifacts.metadata import chunks, condemned
from llmartifacts.metadata.chunks import PackRow
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.forks import renew_after_fork

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.overlay import Overlay
    from llmartifacts.blobs.chunks.pack import Footer, Place


class RecordedIndex(ChunkIndex):
    """The chunk index of a registry. Safe to use from several threads.

    Args:
        store: The database that holds it.
        driver: Where the packs are.
    """

    def __init__(self, store: MetadataStore, driver: Driver) -> None:
        self._store = store
        self._driver = driver
        self._local = threading.local()
        self._lock = threading.Lock()
        self._looked: dict[str, int] = {}  # name -> size of packs whose footers were read, or found damaged
        self._overlay: Overlay | None = None
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Have a lock of its own in a forked child: another thread may have been reading footers."""
        self._lock = threading.Lock()

    @contextmanager
    def within(self, session: Session, *, relying: bool = True) -> Iterator[None]:
        """Work in a write transaction that is open in this thread; outside, each call has one of its own.

        Args:
            session: The transaction.
            relying: Whether what is found in it is what something begins to rely on: then its pack is no longer
                condemned. Only gc, which looks at everything, relies on nothing.
        """
        before = self._open_session(), self._sparing()
        self._local.session = session
        self._local.sparing = relying and condemned.any_of(session)
        try:
            yield
        finally:
            self._local.session, self._local.sparing = before

    # --- the index

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known.

        Inside `within`, a pack that was not recorded is recorded with the chunks that were asked for: a version that
        relies on them must not be the only one to know of them.
        """
        if not ids:
            return {}
        from llmartifacts.blobs.chunks.pack import Place

        with self._reading() as s:
            found = {
                name: Place(pack, offset, stored, length, form)
                for name, pack, offset, stored, length, form in chunks.find(s, ids)
            }
        overlay, session = self._overlay, self._open_session()
        if overlay is not None and len(found) < len(ids):
            more = overlay.find([name for name in ids if name not in found])
            if more and session is not None:
                more = self._record_overlaid(session, overlay, more)
            found |= more
        if session is not None and self._sparing():
            from llmartifacts.blobs.chunks.pack import key_of

            condemned.spare(session, [key_of(pack) for pack in dict.fromkeys(p.pack for p in found.values())])
        return found

    def add(self, packs: Sequence[NewPack]) -> None:
        """Record packs; a chunk that is known already is from now on found in the newer pack."""
        with self._writing() as s:
            for pack in packs:
                rows = ((name, (p.offset, p.stored, p.length, p.form)) for name, p in pack.chunks.items())
                chunks.record(s, PackRow(pack.name, pack.size, s.now()), rows)

    def remove(self, packs: Iterable[str]) -> None:
        """Forget packs and every chunk that is found in them."""
        gone = set(packs)
        with self._writing() as s:
            chunks.forget(s, gone)
        self._forget_overlaid(gone)

    def packs(self) -> dict[str, int]:
        """Name -> bytes of every pack that is recorded."""
        with self._reading() as s:
            return {pack.name: pack.size for pack in chunks.packs(s)}

    def refresh(self) -> None:
        """Read the footers of packs that are stored and not recorded, each once; writes nothing.

        Raises:
            Unreachable: The store cannot be read.
        """
        from llmartifacts.blobs.chunks import pack as packs
        from llmartifacts.blobs.chunks.overlay import Overlay

        with self._lock:
            stored = dict(self._stored())  # first: what is recorded meanwhile is not taken for left out
            for name in self.packs():
                stored.pop(name, None)
            fresh = {name: size for name, size in stored.items() if self._looked.get(name) != size}
            overlay = (self._overlay or Overlay()).kept(stored.keys() - fresh.keys())
            looked = {name: size for name, size in self._looked.items() if stored.get(name) == size}
            found: list[tuple[str, int, Footer]] = []
            for name, size in fresh.items():
                footer = self._footer(packs, name, size)
                looked[name] = size
                if not isinstance(footer, Damaged):
                    found.append((name, size, footer))
            overlay = overlay.extended(found)
            self._looked, self._overlay = looked, overlay if overlay.packs else None

    def rebuild(self) -> list[Damaged]:
        """Write the whole index anew from the packs alone, in one transaction.

        Of a chunk that several packs hold, the one in the newest is taken, as far as the old rows tell which that is,
        and as long as it can be read and is what its id says.

        Returns:
            Packs that are damaged, one error each. They were passed over: their chunks are not known any more.

        Raises:
            Unreachable: The store cannot be read; the index is as it was.
        """
        from llmartifacts.blobs.chunks import pack as packs

        problems: list[Damaged] = []
        with self._writing() as s:
            before = {pack.name: (number, pack) for number, pack in enumerate(chunks.packs(s))}
            chunks.clear(s)
            self._forget_overlaid(set(self._looked))
            last = len(before)
            for name, size in sorted(self._stored(), key=lambda p: (before[p[0]][0] if p[0] in before else last, p[0])):
                footer = self._footer(packs, name, size)
                if isinstance(footer, Damaged):
                    problems.append(footer)
                    continue
                at = before[name][1].created_at if name in before else s.now()
                found = packs.places(name, footer)
                worse = self._unsound_again(s, found)
                rows = ((i, (p.offset, p.stored, p.length, p.form)) for i, p in found.items() if i not in worse)
                chunks.record(s, PackRow(name, size, at), rows)
        return problems

    # --- packs

    def _stored(self) -> Iterator[tuple[str, int]]:
        from llmartifacts.blobs.chunks import pack as packs

        for key, size in self._driver.list("packs/"):
            name = packs.parse_key(key)
            if name is not None:
                yield name, size

    def _footer(self, packs: Any, name: str, size: int) -> Footer | Damaged:
        key = packs.key_of(name)
        try:
            footer: Footer = packs.read_footer(
                name, size, packs.reader_of(lambda at, length: self._driver.get(key, at, length))
            )
        except BadForm as error:
            where = self._driver.where(key)
            return Damaged(f"the pack {where} is damaged: {error}", file=where)
        except Damaged as error:
            return error
        return footer

    def _unsound_again(self, s: Session, found: dict[bytes, Place]) -> set[bytes]:
        """Of the chunks of a pack, those that are recorded in another already and are not what their id says here."""
        doubled = [name for name, pack, *_ in chunks.find(s, list(found)) if pack != found[name].pack]
        if not doubled:
            return set()
        import blake3

        from llmartifacts.blobs.chunks.reader import ChunkReader

        reader = ChunkReader(self._driver, self)

        def sound(name: bytes) -> bool:
            try:
                return blake3.blake3(reader.chunk(name, found[name])).digest() == name
            except (BadForm, Damaged):
                return False

        return {name for name in doubled if not sound(name)}

    # --- what is not recorded

    def _record_overlaid(self, s: Session, overlay: Overlay, found: dict[bytes, Place]) -> dict[bytes, Place]:
        """Record the packs of some places; those in a pack that has been removed meanwhile are left out."""
        from llmartifacts.blobs.chunks import pack as packs

        gone = set()
        for name in dict.fromkeys(place.pack for place in found.values()):
            size = self._driver.size(packs.key_of(name))
            if size is None or size != overlay.packs[name]:
                gone.add(name)
                continue
            rows = overlay.chunks_of(name)
            known = {i for i, *_ in chunks.find(s, [i for i, _ in rows])}
            chunks.record(s, PackRow(name, size, s.now()), (row for row in rows if row[0] not in known))
        return {name: place for name, place in found.items() if place.pack not in gone}

    def _forget_overlaid(self, gone: set[str]) -> None:
        with self._lock:
            self._looked = {name: size for name, size in self._looked.items() if name not in gone}
            if self._overlay is not None:
                kept = self._overlay.kept(self._overlay.packs.keys() - gone)
                self._overlay = kept if kept.packs else None

    # --- transactions

    def _sparing(self) -> bool:
        return bool(getattr(self._local, "sparing", False))

    def _open_session(self) -> Session | None:
        session: Session | None = getattr(self._local, "session", None)
        return session

    def _reading(self) -> AbstractContextManager[Session]:
        session = self._open_session()
        return self._store.reading() if session is None else nullcontext(session)

    def _writing(self) -> AbstractContextManager[Session]:
        session = self._open_session()
        return self._store.writing() if session is None else nullcontext(session)
