"""Which codec a blob gets: each that suits is asked, its inverse is tried, and the one that adds fewest bytes stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmartifacts import plugins
from llmartifacts.blobs.chunks.behind import Behind
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.chunks.recipe import Recipe
from llmartifacts.blobs.chunks.source import Hashing, PieceSource, SourceFailed, ViewSource, let_go
from llmartifacts.blobs.chunks.writer import ChunkWriter, same_bytes
from llmartifacts.blobs.codecs.stream import StreamCodec
from llmartifacts.blobs.failures import changed_meanwhile
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import Damaged, NewerFormat
from llmartifacts.records.digest import Blob, Digest

if TYPE_CHECKING:
    from llmartifacts.blobs.codecs.base import Codec, Source

_RESIDENT = 1 << 30
"""Bytes of a map that are left in memory while it is worked on."""
AnySource = ViewSource | PieceSource
_ENOUGH = 0.25
"""A codec that adds this part of a blob or less is not bettered by trying others."""


@dataclass(frozen=True, slots=True)
class Known:
    """An earlier version, to encode against.

    Attributes:
        digest: Of the blob.
        recipe: How it is stored.
    """

    digest: Digest
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class _Trial:
    codec: Codec
    parent: Known | None


def codecs() -> list[Codec]:
    """Every codec, the particular ones first; those of other packages before the built-in ones."""
    built_in = list(plugins.BUILT_IN["codecs"])
    more = [name for name in plugins.names("codecs") if name not in built_in]
    return [plugins.load("codecs", name)() for name in (*more, *built_in)]


def codec_named(name: str, version: int) -> Codec:
    """The codec of a recipe.

    Raises:
        NewerFormat: No codec of that name and version is built in or installed.
    """
    if plugins.is_installed("codecs", name):
        codec: Codec = plugins.load("codecs", name)()
        if version <= codec.version:
            return codec
    raise NewerFormat(
        f"a file is stored with the codec {name!r:.64} version {version}, which is not known here",
        field="codec",
        next_step="Install the release, or the package, that wrote it.",
    )


def encode(
    source: AnySource, writer: ChunkWriter, reader: ChunkReader, parents: Sequence[Known] = ()
) -> tuple[Blob, Recipe]:
    """Cut a blob into chunks and write those that are new.

    Args:
        source: The blob.
        writer: Takes the chunks.
        reader: Reads stored ones.
        parents: Earlier versions, the likeliest first.

    Returns:
        The blob's address and its recipe. The recipe's inverse was tried: it gives these very bytes.

    Raises:
        Conflict: The source changed while it was read.
        Exception: Whatever the source itself raises.
    """
    hashing = Hashing()
    if source.view is not None:
        hashing.all_of(source.view)
    try:
        return _best(_Attempts(source, writer, reader, hashing, parents), _trials(source, parents), bool(parents))
    except SourceFailed as failed:
        raise failed.error from None
    finally:
        hashing.blob()  # the thread must not outlive the view


def _best(attempts: _Attempts, trials: Sequence[_Trial], choose: bool) -> tuple[Blob, Recipe]:
    """Make the first trial that works; where there is a choice and it did badly, the best of all."""
    costs: list[tuple[int, _Trial]] = []
    for number, trial in enumerate(trials):
        made, added = attempts.make(trial)
        if made is None:
            continue
        last = number == len(trials) - 1 or not choose or not attempts.source.again
        if not costs and (last or added <= _ENOUGH * made[0].size):
            return made
        costs.append((added, trial))
        attempts.undo()
    best = min(costs, key=lambda cost: cost[0])[1] if costs else None
    made = attempts.make(best)[0] if best else None
    if made is None:
        raise changed_meanwhile()
    return made


@dataclass
class _Attempts:
    """One blob, encoded in several ways, one after the other."""

    source: AnySource
    writer: ChunkWriter
    reader: ChunkReader
    hashing: Hashing
    parents: Sequence[Known]

    def __post_init__(self) -> None:
        self._start = self.writer.mark()

    def undo(self) -> None:
        self.writer.back(self._start)

    def make(self, trial: _Trial) -> tuple[tuple[Blob, Recipe] | None, int]:
        """What came of it, None if nothing, and the bytes that it adds. What is of no use leaves nothing behind."""
        try:
            made = self._made(trial)
        except (BadForm, Damaged, ValueError, LookupError, ArithmeticError):
            made = None  # its own affair: another codec takes the blob
        if made is None:
            self.undo()
            return None, 0
        return made, self.writer.mark().added - self._start.added

    def _made(self, trial: _Trial) -> tuple[Blob, Recipe] | None:
        codec, parent = trial.codec, trial.parent
        view = self.source.view
        hashing = self.hashing
        source: Source = self.source
        if isinstance(self.source, PieceSource):
            hashing = Hashing()
            source = _Passing(self.source, hashing)
        encoded = codec.encode(source, self.writer, self.reader, parent.recipe if parent else None)
        if encoded is None:
            return None
        self.writer.finish()
        size = len(view) if view is not None else hashing.blob().size
        near = parent or next(iter(self.parents), None)
        recipe = Recipe(codec.name, codec.version, size, encoded, near.digest if near else None)
        if self.reader.far:  # the codec has looked itself, without the chunks that are there, not here
            return hashing.blob(), recipe
        whole = (
            self._same_as(view, codec, recipe) if view is not None else self._hashes_to(hashing.blob(), codec, recipe)
        )
        return (hashing.blob(), recipe) if whole else None

    def _same_as(self, view: memoryview, codec: Codec, recipe: Recipe) -> bool:
        """Compare what the codec makes with the source; every other part in a thread of its own."""
        at, other = 0, Behind("llmartifacts-compare", waiting=1)
        try:
            for number, part in enumerate(codec.decode(recipe, self.reader)):
                end = at + len(part)
                if end > len(view):
                    return False
                compare = partial(_compare, view, at, part)
                if number % 2:
                    other.do(compare)
                else:
                    compare()
                at = end
            other.wait()
        except _Differs:
            return False
        finally:
            other.end()
        return at == len(view)

    def _hashes_to(self, blob: Blob, codec: Codec, recipe: Recipe) -> bool:
        again, left = Hashing(), blob.size
        with closing(again.passing(iter(codec.decode(recipe, self.reader)))) as parts:
            for part in parts:
                left -= len(part)
                if left < 0:
                    return False
        return again.blob() == blob


def _compare(view: memoryview, at: int, part: Any) -> None:
    """Raises `_Differs` unless a part of a view has these bytes."""
    end = at + len(part)
    if not same_bytes(part, view[at:end]):
        raise _Differs
    if len(view) > _RESIDENT:
        let_go(view, at, end)


class _Differs(Exception):
    """An inverse gives other bytes. Never leaves this file."""


@dataclass(frozen=True)
class _Passing:
    """A source whose pieces are hashed on their way."""

    inner: PieceSource
    hashing: Hashing
    view: None = None

    @property
    def head(self) -> bytes:
        return self.inner.head

    def pieces(self) -> Iterator[Any]:
        return self.hashing.passing(self.inner.pieces())


def _trials(source: AnySource, parents: Sequence[Known]) -> list[_Trial]:
    suited = [c for c in codecs() if c.suits(source.head) and (source.view is not None or not c.needs_view)]
    if not source.again:
        suited = [next(c for c in suited if isinstance(c, StreamCodec))]  # reads once, and takes any bytes
    against: Sequence[Known | None] = parents or [None]
    return [_Trial(codec, parent) for codec in suited for parent in (against if codec.uses_parent else [None])]
