"""Writing that fails or is killed at any point: a typed error, nothing half-written, and the next try succeeds.

`strace` makes the system call fail, or kills the process when it makes it; the code under test is what users run.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.blobs.base import read_up_to
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.pack import parse_key as parse_pack
from llmartifacts.blobs.forms import RECIPE, Reader, parse_key
from llmartifacts.blobs.store import BlobStore
from llmartifacts.records.digest import Blob, Digest, digest_of

HEAD = """
import io, json, os, random, sys
import zstandard
from pathlib import Path
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import RAW, ZSTD, key_of
from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.digest import Blob, digest_of
base = Path(sys.argv[1])
store = BlobStore.local(base / "blobs", cache=BlobCache(base / "cache"))
DATA = {
    "small": b"small content",
    "text": b"a line of text, again and again\\n" * 500,
    "stream": random.Random(1).randbytes(2_100_000),
    "text stream": b"".join(b"line %d of a text, again and again\\n" % i for i in range(60000)),
}
"""
PUT = """
def work(data):
    with store.stage() as staging:
        blob = staging.add(io.BytesIO(data))
        staging.publish()
    assert store.read(blob) == data
"""
HEAL = """
def work(data):
    blob = Blob(digest_of(data), len(data))
    for key, _ in list(store.driver.list()) or [(key_of(blob.digest, RAW), 0)]:
        path = Path(store.driver.where(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(b"damaged")
    with store.stage() as staging:
        staging.add(data)
        staging.publish()
    assert store.read(blob) == data
"""
CACHE = """
def work(data):
    blob = Blob(digest_of(data), len(data))
    assert store.cache.put(blob, data).read_bytes() == data
    assert store.cache.read(blob) == data
"""
TRY = """
try:
    work(DATA[sys.argv[2]])
except LlmartifactsError as error:
    found = [error.code, str(error), error.hint()]
else:
    found = []
left = [str(p) for p in (base / "tmp").rglob("*")] + [str(p) for p in base.rglob("*.part")]
if "again elsewhere" not in sys.argv:
    work(DATA[sys.argv[2]])
print(json.dumps([found, left]))
"""
SMALL, LARGE = ("small", "text"), ("stream", "text stream")
KINDS = (*SMALL, *LARGE)


def injected(strace: str, inject: str, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}", sys.executable, "-B", "-c", code, *args],
        capture_output=True,
        text=True,
        check=False,
    )


def all_is_whole(base: Path) -> list[Digest]:
    """Every stored object is right, and nothing lies in the way; the digests that are there."""
    store = BlobStore.local(base / "blobs", cache=BlobCache(base / "cache"))
    assert not list((base / "tmp").rglob("*"))
    digests = []
    for key, size in store.driver.list():
        pack = parse_pack(key)
        if pack is not None:  # needed by a recipe, or an orphan that nothing names: whole in any case
            check_pack(store.driver, pack, size)
            continue
        parsed = parse_key(key)
        assert parsed is not None, f"{key} lies in the store"
        assert digest_of(_content(store, key, *parsed)) == parsed[0]
        digests.append(parsed[0])
    return digests


def _content(store: BlobStore, key: str, digest: Digest, form: str) -> bytes:
    with store.driver.get(key) as stored:
        if form == RECIPE:
            recipe = store.chunks.recipe(read_up_to(stored, 2**30), origin=key)
            return store.read(Blob(digest, recipe.size))
        with Reader(form, stored) as reader:
            return b"".join(reader.pieces(2**30))


def of_kinds(kinds: Sequence[str], faults: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Each fault while content of each kind is written; with one kind, in turn, where there is not time for all."""
    return [
        pytest.param(kind, *fault, marks=[] if kinds[number % len(kinds)] == kind else [pytest.mark.matrix])
        for number, fault in enumerate(faults)
        for kind in kinds
    ]


@pytest.mark.parametrize(
    ("kind", "call", "error", "code", "says"),
    of_kinds(
        KINDS,
        [
            ("write", "ENOSPC", "not_allowed", "is full"),
            ("write", "EDQUOT", "not_allowed", "is full"),
            ("write", "EIO", "unreachable", "Input/output error"),
            ("fdatasync", "EIO", "unreachable", "Input/output error"),
            ("fdatasync", "ENOSPC", "not_allowed", "is full"),
            ("mkdir", "ENOSPC", "not_allowed", "is full"),
            ("mkdirat", "EROFS", "not_allowed", "Read-only"),
            ("link,linkat", "ENOSPC", "not_allowed", "is full"),
            ("link,linkat", "EIO", "unreachable", "Input/output error"),
            ("fsync", "EIO", "unreachable", "Input/output error"),
        ],
    ),
)
def test_a_put_that_the_disk_refuses_is_a_typed_error_and_leaves_nothing(
    strace: str, tmp_path: Path, kind: str, call: str, error: str, code: str, says: str
) -> None:
    refuses(strace, tmp_path, kind, f"{call}:error={error}:when=1", code, says)


@pytest.mark.parametrize(
    ("kind", "call", "error", "when", "code", "says"),
    of_kinds(
        LARGE,
        [
            ("writev", "ENOSPC", 1, "not_allowed", "is full"),
            ("writev", "EDQUOT", 1, "not_allowed", "is full"),
            ("writev", "EIO", 2, "unreachable", "Input/output error"),
            ("link,linkat", "ENOSPC", 2, "not_allowed", "is full"),
            ("link,linkat", "EROFS", 2, "not_allowed", "Read-only"),
            ("fsync", "EIO", 5, "unreachable", "Input/output error"),
            ("mkdirat", "EDQUOT", 3, "not_allowed", "is full"),
        ],
    ),
)
def test_a_pack_or_recipe_that_the_disk_refuses_is_a_typed_error_and_leaves_nothing(
    strace: str, tmp_path: Path, kind: str, call: str, error: str, when: int, code: str, says: str
) -> None:
    refuses(strace, tmp_path, kind, f"{call}:error={error}:when={when}", code, says)


def refuses(strace: str, base: Path, kind: str, inject: str, code: str, says: str) -> None:
    """A put with a failing system call: a typed error, nothing left aside, and the next try stores it."""
    # Packs are written and synced in threads of their own, and strace counts the calls of each thread by itself.
    elsewhere = kind in LARGE and inject.startswith(("writev", "fdatasync"))
    done = injected(strace, inject, HEAD + PUT + TRY, str(base), kind, *["again elsewhere"] * elsewhere)
    assert done.returncode == 0, done.stderr
    if elsewhere:
        again = HEAD + PUT + "work(DATA[sys.argv[2]])"
        subprocess.run([sys.executable, "-B", "-c", again, str(base), kind], check=True)
    (found, left) = json.loads(done.stdout)
    assert found[0] == code
    assert says in found[1]
    assert str(base) in found[1]
    assert found[2]
    assert left in ([], [str(base / "tmp")])
    assert len(all_is_whole(base)) == 1


@pytest.mark.parametrize(
    ("kind", "call", "error", "code"),
    of_kinds(
        KINDS,
        [
            ("write", "ENOSPC", "not_allowed"),
            ("write", "EIO", "unreachable"),
            ("fdatasync", "EIO", "unreachable"),
            ("rename,renameat,renameat2", "EIO", "unreachable"),
            ("rename,renameat,renameat2", "ENOSPC", "not_allowed"),
            ("fsync", "EIO", "unreachable"),
        ],
    ),
)
def test_a_cached_file_that_cannot_be_written_is_a_typed_error_and_leaves_nothing(
    strace: str, tmp_path: Path, kind: str, call: str, error: str, code: str
) -> None:
    done = injected(strace, f"{call}:error={error}:when=1", HEAD + CACHE + TRY, str(tmp_path), kind)
    assert done.returncode == 0, done.stderr
    (found, left) = json.loads(done.stdout)
    assert found[0] == code
    assert left == []
    assert len([p for p in (tmp_path / "cache").rglob("*") if p.is_file()]) == 1


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_healing_that_fails_leaves_the_damaged_file_to_be_healed_by_the_next(
    strace: str, tmp_path: Path, error: str
) -> None:
    code = HEAD + HEAL + TRY
    done = injected(strace, f"rename,renameat,renameat2:error={error}:when=1", code, str(tmp_path), "text")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0][0] in ("unreachable", "not_allowed")
    assert len(all_is_whole(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["small", "stream"])
@pytest.mark.parametrize(("error", "when"), [("EIO", 1), ("ENOSPC", 2)])
def test_healing_a_pack_or_a_recipe_that_fails_is_finished_by_the_next(
    strace: str, tmp_path: Path, kind: str, error: str, when: int
) -> None:
    """Both are damaged; the first rename is that of the pack, the second that of the recipe."""
    code = HEAD + HEAL + TRY
    inject = f"rename,renameat,renameat2:error={error}:when={when if kind == 'stream' else 1}"
    done = injected(strace, inject, HEAD + PUT + "work(DATA[sys.argv[2]])" + code, str(tmp_path), kind)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0][0] in ("unreachable", "not_allowed")
    assert len(all_is_whole(tmp_path)) == 1


@pytest.mark.parametrize(
    ("kind", "calls", "times"),
    [
        pytest.param("text", "write", 3, marks=pytest.mark.matrix),
        ("text", "fdatasync", 1),
        pytest.param("text", "link,linkat", 1, marks=pytest.mark.matrix),
        pytest.param("text", "fsync", 4, marks=pytest.mark.matrix),
        pytest.param("text", "unlink,unlinkat", 1, marks=pytest.mark.matrix),
        pytest.param("text", "rmdir,unlinkat", 2, marks=pytest.mark.matrix),
        ("stream", "writev", 2),
        pytest.param("stream", "write", 2, marks=pytest.mark.matrix),
        pytest.param("stream", "fdatasync", 2, marks=pytest.mark.matrix),
        pytest.param("stream", "link,linkat", 2, marks=pytest.mark.matrix),
        pytest.param("stream", "mkdir,mkdirat", 6, marks=pytest.mark.matrix),
        pytest.param("stream", "fsync", 7, marks=pytest.mark.matrix),
        pytest.param("stream", "unlink,unlinkat", 2, marks=pytest.mark.matrix),
        pytest.param("stream", "rmdir,unlinkat", 3, marks=pytest.mark.matrix),
    ],
)
def test_a_writer_killed_at_any_system_call_leaves_nothing_half_written(
    strace: str, tmp_path: Path, kind: str, calls: str, times: int
) -> None:
    killed = 0
    for when in range(1, times + 1):
        base = tmp_path / str(when)
        base.mkdir()
        done = injected(
            strace, f"{calls}:signal=SIGKILL:when={when}", HEAD + PUT + "work(DATA[sys.argv[2]])", str(base), kind
        )
        killed += done.returncode != 0
        assert all_is_whole(base) in ([], [digest_of(_data(kind))])
        again = subprocess.run(
            [sys.executable, "-c", HEAD + PUT + "work(DATA[sys.argv[2]])", str(base), kind], check=False
        )
        assert again.returncode == 0
        assert all_is_whole(base) == [digest_of(_data(kind))]
    assert killed


def _data(kind: str) -> bytes:
    return {"text": b"a line of text, again and again\n" * 500, "stream": random.Random(1).randbytes(2_100_000)}[kind]


WRITER = """
print("ready", flush=True)
i = 0
while True:
    i += 1
    bodies = [b"%s %d" % (sys.argv[2].encode(), i), b"line %d\\n" % i * 2000, os.urandom(1 << 21)]
    with store.stage() as staging:
        blobs = [staging.add(io.BytesIO(b)) for b in bodies]
        staging.publish()
    print(json.dumps([[b.digest, b.size] for b in blobs]), flush=True)
"""


@pytest.mark.parametrize("attempts", [4, pytest.param(15, marks=pytest.mark.matrix)])
def test_what_a_killed_writer_published_is_there_and_nothing_else_shows(tmp_path: Path, attempts: int) -> None:
    chosen = random.Random(4)
    for attempt in range(attempts):
        writer = subprocess.Popen(
            [sys.executable, "-c", HEAD + WRITER, str(tmp_path), str(attempt)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        lines = [writer.stdout.readline() for _ in range(attempt % 4)]
        time.sleep(chosen.random() * 0.03)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        writer.wait()
        writer.stdout.close()
        there = set(all_is_whole(tmp_path))
        for line in lines:
            if line.strip().endswith("]]"):  # the last one may be cut off
                assert {digest for digest, _ in json.loads(line)} <= there


SAME = """
import random
bodies = [random.Random(i).randbytes(1000 * i) for i in range(1, 20)] + [b"line\\n" * 100_000, bytes(3_000_000)]
bodies += [random.Random(i).randbytes(1_500_000) for i in range(4)]
bodies += [b"".join(b"%d %d\\n" % (i, j * j) for j in range(200_000)) for i in range(2)]
print("ready", flush=True)
sys.stdin.readline()
for data in bodies:
    work(data)
print(json.dumps([digest_of(data) for data in bodies]))
"""


def test_eight_processes_put_the_same_content_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HEAD + PUT + SAME, str(tmp_path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate()[0] for worker in workers]
    assert [w.returncode for w in workers] == [0] * 8
    assert len(set(told)) == 1
    assert sorted(all_is_whole(tmp_path)) == sorted(json.loads(told[0]))


def test_a_reader_never_sees_content_whose_chunks_are_not_there_yet(tmp_path: Path) -> None:
    """Everything that is listed while others write can be read, by a reader that knew nothing of its packs."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + WRITER, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        store = BlobStore.local(tmp_path / "blobs", cache=BlobCache(tmp_path / "cache"))
        seen: set[str] = set()
        while len(seen) < 12:
            for key, _ in store.driver.list("sha256/"):
                parsed = parse_key(key)
                if parsed is not None and parsed[1] == RECIPE and parsed[0] not in seen:
                    assert digest_of(_content(store, key, *parsed)) == parsed[0]
                    seen.add(parsed[0])
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_limit_on_the_size_of_files_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A real short write: the first piece goes in, the next stops in the middle."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))\n"
    free = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
    code = HEAD + PUT + limit + TRY.replace("left =", free + "left =", 1)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "stream"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (found, left) = json.loads(done.stdout)
    assert found[0] == "not_allowed"
    assert left == []
    assert len(all_is_whole(tmp_path)) == 1


def test_a_reader_of_a_disk_that_fails_gets_a_typed_error(strace: str, tmp_path: Path) -> None:
    store = BlobStore.local(tmp_path / "blobs", cache=BlobCache(tmp_path / "cache"))
    with store.stage() as staging:
        blob = staging.add(b"x" * 3000)
        staging.publish()
    place = store.path(blob)
    code = HEAD + textwrap.dedent(f"""
    try:
        store.read(Blob({blob.digest!r}, {blob.size}))
    except LlmartifactsError as error:
        print(json.dumps([error.code, str(error)]))
    """)
    only = ["-P", str(place), "-e", "trace=read", "-e", "inject=read:error=EIO"]
    done = subprocess.run(
        [strace, "-qq", "-o", "/dev/null", *only, sys.executable, "-B", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["unreachable", f"cannot read {place}: Input/output error"]
