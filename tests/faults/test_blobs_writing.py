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
from pathlib import Path

import pytest

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import Reader, parse_key
from llmartifacts.blobs.store import BlobStore
from llmartifacts.records.digest import digest_of

HEAD = """
import io, json, os, sys
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
    "stream": bytes(range(256)) * 8192,
    "text stream": b"a line of text, again and again\\n" * 60000,
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
work(DATA[sys.argv[2]])
print(json.dumps([found, left]))
"""
KINDS = ("small", "text", "stream", "text stream")


def injected(strace: str, inject: str, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}", sys.executable, "-B", "-c", code, *args],
        capture_output=True,
        text=True,
        check=False,
    )


def all_is_whole(base: Path) -> list[str]:
    """Every stored object is right, and nothing lies in the way; the digests that are there."""
    store = BlobStore.local(base / "blobs", cache=BlobCache(base / "cache"))
    assert not list((base / "tmp").rglob("*"))
    digests = []
    for key, _ in store.driver.list():
        parsed = parse_key(key)
        assert parsed is not None, f"{key} lies in the store"
        with Reader(parsed[1], store.driver.get(key)) as reader:
            assert digest_of(b"".join(reader.pieces(2**30))) == parsed[0]
        digests.append(parsed[0])
    return digests


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "error", "code", "says"),
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
)
def test_a_put_that_the_disk_refuses_is_a_typed_error_and_leaves_nothing(
    strace: str, tmp_path: Path, kind: str, call: str, error: str, code: str, says: str
) -> None:
    done = injected(strace, f"{call}:error={error}:when=1", HEAD + PUT + TRY, str(tmp_path), kind)
    assert done.returncode == 0, done.stderr
    (found, left) = json.loads(done.stdout)
    assert found[0] == code
    assert says in found[1]
    assert str(tmp_path) in found[1]
    assert found[2]
    assert left in ([], [str(tmp_path / "tmp")])
    assert len(all_is_whole(tmp_path)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "error", "code"),
    [
        ("write", "ENOSPC", "not_allowed"),
        ("write", "EIO", "unreachable"),
        ("fdatasync", "EIO", "unreachable"),
        ("rename,renameat,renameat2", "EIO", "unreachable"),
        ("rename,renameat,renameat2", "ENOSPC", "not_allowed"),
        ("fsync", "EIO", "unreachable"),
    ],
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


@pytest.mark.parametrize("kind", ["text", "stream"])
@pytest.mark.parametrize(
    ("calls", "times"),
    [("write", 3), ("fdatasync", 1), ("link,linkat", 1), ("fsync", 4), ("unlink,unlinkat", 1), ("rmdir,unlinkat", 2)],
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
    return {"text": b"a line of text, again and again\n" * 500, "stream": bytes(range(256)) * 8192}[kind]


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


def test_what_a_killed_writer_published_is_there_and_nothing_else_shows(tmp_path: Path) -> None:
    chosen = random.Random(4)
    for attempt in range(15):
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
