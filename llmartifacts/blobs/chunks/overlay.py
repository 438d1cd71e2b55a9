"""Chunks of packs that are stored and not recorded, in memory: 64 bytes each, so that a lost index of millions fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks.entries import ID_BYTES, ids_of
from llmartifacts.blobs.chunks.pack import FOOTER, Footer, Place

_ID = f"S{ID_BYTES}"  # sorts as bytes; that it drops zeros at the end does no harm among ids of one length


class Overlay:
    """Footers of packs, in the order of the ids. Never changed: what adds or removes gives a new one.

    Attributes:
        packs: Name -> bytes of each pack.
    """

    def __init__(
        self,
        packs: Mapping[str, int] | None = None,
        rows: Footer | None = None,
        pack: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self.packs = dict(packs or {})
        self._names = list(self.packs)
        self._rows = np.zeros(0, FOOTER) if rows is None else rows
        self._pack = np.zeros(0, np.int32) if pack is None else pack
        self._ids = np.ascontiguousarray(self._rows["id"]).view(_ID)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Place]:
        """Places of those that are known."""
        if not ids or not len(self._ids):
            return {}
        wanted = np.frombuffer(b"".join(ids), _ID)
        at = np.searchsorted(self._ids, wanted, side="right") - 1  # of equal ones the last, which came last
        hits = np.flatnonzero((at >= 0) & (self._ids[at] == wanted))
        return dict(zip((ids[hit] for hit in hits.tolist()), self._places(at[hits]), strict=True))

    def chunks_of(self, name: str) -> list[tuple[bytes, tuple[int, int, int, int]]]:
        """Id and offset, stored bytes, bytes and form of every chunk in a pack."""
        rows = np.flatnonzero(self._pack == self._names.index(name))
        numbers = ((p.offset, p.stored, p.length, p.form) for p in self._places(rows))
        return list(zip(ids_of(self._rows[rows]), numbers, strict=True))

    def kept(self, names: AbstractSet[str]) -> Overlay:
        """The same with only some of the packs."""
        if names >= self.packs.keys():
            return self
        numbers = [number for number, name in enumerate(self._names) if name in names]
        renumber = np.full(len(self._names), -1, np.int32)
        renumber[numbers] = np.arange(len(numbers), dtype=np.int32)
        pack = renumber[self._pack]
        mask = pack >= 0
        return Overlay({self._names[n]: self.packs[self._names[n]] for n in numbers}, self._rows[mask], pack[mask])

    def extended(self, footers: Sequence[tuple[str, int, Footer]]) -> Overlay:
        """The same with more packs: name, bytes and footer of each."""
        if not footers:
            return self
        packs = {**self.packs, **{name: size for name, size, _ in footers}}
        number = {name: at for at, name in enumerate(packs)}
        rows = np.concatenate([self._rows, *(footer for *_, footer in footers)])
        added = [np.full(len(footer), number[name], np.int32) for name, _, footer in footers]
        pack = np.concatenate([self._pack, *added])
        order = np.argsort(np.ascontiguousarray(rows["id"]).view(_ID), kind="stable")
        return Overlay(packs, rows[order], pack[order])

    def _places(self, rows: npt.NDArray[np.intp]) -> list[Place]:
        found = self._rows[rows]
        names = (self._names[number] for number in self._pack[rows].tolist())
        columns = (found[name].tolist() for name in ("offset", "stored", "length", "form"))
        return [Place(*place) for place in zip(names, *columns, strict=True)]
