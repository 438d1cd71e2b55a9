from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from llmartifacts import plugins
from llmartifacts.blobs.chunks.encode import codec_named, codecs
from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
from llmartifacts.blobs.codecs.base import KEEP, Codec, Source
from llmartifacts.blobs.forms import BadForm
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Conflict, NewerFormat, NotFound
from llmartifacts.records.digest import Blob, digest_of

NOISE = random.Random(1).randbytes(3_000_000)
TEXT = b"".join(b'{"id": %d, "text": "order %d"}\n' % (i, i * i) for i in range(60_000))


class Whole(Codec):
    """One stream of pieces of one size; the base of all that follow."""

    name: ClassVar[str] = "whole"
    piece: ClassVar[int] = 100_000

    def suits(self, head: bytes) -> bool:
        return True

    def encode(
        self, source: Source, writer: Any, reader: Any, parent: Recipe | None = None, keep: float = KEEP
    ) -> Encoded | None:
        step = self.piece
        parts = [writer.add(piece, [*range(step, len(piece), step), len(piece)]) for piece in source.pieces()]
        return Encoded({}, {"data": np.concatenate(parts)})

    def decode(self, recipe: Recipe, reader: Any) -> Iterator[Any]:
        return reader.read(recipe.encoded.streams["data"])  # type: ignore[no-any-return]


class Wrong(Whole):
    name = "wrong"

    def decode(self, recipe: Recipe, reader: Any) -> Iterator[Any]:
        inner = super().decode(recipe, reader)
        whole = b"".join(bytes(part) for part in inner)
        yield whole[:-1] + bytes([whole[-1] ^ 1])


class Short(Whole):
    name = "short"

    def decode(self, recipe: Recipe, reader: Any) -> Iterator[Any]:
        return iter(list(super().decode(recipe, reader))[:-1])


class Endless(Whole):
    name = "endless"

    def decode(self, recipe: Recipe, reader: Any) -> Iterator[Any]:
        while True:
            yield bytes(1_000_000)


class Declining(Whole):
    name = "declining"

    def encode(self, *args: Any, **kwargs: Any) -> Encoded | None:
        super().encode(*args, **kwargs)
        return None


class Raising(Whole):
    name = "raising"
    error: ClassVar[Exception] = BadForm("it is no such file")

    def encode(self, *args: Any, **kwargs: Any) -> Encoded | None:
        super().encode(*args, **kwargs)
        raise self.error


class Late(Whole):
    name = "late"

    def decode(self, recipe: Recipe, reader: Any) -> Iterator[Any]:
        yield from list(super().decode(recipe, reader))[:1]
        raise IndexError("list index out of range")


class Wasteful(Whole):
    """Stores other chunks each time, unlike all others."""

    name = "wasteful"
    uses_parent = True
    piece = 99_999


def use(monkeypatch: pytest.MonkeyPatch, *kinds: type[Codec]) -> None:
    """Have these codecs, and then the built-in ones."""
    built_in = {name: plugins.BUILT_IN["codecs"][name] for name in ("lines", "cdc")}
    monkeypatch.setitem(plugins.BUILT_IN, "codecs", {**{k.name: f"{__name__}:{k.__name__}" for k in kinds}, **built_in})
    for kind in kinds:
        monkeypatch.setitem(plugins._LOADED, ("codecs", kind.name), kind)


def put(store: BlobStore, source: Any, *like: Blob) -> Blob:
    with store.stage() as staging:
        blob = staging.add(source, lambda: like)
        staging.publish()
    return blob


def codec_of(store: BlobStore, blob: Blob) -> str:
    recipe = store.recipe(blob)
    assert recipe is not None
    return recipe.codec


SOURCES = ["bytes", "file", "stream"]


def source_of(kind: str, data: bytes, folder: Path) -> Any:
    if kind == "bytes":
        return data
    if kind == "stream":
        return io.BytesIO(data)
    (folder / "source").write_bytes(data)
    return folder / "source"


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(("data", "codec"), [(NOISE, "cdc"), (TEXT, "lines")], ids=["noise", "text"])
def test_a_blob_gets_the_codec_that_suits_it(tmp_path: Path, kind: str, data: bytes, codec: str) -> None:
    store = BlobStore.memory()
    blob = put(store, source_of(kind, data, tmp_path))
    assert blob == Blob(digest_of(data), len(data))
    assert codec_of(store, blob) == codec
    assert store.read(blob) == data


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_an_installed_codec_is_asked_before_the_general_ones(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Whole)
    assert [c.name for c in codecs()] == ["whole", "lines", "cdc"]
    store = BlobStore.memory()
    blob = put(store, source_of(kind, NOISE, tmp_path))
    assert codec_of(store, blob) == "whole"
    assert store.read(blob) == NOISE


@pytest.mark.parametrize("kind", ["bytes", "file"])
@pytest.mark.parametrize("bad", [Wrong, Short, Endless, Declining, Raising, Late], ids=lambda c: c.name)
def test_a_codec_that_fails_or_whose_inverse_is_wrong_is_not_used_and_leaves_nothing(
    tmp_path: Path, kind: str, bad: type[Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, bad)
    store = BlobStore.memory()
    blob = put(store, source_of(kind, NOISE, tmp_path))
    assert codec_of(store, blob) == "cdc"
    assert store.read(blob) == NOISE
    assert sum(size for _, size in store.driver.list()) < len(NOISE) * 1.02


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), ZeroDivisionError(), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]
)
def test_what_a_codec_makes_of_strange_bytes_is_its_own_affair(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raising, "error", error)
    use(monkeypatch, Raising)
    store = BlobStore.memory()
    assert codec_of(store, put(store, NOISE)) == "cdc"


def test_of_several_codecs_the_one_that_adds_fewest_bytes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore.memory()
    first = put(store, NOISE)
    use(monkeypatch, Wasteful)
    changed = NOISE[:1_000_000] + b"something new" + NOISE[1_000_000:]
    with store.stage() as staging:
        second = staging.add(changed, lambda: [first])
        added = staging.added[second.digest]
        staging.publish()
    assert codec_of(store, second) == "cdc"
    assert added < 400_000
    assert store.read(second) == changed


def test_without_an_earlier_version_the_particular_codec_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore.memory()
    put(store, NOISE)
    use(monkeypatch, Wasteful)
    assert codec_of(store, put(store, NOISE + b"more")) == "wasteful"


def test_a_stream_that_can_be_read_once_goes_to_a_codec_that_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Wrong, Whole)
    store = BlobStore.memory()
    first = put(store, io.BytesIO(NOISE))
    blob = put(store, io.BytesIO(NOISE + b"more"), first)
    assert codec_of(store, blob) == codec_of(store, first) == "cdc"
    assert store.read(blob) == NOISE + b"more"


def test_a_view_that_changes_while_it_is_read_is_a_conflict_and_leaves_nothing() -> None:
    store = BlobStore.memory()
    data = bytearray(NOISE)

    class Meddling(Whole):
        name = "meddling"

        def suits(self, head: bytes) -> bool:
            return True

        def encode(self, *args: Any, **kwargs: Any) -> Encoded | None:
            made = super().encode(*args, **kwargs)
            data[len(data) // 2] ^= 255
            return made

    with pytest.MonkeyPatch.context() as patched:
        use(patched, Meddling)
        built_in = plugins.BUILT_IN["codecs"]
        patched.setitem(plugins.BUILT_IN, "codecs", {"meddling": built_in["meddling"]})
        with store.stage() as staging:
            with pytest.raises(Conflict, match="changed while"):
                staging.add(data)
            staging.publish()
    assert list(store.driver.list()) == []
    blob = put(store, data)
    assert store.read(blob) == bytes(data)


def test_a_file_that_changes_while_it_is_read_is_stored_as_it_was_read_and_under_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(NOISE)

    class Appending(Whole):
        name = "appending"

        def encode(self, *args: Any, **kwargs: Any) -> Encoded | None:
            super().encode(*args, **kwargs)
            with source.open("ab") as file:
                file.write(b"one more line\n")
            return None

    use(monkeypatch, Appending)
    store = BlobStore.memory()
    blob = put(store, source)
    assert store.read(blob) == NOISE + b"one more line\n"
    assert blob.digest == digest_of(store.read(blob))


@pytest.mark.parametrize("error", [RuntimeError("broke"), ValueError("I/O operation on closed file"), KeyError("x")])
def test_what_the_source_raises_is_raised_and_not_taken_for_the_trouble_of_a_codec(error: Exception) -> None:
    class Failing(io.RawIOBase):
        left = 3

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if not self.left:
                raise error
            return random.Random(self.left).randbytes(1024 * 1024)

    store = BlobStore.memory()
    threads = threading.active_count()
    with store.stage() as staging:
        with pytest.raises(type(error)) as caught:
            staging.add(Failing())  # type: ignore[arg-type]
        staging.publish()
    assert caught.value is error
    assert list(store.driver.list()) == []
    assert threading.active_count() <= threads + 1


def test_a_codec_from_the_future_or_of_a_package_that_is_not_there_is_named() -> None:
    for name, version in (("cdc", 2), ("lines", 99), ("from-2031", 1), ("x" * 10_000, 1), ("../../etc", 1)):
        with pytest.raises(NewerFormat) as caught:
            codec_named(name, version)
        assert len(str(caught.value)) < 300
        assert "nstall" in caught.value.hint()
    assert codec_named("cdc", 1).name == "cdc"


def test_a_codec_that_cannot_be_imported_says_so() -> None:
    with pytest.raises(NotFound):
        plugins.load("codecs", "nothing")
