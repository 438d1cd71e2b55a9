"""A FAISS file is mapped where it lies, and nobody can change it meanwhile; else it is copied, as any stream is."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs import lease, staging
from llmartifacts.blobs.lease import held_still
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Conflict
from llmartifacts.records.digest import digest_of

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems have no leases: files are copied"
)
WRITES = "import os, sys; os.close(os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC | int(sys.argv[2])))"


@pytest.fixture(scope="module")
def index() -> bytes:
    import faiss
    import numpy as np

    made = faiss.IndexFlatL2(64)
    made.add(np.random.default_rng(1).standard_normal((9000, 64), dtype=np.float32))
    return bytes(faiss.serialize_index(made).tobytes())


@pytest.fixture
def file(tmp_path: Path, index: bytes) -> Path:
    place = tmp_path / "index.faiss"
    place.write_bytes(index)
    return place


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was copied before it was cut."""
    seen: list[Any] = []
    copy = staging.BlobStaging._copy

    def counted(self: Any, *given: Any) -> Path:
        seen.append(given)
        return copy(self, *given)

    monkeypatch.setattr(staging.BlobStaging, "_copy", counted)
    return seen


def stored(base: Path, source: Any) -> bytes:
    store = BlobStore.local(base / "blobs")
    with store.stage() as stage:
        blob = stage.add(source)
        stage.publish()
    return store.read(blob)


@linux
@pytest.mark.parametrize("opened", [lambda p: p, lambda p: p.open("rb"), lambda p: p.open("rb", buffering=0)])
def test_a_file_is_not_copied_and_can_be_written_to_afterwards(
    tmp_path: Path, file: Path, index: bytes, copies: list[Any], opened: Any
) -> None:
    source = opened(file)
    assert stored(tmp_path, source) == index
    assert copies == []
    if not isinstance(source, Path):
        assert source.read() == b"", "it was read to its end"
        source.close()
    subprocess.run([sys.executable, "-c", WRITES, str(file), str(os.O_NONBLOCK)], check=True)
    assert file.read_bytes() == b""


@linux
def test_while_it_is_mapped_nobody_can_write_to_it_or_cut_it(file: Path, index: bytes) -> None:
    with file.open("rb") as stream:
        with held_still(stream) as still:
            assert still is not None
            done = subprocess.run(
                [sys.executable, "-c", WRITES, str(file), str(os.O_NONBLOCK)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "BlockingIOError" in done.stderr
            waits = subprocess.Popen([sys.executable, "-c", WRITES, str(file), "0"])
            with pytest.raises(subprocess.TimeoutExpired):
                waits.wait(0.5)
            assert bytes(still.data) == index
            assert still.unchanged()
        assert waits.wait(20) == 0
    assert file.read_bytes() == b""


@linux
def test_somebody_who_waits_to_write_does_not_end_this_process(file: Path) -> None:
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    with file.open("rb") as stream, held_still(stream) as still:
        assert still is not None
        subprocess.run([sys.executable, "-c", WRITES, str(file), str(os.O_NONBLOCK)], capture_output=True, check=False)
    assert file.stat().st_size


@linux
def test_a_file_that_somebody_has_open_for_writing_is_copied(
    tmp_path: Path, file: Path, index: bytes, copies: list[Any]
) -> None:
    with file.open("r+b"):
        assert stored(tmp_path, file) == index
    assert len(copies) == 1


@pytest.mark.parametrize(
    "patch",
    [
        {"LARGEST": 1000},
        {"_BREAK_TIME": Path("/nowhere")},
        {"_PATIENCE": 10**9},
    ],
)
def test_where_a_file_cannot_be_held_long_enough_it_is_copied(
    tmp_path: Path, file: Path, index: bytes, copies: list[Any], monkeypatch: pytest.MonkeyPatch, patch: dict[str, Any]
) -> None:
    for name, value in patch.items():
        monkeypatch.setattr(lease, name, value)
    assert stored(tmp_path, file) == index
    assert len(copies) == 1


def test_what_only_has_a_file_below_it_is_read_and_never_that_file(
    tmp_path: Path, index: bytes, copies: list[Any]
) -> None:
    packed = tmp_path / "index.faiss.gz"
    packed.write_bytes(gzip.compress(index, 1))
    with gzip.open(packed) as stream:
        assert stored(tmp_path, stream) == index

    class Shouting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size)[:1000]

    with Shouting(tmp_path / "index.faiss.gz") as shouting, held_still(shouting) as still:
        assert still is None
    assert len(copies) == 1


def test_a_stream_is_taken_from_where_it_stands(tmp_path: Path, index: bytes, copies: list[Any]) -> None:
    place = tmp_path / "with-a-header"
    place.write_bytes(b"header" + index)
    with place.open("rb") as stream:
        stream.seek(6)
        assert stored(tmp_path, stream) == index
    assert len(copies) == 1


@linux
def test_a_file_that_changed_all_the_same_is_refused_and_nothing_of_it_stays(
    tmp_path: Path, file: Path, index: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = staging.held_still

    @contextmanager
    def let_go_of(stream: Any) -> Iterator[Any]:
        with held(stream) as still:
            lease.fcntl.fcntl(stream.fileno(), lease.fcntl.F_SETLEASE, lease.fcntl.F_UNLCK)
            os.utime(file, (1, 1))
            yield still

    monkeypatch.setattr(staging, "held_still", let_go_of)
    store = BlobStore.local(tmp_path / "blobs")
    with store.stage() as stage:
        with pytest.raises(Conflict, match="changed while they were read"):
            stage.add(file)
        stage.publish()
    assert list(store.driver.list()) == []
    monkeypatch.undo()
    with store.stage() as stage:
        assert stage.add(file).digest == digest_of(index)
        stage.publish()
