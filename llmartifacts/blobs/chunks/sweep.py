"""The bytes of gc: which packs go, which are worth rewriting, and their live chunks in new packs beside the store.

    mark       every recipe that is needed says which chunks live; unread, nothing is deleted
    recode     a blob whose chunks carry dead rows is encoded anew without them (`compact`)
    plan       packs with nothing live go; those less than half alive are rewritten, small ones are put together
    apply      new packs into the store and the index, then recipes; the old packs stay until `delete`

Nothing here knows versions or transactions: who calls says what is needed, and holds the lock while it applies.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import blake3
import numpy as np
import numpy.typing as npt

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.chunks.encode import codec_named, encode
from llmartifacts.blobs.chunks.entries import ID_BYTES, ids_of
from llmartifacts.blobs.chunks.pack import FOOTER, RAW, Footer, PackWriter, Place
from llmartifacts.blobs.chunks.reader import decompress
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.chunks.source import ViewSource
from llmartifacts.blobs.chunks.store import ChunkStore
from llmartifacts.blobs.chunks.survey import Short, Survey, among, checksum, read_footer, short_ids, survey, union
from llmartifacts.blobs.chunks.writer import Mark, StagedPack, same_bytes
from llmartifacts.blobs.disk import write_file
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RECIPE, BadForm, key_of
from llmartifacts.errors import BlobMissing, Damaged
from llmartifacts.records.digest import Digest

_AT_ONCE = 1 << 21
"""Ids that are collected before doubles among them are taken out."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A recipe that takes another's place; both make the same blob.

    Attributes:
        file: Where it lies.
        size: Its bytes.
        before: Bytes of the other.
    """

    file: Path
    size: int
    before: int


@dataclass
class Plan:
    """What is to be done with the packs.

    Attributes:
        survey: What was looked at.
        gone: Names of packs that go.
        made: Packs that take their place, in files.
        dead: Name of each pack that nothing is read from any more -> how many of its chunks nobody needs.
        left: Bytes in packs that nobody needs, and that stay.
    """

    survey: Survey
    gone: list[str]
    made: list[StagedPack]
    dead: Mapping[str, int]
    left: int

    @property
    def chunks(self) -> int:
        """How many chunks go."""
        return sum(self.dead[name] for name in self.gone)

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the packs that go."""
        stored = self._stored
        return {name: stored[name] for name in self.gone}

    @property
    def before(self) -> int:
        """Bytes of all packs now."""
        return sum(self._stored.values())

    @property
    def after(self) -> int:
        """Bytes of all packs afterwards."""
        away = {*self.gone, *(pack.name for pack in self.made)}
        kept = sum(size for name, size in self._stored.items() if name not in away)
        return kept + sum(pack.size for pack in self.made)

    @property
    def _stored(self) -> dict[str, int]:
        sizes = zip(self.survey.names, self.survey.sizes, strict=True)
        return {name: size for name, size in sizes if name not in self.survey.staged}


@dataclass
class Sweep:
    """One collection of a store's chunks.

    Args:
        chunks: The store.
        new_file: Gives paths for new files, on the store's file system.
        compact: Rewrite every pack with a chunk that nobody needs.
        lean: Rewrite none, for want of room.

    Attributes:
        switches: Blob -> the recipe that takes its recipe's place.
        dead: Bytes of dead rows that go with that.
        missing: Chunks that are needed, and in no pack that can be read.
    """

    chunks: ChunkStore
    new_file: Callable[[], Path]
    compact: bool = False
    lean: bool = False
    switches: dict[Digest, Switch] = field(default_factory=dict)
    dead: int = 0
    missing: Short = field(default_factory=lambda: np.zeros(0, np.uint64))
    _read: dict[Digest, bytes] = field(default_factory=dict)
    _live: list[Short] = field(default_factory=list)
    _whole: list[Short] = field(default_factory=list)
    _made: dict[Digest, Recipe] = field(default_factory=dict)
    _plan: Plan | None = None

    def __post_init__(self) -> None:
        self._writer = self.chunks.writer(self.new_file)

    def close(self) -> None:
        """Let go of open files."""
        self._writer.close()

    @property
    def plan(self) -> Plan:
        """What is to be done; made when it is first asked for."""
        if self._plan is None:
            self._plan = self._planned()
        return self._plan

    # --- mark

    def mark(self, digest: Digest, recipe: Recipe, sum_: bytes) -> None:
        """A recipe that is needed, as it was read, and its checksum."""
        self._read[digest] = sum_
        self._add(recipe)

    def recode(self, digest: Digest, recipe: Recipe, sum_: bytes, content: Path) -> None:
        """Encode a blob anew, so that its chunks hold no dead rows, if that erases anything.

        Where each of its chunks with dead rows is in full use by another blob that was marked before, those rows are
        held by a version, and stay.

        Args:
            digest: The blob.
            recipe: Its recipe now.
            sum_: The checksum of that.
            content: Its verified content.
        """
        with storage_errors("read", content), open(content, "rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        writer, start = self._writer, self._writer.mark()
        made = self._clean(view, recipe, recipe)
        if made is not None:
            before, after = union([_rows(recipe)]), union([_rows(made)])
            stays = among(before, after)
            if among(before[~stays], union(self._whole)).all():
                writer.back(start)
                self._whole.append(before[stays])
                self.mark(digest, recipe, sum_)
                return
        data = self._smallest(view, recipe, made, start)
        target = self.new_file()
        with storage_errors("write", target):
            write_file(target, data)
        stored = recipes.read(data, lambda entries: b"".join(bytes(c) for c in writer.reader.read(entries)))
        size = self.chunks.driver.size(key_of(digest, RECIPE)) or 0
        self.switches[digest] = Switch(target, len(data), size)
        self.dead += recipe.encoded.dead
        self._made[digest] = stored
        self._read[digest] = sum_
        self._add(stored)

    def _add(self, recipe: Recipe) -> None:
        self._live.append(short_ids(recipe.entries()))
        if not recipe.encoded.dead:
            self._whole.append(_rows(recipe))
        for parts in (self._live, self._whole):
            if sum(map(len, parts[1:])) > _AT_ONCE:
                parts[:] = [union(parts)]

    def _smallest(self, view: memoryview, recipe: Recipe, made: Recipe | None, start: Mark) -> bytes:
        """The file of the recipe without dead rows that adds least: against itself, or against the one before it."""
        writer = self._writer
        before = self._made.get(recipe.parent) if recipe.parent else None
        if before is not None:
            added = writer.mark().added
            writer.back(start)
            other = self._clean(view, recipe, before)
            if other is None or (made is not None and writer.mark().added > added):
                writer.back(start)
                made = self._clean(view, recipe, recipe)
            else:
                made = other
        if made is None:  # then as a first version is: that has no dead rows either
            writer.back(start)
            made = encode(ViewSource(view), writer, writer.reader)[1]
        return self.chunks.write_recipe(made, writer)

    def _clean(self, view: memoryview, recipe: Recipe, parent: Recipe) -> Recipe | None:
        """What its codec makes of a blob when no dead row may stay; None where that does not work."""
        writer, start = self._writer, self._writer.mark()
        codec = codec_named(recipe.codec, recipe.version)
        try:
            encoded = codec.encode(ViewSource(view), writer, writer.reader, parent, 1.0)
            writer.finish()
            if encoded is not None and not encoded.dead:
                made = Recipe(codec.name, codec.version, len(view), encoded, recipe.parent)
                if _gives(codec.decode(made, writer.reader), view):
                    return made
        except (BadForm, Damaged, ValueError, LookupError, ArithmeticError):
            pass
        writer.back(start)
        return None

    # --- plan

    def _planned(self) -> Plan:
        self._writer.finish()
        self._writer.durable()
        live = union(self._live)
        self._live = [live]
        staged = {pack.name: pack for pack in self._writer.packs}
        footers = {name: (pack.size, _footer_of(pack)) for name, pack in staged.items()}
        look = survey(self.chunks.driver, self.chunks.index.packs(), footers)
        self._require_all(live, look)
        held = among(look.ids, live) & self._taken(look, live)
        count = len(look.names)
        alive = np.bincount(look.pack[held], look.stored[held], count)
        whole = np.bincount(look.pack, look.stored, count)
        kept_chunks = np.bincount(look.pack[held], minlength=count)
        chunks = np.bincount(look.pack, minlength=count)
        stale = kept_chunks < chunks
        rewrite = stale & (kept_chunks > 0) & ((2 * alive < whole) | self.compact)
        small = (kept_chunks > 0) & (np.array(look.sizes, np.int64) < packs.FULL // 2)
        if np.count_nonzero(small | rewrite) > 1:
            rewrite |= small
        rewrite &= not self.lean
        made = self._rewritten(look, np.flatnonzero(rewrite).tolist(), held, footers)
        made += [staged[look.names[n]] for n in np.flatnonzero(~rewrite).tolist() if look.names[n] in staged]
        names = {*look.staged, *(pack.name for pack in made)}
        going = (rewrite | (kept_chunks == 0)) & np.array([name not in names for name in look.names], np.bool_)
        gone = [look.names[number] for number in np.flatnonzero(going).tolist()]
        left = int(look.stored[~held & ~going[look.pack] & ~rewrite[look.pack]].sum())
        dead = (chunks - kept_chunks)[going].tolist()
        return Plan(look, gone, made, dict(zip(gone, dead, strict=True)), left)

    def _require_all(self, live: Short, look: Survey) -> None:
        """Refuse where a needed chunk is nowhere: it may be in a pack that cannot be read, or that comes back."""
        self.missing = live[~among(live, union([look.ids]))]
        if not len(self.missing):
            return
        if look.damaged:
            where = [self.chunks.driver.where(packs.key_of(name)) for name in look.damaged]
            told = "the pack is" if len(where) == 1 else f"{len(where)} packs are"
            what = next(iter(look.damaged.values()))
            raise Damaged(f"{told} damaged ({what}), and versions need what may be there: {where[0]}", file=where[0])
        raise BlobMissing(f"{len(self.missing)} chunks that versions need are in no pack of the store")

    def _taken(self, look: Survey, live: Short) -> npt.NDArray[np.bool_]:
        """For each chunk, whether its needed bytes are read from this pack; of several, the index says which."""
        taken = np.ones(len(look.ids), np.bool_)
        rows = np.flatnonzero(among(look.ids, live))
        order = rows[np.argsort(look.ids[rows], kind="stable")]
        same = look.ids[order[1:]] == look.ids[order[:-1]]
        doubled = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
        if not len(doubled):
            return taken
        holders: dict[bytes, list[tuple[int, str]]] = {}
        for number in np.unique(look.pack[doubled]).tolist():
            ids = self._ids_in(look, number)
            first = int(np.searchsorted(look.pack, number))
            for row in doubled[look.pack[doubled] == number].tolist():
                holders.setdefault(ids[row - first], []).append((row, look.names[number]))
        places = self._writer.reader.find(list(holders))
        for name, found in holders.items():
            place = places.get(name)
            chosen = next((row for row, pack in found if place and pack == place.pack), found[-1][0])
            for row, _ in found:
                taken[row] = row == chosen
        return taken

    def _ids_in(self, look: Survey, number: int) -> list[bytes]:
        name = look.names[number]
        own = next((pack for pack in self._writer.packs if pack.name == name), None)
        if own is not None:
            return ids_of(_footer_of(own))
        return ids_of(self._footer(name, look.sizes[number]))

    def _footer(self, name: str, size: int) -> Footer:
        """The footer of a stored pack, which was well formed when the packs were looked at."""
        with storage_errors("read", self.chunks.driver.where(packs.key_of(name))):
            try:
                return read_footer(self.chunks.driver, name, size)
            except BadForm as error:
                raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: BadForm) -> Damaged:
        where = self._writer.reader.where(name)
        return Damaged(f"the pack {where} is damaged: {error}", file=where)

    def _rewritten(
        self,
        look: Survey,
        numbers: Sequence[int],
        held: npt.NDArray[np.bool_],
        staged: Mapping[str, tuple[int, Footer]],
    ) -> list[StagedPack]:
        """The live chunks of some packs in new ones, each compared with its id on the way."""
        filling = _Filling(self.new_file)
        try:
            for number in numbers:
                name = look.names[number]
                first, last = np.searchsorted(look.pack, [number, number + 1])
                footer = staged[name][1] if name in staged else self._footer(name, look.sizes[number])
                with storage_errors("read", self._writer.reader.where(name)):
                    view = self._bytes_of(name)
                    try:
                        filling.add(view, footer[held[first:last]])
                    except BadForm as error:
                        raise self._damaged(name, error) from None
            return filling.finish()
        finally:
            filling.close()

    def _bytes_of(self, name: str) -> memoryview:
        own = next((pack.file for pack in self._writer.packs if pack.name == name), None)
        key = packs.key_of(name)
        stored = None if own else self.chunks.driver.file(key)
        if own is None and stored is None:
            with self.chunks.driver.get(key) as stream:
                return memoryview(stream.read())
        with open(own, "rb") if own else stored[0] as file:  # type: ignore[index]
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    # --- apply

    def still_right(self, digests: Iterable[Digest], read: Callable[[Digest], tuple[Recipe, bytes]]) -> bool:
        """Hold the plan against what is needed now; called under the lock, just before it is applied.

        What is needed since then keeps its packs.

        Args:
            digests: Every blob that is needed now, and stored as chunks.
            read: Reads a recipe and its checksum.

        Returns:
            False if somebody else removed packs meanwhile: then all has to begin anew.
        """
        plan = self.plan
        late = []
        for digest in digests:
            known = self._read.get(digest)
            if known is None or known != checksum(self.chunks.driver, digest):
                self.switches.pop(digest, None)
                late.append(short_ids(read(digest)[0].entries()))
        stored = {name for key, _ in self.chunks.driver.list("packs/") if (name := packs.parse_key(key)) is not None}
        staged = {pack.name for pack in self._writer.packs}
        if any(name not in stored and name not in staged for name in plan.survey.names):
            return False
        wanted = union(late)
        wanted = wanted[~among(wanted, union([_shorts(pack) for pack in plan.made]))]
        rows = among(plan.survey.ids, wanted)
        spared = {plan.survey.names[number] for number in np.unique(plan.survey.pack[rows]).tolist()}
        plan.gone = [name for name in plan.gone if name not in spared]
        return True

    def apply(self) -> None:
        """Store the new packs, bring the index up to date, and put new recipes in the place of old ones."""
        driver, index, plan = self.chunks.driver, self.chunks.index, self.plan
        driver.put_many([(packs.key_of(pack.name), pack.file) for pack in plan.made])
        index.add([pack.to_index() for pack in plan.made])
        index.remove(plan.gone)  # what stays for now is still found, and may be relied on again
        for digest, switch in self.switches.items():
            driver.replace(key_of(digest, RECIPE), switch.file)

    def delete(self) -> None:
        """Remove the old packs; called under the lock, after what `apply` did is durable."""
        recorded = self.chunks.index.packs()
        # Those that are recorded, somebody relies on again.
        self.chunks.driver.delete_many([packs.key_of(name) for name in self.plan.gone if name not in recorded])


class _Filling:
    """New packs, one after the other, out of chunks as they are stored."""

    def __init__(self, new_file: Callable[[], Path]) -> None:
        self._new_file = new_file
        self._open: PackWriter | None = None
        self._chunks: dict[bytes, tuple[int, int, int, int]] = {}
        self._made: list[StagedPack] = []

    def add(self, view: memoryview, rows: Footer) -> None:
        """Copy chunks of a pack. Raises `BadForm` if one is not what its id says."""
        for name, row in zip(ids_of(rows), rows, strict=True):
            offset, stored, length, form = (int(row[part]) for part in ("offset", "stored", "length", "form"))
            data = view[offset : offset + stored]
            content = data if form == RAW else decompress(data, length)
            if blake3.blake3(content).digest() != name:
                raise BadForm(f"the chunk {name.hex()[:16]} was altered")
            if self._open is None:
                self._open = PackWriter(self._new_file())
            self._chunks[name] = (*self._open.add(name, data, length, form), length, form)
            if self._open.size >= packs.FULL:
                self._end()
        if self._open is not None:
            self._open.flush()  # the next pack is another buffer

    def finish(self) -> list[StagedPack]:
        """All of them, complete."""
        self._end()
        return self._made

    def close(self) -> None:
        """Let go of one that was not completed: as long as it is open, it takes room."""
        if self._open is not None:
            self._open.close()

    def _end(self) -> None:
        if self._open is None:
            return
        pack = self._open
        name = pack.finish()
        self._open = None
        chunks = {k: Place(name, *numbers) for k, numbers in self._chunks.items()}
        self._chunks = {}
        self._made.append(StagedPack(name, pack.path, pack.size, chunks))


def _rows(recipe: Recipe) -> Short:
    """The chunks that hold rows; every chunk, where the codec has no stream of that name."""
    rows = recipe.encoded.streams.get("rows")
    return short_ids(recipe.entries() if rows is None else rows)


def _gives(parts: Iterator[memoryview], view: memoryview) -> bool:
    at = 0
    for part in parts:
        if not same_bytes(part, view[at : at + len(part)]):
            return False
        at += len(part)
    return at == len(view)


def _footer_of(pack: StagedPack) -> Footer:
    """What the footer of a pack says, from what its writer kept; in the order of the chunks."""
    rows = np.zeros(len(pack.chunks), FOOTER)
    rows["id"] = np.frombuffer(b"".join(pack.chunks), f"V{ID_BYTES}")
    for part in ("offset", "stored", "length", "form"):
        rows[part] = [getattr(place, part) for place in pack.chunks.values()]
    return rows


def _shorts(pack: StagedPack) -> Short:
    return np.frombuffer(b"".join(pack.chunks), np.uint64)[::4]
