"""What a transaction names is durable before the transaction is, and what is acknowledged is durable.

The order is read from a trace of the verb. A check that cannot fail proves nothing: broken twins of the same verbs,
each without one thing that durability rests on, must be caught.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faulting import order
from faulting.injector import Injector
from faulting.operations import surroundings
from faulting.verbs import OPERATIONS

pytestmark = pytest.mark.xdist_group("faults")


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in surroundings(folder / "place").items():
        monkeypatch.setenv(name, value)
    (folder / "place").mkdir()
    return folder / "place"


def traced(injector: Injector, place: Path, verb: str, twin: str = "") -> list[str]:
    """What is wrong with the order of a verb's writes."""
    there = [path for path in place.rglob("*") if path.is_file()]
    trace = place.parent / "trace"
    ended = injector.run(verb, place, trace=trace, twin=twin)
    assert ended.status == 0, ended
    assert ended.done == [verb]
    return order.problems(trace, there)


@pytest.mark.faults  # the short form of `test_every_write.py` has it of every verb too
@pytest.mark.parametrize("verb", OPERATIONS)
def test_what_a_transaction_names_is_durable_before_it(injector: Injector, place: Path, verb: str) -> None:
    OPERATIONS[verb].prepare(place)
    assert traced(injector, place, verb) == []


@pytest.mark.parametrize(
    ("twin", "verb", "told"),
    [
        pytest.param("no_sync_of_files", "log large files", "its bytes are not durable", marks=pytest.mark.slow),
        pytest.param("no_sync_of_files", "gc", "its bytes are not durable", marks=pytest.mark.faults),
        pytest.param("no_sync_of_files", "build a cached file", "its bytes are not durable", marks=pytest.mark.faults),
        pytest.param("no_sync_of_files", "backup", "its bytes are not durable", marks=pytest.mark.faults),
        pytest.param("no_sync_of_files", "export", "its bytes are not durable", marks=pytest.mark.faults),
        pytest.param("no_sync_of_folders", "backup", "when a backup is listed, the name", marks=pytest.mark.slow),
        pytest.param("no_sync_of_folders", "export", "when it is acknowledged, the name", marks=pytest.mark.faults),
        pytest.param("no_sync_of_folders", "restore", "when it is acknowledged, the name", marks=pytest.mark.faults),
        pytest.param(
            "no_sync_of_folders", "log large files", "when a transaction is written, the name", marks=pytest.mark.faults
        ),
        pytest.param(
            "no_sync_of_folders", "migrate", "when a transaction is written, the name", marks=pytest.mark.faults
        ),
        pytest.param("no_sync_of_folders", "init", "when it is acknowledged, the name", marks=pytest.mark.slow),
        pytest.param(
            "no_sync_of_folders_above", "log a batch", "when a transaction is written, the name", marks=pytest.mark.slow
        ),
        pytest.param(
            "name_before_data", "log a batch", "when a transaction is written, the bytes", marks=pytest.mark.slow
        ),
        pytest.param(
            "commit_before_bytes",
            "log a batch",
            "is stored after the transaction that names it",
            marks=pytest.mark.slow,
        ),
        pytest.param("no_sync_of_the_database", "promote", "registry.db-wal are not durable", marks=pytest.mark.slow),
        pytest.param(
            "no_sync_of_the_database", "rollback", "registry.db-wal are not durable", marks=pytest.mark.faults
        ),
        pytest.param(
            "no_sync_of_the_database", "migrate", "is removed, a transaction is not durable", marks=pytest.mark.faults
        ),
    ],
)
def test_a_broken_twin_is_caught(injector: Injector, place: Path, twin: str, verb: str, told: str) -> None:
    OPERATIONS[verb].prepare(place)
    found = traced(injector, place, verb, twin)
    assert any(told in line for line in found), found


def test_a_trace_is_read_as_the_kernel_did_it(tmp_path: Path) -> None:
    """Unfinished calls, names with commas and quotes, renamed folders, syncs that fail: by hand, line by line."""
    trace = tmp_path / "trace"
    registry = "/r/registry"
    made = [
        f'10 openat(AT_FDCWD</>, "{registry}/tmp/1", O_WRONLY|O_CREAT|O_EXCL, 0444) = 5<{registry}/tmp/1>',
        f'10 write(5<{registry}/tmp/1>, "a, \\"b\\" <c", 11) = 11',
        f"11 fdatasync(5<{registry}/tmp/1> <unfinished ...>",
        f'10 write(5<{registry}/tmp/1>, "more", 4) = 4',
        "11 <... fdatasync resumed>)             = 0",
    ]
    linked = f'10 linkat(AT_FDCWD</>, "{registry}/tmp/1", 6<{registry}/blobs/sha256/ab>, "x", 0) = 0'
    commit = f'10 pwrite64(7<{registry}/registry.db-wal>, "", 24, 0) = 24'
    sync = f"10 fdatasync(5<{registry}/tmp/1>) = 0"
    refused = f"10 fdatasync(5<{registry}/tmp/1>) = -1 EIO (Input/output error) (INJECTED)"
    folder = f"10 fsync(6<{registry}/blobs/sha256/ab>) = 0"

    def wrong(*lines: str) -> int:
        trace.write_text("\n".join([*made, *lines]) + "\n")
        return len(order.problems(trace, []))

    assert wrong(sync, linked, folder, commit) == 0
    assert wrong(linked, folder, commit) == 2, "what was written while another thread synced is not durable"
    assert wrong(refused, linked, folder, commit) == 2, "a sync that fails makes nothing durable"
    assert wrong(sync, linked, commit) == 1, "the name is not durable"
    done = [
        f'10 openat(AT_FDCWD</>, "{registry}/registry.db-wal", O_RDWR|O_CREAT, 0644) = 7<{registry}/registry.db-wal>',
        commit,
        f"10 fdatasync(7<{registry}/registry.db-wal>) = 0",
        f"10 fsync(8<{registry}>) = 0",
    ]
    away = f'10 rename("{registry}", "/r/other") = 0'
    told = '10 sendto(9<socket:[1]>, "[\\"done\\", \\"log\\"]\\n", 16, 0, NULL, 0) = 16'
    assert wrong(sync, linked, folder, *done, told) == 0
    assert wrong(sync, linked, folder, *done[:2], done[3], told) == 1, "the transaction is not durable"
    assert wrong(sync, linked, folder, *done[:3], told) == 1, "the name of the log is not durable"
    assert wrong(sync, linked, folder, *done, away, told) == 2, "nor is what lies in a folder whose name is not"
    assert wrong(sync, *done, linked, folder, told) == 1, "it is stored after the transaction"
