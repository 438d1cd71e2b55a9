"""What lies in all packs, in little memory: for counting, and for finding out what no recipe needs.

Chunks are told apart by the first 8 bytes of their ids. Two that agree there by chance would be taken for one: then a
chunk is kept that nobody needs, and never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.base import Driver, read_up_to
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.entries import Entries
from llmartifacts.blobs.chunks.pack import FOOTER, Footer
from llmartifacts.blobs.chunks.recipe import MAX_BYTES, Recipe
from llmartifacts.blobs.chunks.store import ChunkStore
from llmartifacts.blobs.forms import RECIPE, BadForm, key_of
from llmartifacts.errors import Damaged
from llmartifacts.records.digest import Digest

Short: TypeAlias = npt.NDArray[np.uint64]
"""First 8 bytes of the ids of chunks."""
_SUM = 32


def short_ids(entries: Entries | Footer) -> Short:
    """The first 8 bytes of each id, in order."""
    return np.ascontiguousarray(entries["id"]).view(np.uint64)[::4]


def union(parts: Sequence[Short]) -> Short:
    """All of them, each once, sorted."""
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def among(values: Short, known: Short) -> npt.NDArray[np.bool_]:
    """For each value, whether it is among sorted ones."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Every stored pack and what is in it.

    Attributes:
        names: Names of the packs, those of the index first, in its order.
        sizes: Bytes of each.
        ids: Of every chunk in any of them, the first 8 bytes of its id.
        pack: For each chunk, the number of its pack.
        stored: For each chunk, bytes that it takes there.
        damaged: Name of a pack that cannot be read -> what is wrong with it; nothing is known of what it holds.
        staged: Those that are not stored yet.
    """

    names: list[str]
    sizes: list[int]
    ids: Short
    pack: npt.NDArray[np.int32]
    stored: npt.NDArray[np.int64]
    damaged: Mapping[str, str]
    staged: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes of all packs."""
        return sum(self.sizes)

    def unneeded(self, live: Short) -> int:
        """Bytes of chunks that are not among those that are needed, their rows in the footers included."""
        stale = ~among(self.ids, live)
        return int(self.stored[stale].sum()) + FOOTER.itemsize * int(stale.sum())


def survey(driver: Driver, order: Iterable[str] = (), more: Mapping[str, tuple[int, Footer]] | None = None) -> Survey:
    """Look at every stored pack.

    Args:
        driver: Where they are.
        order: Names in the order to give them in; others come after them.
        more: Packs that are not stored yet: name -> bytes and footer.

    Raises:
        Unreachable: The store cannot be read.
    """
    found = {name: size for key, size in driver.list("packs/") if (name := packs.parse_key(key)) is not None}
    names = [name for name in dict.fromkeys(order) if name in found]
    names += sorted(found.keys() - set(names))
    ids, numbers, stored = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    sizes, damaged = [], {}
    fresh = {name: entry for name, entry in (more or {}).items() if name not in found}
    for number, name in enumerate((*names, *fresh)):
        if name in fresh:
            size, footer = fresh[name]
        else:
            size = found[name]
            try:
                footer = read_footer(driver, name, size)
            except (BadForm, Damaged) as error:
                damaged[name] = str(error)
                footer = np.zeros(0, FOOTER)
        sizes.append(size)
        ids.append(short_ids(footer))
        numbers.append(np.full(len(footer), number, np.int32))
        stored.append(footer["stored"].astype(np.int64))
    joined: Any = np.concatenate
    return Survey([*names, *fresh], sizes, joined(ids), joined(numbers), joined(stored), damaged, frozenset(fresh))


def read_footer(driver: Driver, name: str, size: int) -> Footer:
    """The footer of a stored pack. Raises `BadForm`, and as the driver does."""
    key = packs.key_of(name)
    return packs.read_footer(name, size, packs.reader_of(lambda at, length: driver.get(key, at, length)))


def read_recipe(chunks: ChunkStore, digest: Digest) -> tuple[Recipe, bytes]:
    """The recipe of a blob, all of it verified, and its checksum.

    Raises:
        BadForm: It is damaged.
        Damaged: It is not there, or its chunks are not.
        NewerFormat: A newer release wrote it.
    """
    key = key_of(digest, RECIPE)
    with chunks.driver.get(key) as stored:
        data = read_up_to(stored, MAX_BYTES)
    return chunks.recipe(data, origin=chunks.driver.where(key), verify=True), data[-_SUM:]


def checksum(driver: Driver, digest: Digest) -> bytes:
    """The last bytes of a stored recipe, which tell it from others. Raises `BlobMissing`."""
    key = key_of(digest, RECIPE)
    with driver.get(key, max(0, (driver.size(key) or 0) - _SUM)) as stored:
        return read_up_to(stored, _SUM)
