"""Where each chunk lies: the socket for the index, and the one that is made from the packs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmartifacts.blobs.base import Driver
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import Damaged

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.pack import Place


@dataclass(frozen=True, slots=True)
class NewPack:
    """A pack that is stored and not in the index yet.

    Attributes:
        name: Its name.
        size: Bytes of the file.
        chunks: Id -> place of every chunk in it.
    """

    name: str
    size: int
    chunks: Mapping[bytes, Place]


class ChunkIndex(Protocol):
    """Id of a chunk -> its place. Derived: it can be made anew from the packs. Safe to use from several threads."""

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known."""

    def add(self, packs: Sequence[NewPack]) -> None:
        """Record packs; a chunk that is known already is from now on found in the newer pack."""

    def remove(self, packs: Iterable[str]) -> None:
        """Forget packs and every chunk that is found in them."""

    def packs(self) -> dict[str, int]:
        """Name -> bytes of every pack that is recorded."""

    def refresh(self) -> None:
        """Look for packs that are stored and not recorded: somebody else's, or an index that was lost."""


class PackIndex(ChunkIndex):
    """An index in memory, made from the packs' footers; for a store that stands alone.

    Args:
        driver: Where the packs are.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._places: dict[bytes, Place] = {}
        self._packs: dict[str, int] = {}
        self._looked = False

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known."""
        if not self._looked:
            self.refresh()
        return {name: self._places[name] for name in ids if name in self._places}

    def add(self, packs: Sequence[NewPack]) -> None:
        """Record packs."""
        for pack in packs:
            self._packs[pack.name] = pack.size
            self._places.update(pack.chunks)

    def remove(self, packs: Iterable[str]) -> None:
        """Forget packs."""
        gone = set(packs)
        self._packs = {name: size for name, size in self._packs.items() if name not in gone}
        self._places = {name: place for name, place in self._places.items() if place.pack not in gone}

    def packs(self) -> dict[str, int]:
        """Name -> bytes of every pack."""
        if not self._looked:
            self.refresh()
        return dict(self._packs)

    def refresh(self) -> None:
        """Read the footers of packs that are not recorded; one that is damaged is passed over."""
        from llmartifacts.blobs.chunks import pack as packs

        stored = {packs.parse_key(key) for key, _ in self._driver.list("packs/")} if self._packs else set()
        if self._packs.keys() - stored:  # what they held may lie in another pack, that was passed over for them
            self._packs, self._places = {}, {}
        self.add(unrecorded(self._driver, self._packs))
        self._looked = True


def unrecorded(driver: Driver, known: Mapping[str, int]) -> list[NewPack]:
    """Stored packs that an index does not know, from their footers; damaged ones are passed over."""
    from llmartifacts.blobs.chunks import pack as packs

    found = []
    for key, size in driver.list("packs/"):
        name = packs.parse_key(key)
        if name is None or name in known:
            continue
        try:
            footer = packs.read_footer(name, size, packs.reader_of(lambda at, n, key=key: driver.get(key, at, n)))
        except (BadForm, Damaged):
            continue
        found.append(NewPack(name, size, packs.places(name, footer)))
    return found
