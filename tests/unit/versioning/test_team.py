"""A team's registry: a database and a place for bytes that belong together, opened by any number of servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import plugins
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.errors import Conflict, InvalidInput, MissingExtra, NewerFormat, NotFound
from llmartifacts.metadata.schema import MIGRATIONS, SCHEMA
from llmartifacts.records.backend import Draft
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.team import MARKER, is_marked, open_team

Open = Callable[..., EmbeddedBackend]


@pytest.fixture
def opened(postgres_url: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the team's registry of this test, and closes it."""
    made = []

    def make(database: str = "", blobs: str = "", **more: Any) -> EmbeddedBackend:
        backend = open_team(database or postgres_url, blobs or str(tmp_path / "blobs"), connections=4, **more)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


def log(backend: EmbeddedBackend, name: str, content: str) -> str:
    draft = Draft(name, Manifest.build("unknown-kind", {"content": content}))
    return str(backend.commit("default", [draft], actor="ann")[0].digest)


def test_a_new_registry_has_its_first_project_and_entry(opened: Open) -> None:
    backend = opened()
    assert [p.name for p in backend.projects()] == ["default"]
    assert [(e["verb"], e["actor"]) for e in backend.audit()] == [("project", "server")]
    assert backend.verify().problems == ()


def test_opened_again_it_is_the_same_registry(opened: Open) -> None:
    digest = log(opened(), "support-agent", "hello")
    again = opened()
    item = again.read("default", [Reference.parse("support-agent:v1")]).items[0]
    assert not isinstance(item, Exception)
    assert str(item.version.digest) == digest
    assert len(list(again.audit())) == 2


def test_several_servers_that_start_at_once_make_one_registry(postgres_url: str, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from llmartifacts.versioning.team import open_team\n"
        "from llmartifacts.records.backend import Draft\n"
        "from llmartifacts.records.manifest import Manifest\n"
        "time.sleep(max(0, float(sys.argv[3]) - time.time()))\n"
        "backend = open_team(sys.argv[1], sys.argv[2], connections=2)\n"
        "drafts = [Draft('c', Manifest.build('unknown-kind', {'content': sys.argv[4]}))]\n"
        "backend.commit('default', drafts, actor='ann')\n"
        "backend.close()\n"
    )
    start = str(time.time() + 1.0)
    several = [
        subprocess.Popen(
            [sys.executable, "-c", script, postgres_url, str(tmp_path / "blobs"), start, str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    assert [(p.communicate(timeout=100)[1], p.returncode) for p in several] == [("", 0)] * 4
    backend = open_team(postgres_url, str(tmp_path / "blobs"))
    assert [e["verb"] for e in backend.audit()] == ["project", "log", "log", "log", "log"]
    assert backend.verify().problems == ()
    assert backend.verify_audit(()).problems == ()
    backend.close()


def test_an_older_schema_is_brought_up_to_date_by_one_of_several(
    postgres_server: Any, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr("llmartifacts.metadata.store.MIGRATIONS", MIGRATIONS[:1])
        old.setattr("llmartifacts.metadata.store.SCHEMA", 1)
        from llmartifacts.metadata.postgres import PostgresDatabase
        from llmartifacts.metadata.store import MetadataStore

        MetadataStore(PostgresDatabase(postgres_url), create=True).close()
    assert postgres_server.execute("select value from meta where name = 'schema'", url=postgres_url) == [(1,)]
    script = "import sys\nfrom llmartifacts.versioning.team import open_team\nopen_team(*sys.argv[1:]).close()"
    several = [
        subprocess.Popen([sys.executable, "-c", script, postgres_url, str(tmp_path / "blobs")]) for _ in range(4)
    ]
    assert [p.wait(timeout=100) for p in several] == [0] * 4
    assert postgres_server.execute("select value from meta where name = 'schema'", url=postgres_url) == [(SCHEMA,)]


def test_a_newer_schema_is_refused(opened: Open, postgres_server: Any, postgres_url: str) -> None:
    opened().close()
    postgres_server.execute("update meta set value = value + 1", url=postgres_url)
    with pytest.raises(NewerFormat):
        opened()


# --- a database and bytes that do not belong together


def test_the_bytes_of_another_registry_are_refused(opened: Open, postgres_server: Any, tmp_path: Path) -> None:
    opened()
    other = postgres_server.new_database()
    with pytest.raises(Conflict, match="belong to the registry") as caught:
        opened(database=other)
    assert "of one registry" in caught.value.hint()
    postgres_server.drop(other)


def test_the_bytes_of_an_embedded_registry_are_refused(opened: Open, tmp_path: Path) -> None:
    la.init(tmp_path / "mine").close()
    with pytest.raises(Conflict, match="embedded registry"):
        opened(blobs=str(tmp_path / "mine" / "blobs"))
    assert not (tmp_path / "mine" / "blobs" / MARKER).exists()


def test_bytes_that_nobody_marked_are_refused(opened: Open, tmp_path: Path) -> None:
    with la.init(tmp_path / "mine") as registry:
        registry.log("data", la.Files({"a.txt": b"hello"}))
    (tmp_path / "mine" / "blobs").rename(tmp_path / "moved")
    with pytest.raises(Conflict, match="does not say whose"):
        opened(blobs=str(tmp_path / "moved"))


def test_a_place_that_lost_its_bytes_is_refused(opened: Open, tmp_path: Path) -> None:
    backend = opened()
    with la.Registry(backend, project="default", actor="ann") as registry:
        registry.log("data", la.Files({"a.txt": b"hello"}))
    with pytest.raises(Conflict, match="is empty") as caught:
        opened(blobs=str(tmp_path / "not-mounted"))
    line = (tmp_path / "blobs" / MARKER).read_text().strip()
    assert repr(line) in caught.value.hint()
    assert "mounted" in caught.value.hint()
    (tmp_path / "restored" / "sha256").mkdir(parents=True)
    (tmp_path / "restored" / MARKER).write_bytes((tmp_path / "blobs" / MARKER).read_bytes())
    restored = opened(blobs=str(tmp_path / "restored"))  # as the hint says
    assert len(restored.verify().problems) == 1


def test_a_second_server_with_a_folder_of_its_own_is_refused_before_the_first_version(
    opened: Open, tmp_path: Path
) -> None:
    opened(blobs=str(tmp_path / "one"))
    with pytest.raises(Conflict, match="another place") as caught:
        opened(blobs=str(tmp_path / "two"))
    assert "mounted" in caught.value.hint()
    assert not (tmp_path / "two" / MARKER).exists()
    opened(blobs=str(tmp_path / "one"))


def test_of_servers_with_different_folders_that_start_at_once_one_is_let_in(postgres_url: str, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from llmartifacts.versioning.team import open_team\n"
        "from llmartifacts.errors import Conflict\n"
        "time.sleep(max(0, float(sys.argv[3]) - time.time()))\n"
        "try:\n"
        "    open_team(sys.argv[1], sys.argv[2], connections=2).close()\n"
        "except Conflict:\n"
        "    print('refused')\n"
        "else:\n"
        "    print('in')\n"
    )
    start = str(time.time() + 1.0)
    several = [
        subprocess.Popen(
            [sys.executable, "-c", script, postgres_url, str(tmp_path / f"blobs-{number}"), start],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    assert sorted(p.communicate(timeout=100)[0].strip() for p in several) == ["in", "refused", "refused"]


def test_a_folder_with_the_mark_of_another_place_of_the_same_registry_is_refused(opened: Open, tmp_path: Path) -> None:
    opened()
    origin = (tmp_path / "blobs" / MARKER).read_text().partition(" ")[0]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / MARKER).write_text(f"{origin} {7:016x}\n")
    with pytest.raises(Conflict, match="another place"):
        opened(blobs=str(tmp_path / "two"))


def test_a_mark_whose_server_died_before_the_database_knew_is_taken_up(
    opened: Open, postgres_server: Any, postgres_url: str, tmp_path: Path
) -> None:
    opened().close()
    mark = (tmp_path / "blobs" / MARKER).read_text()
    postgres_server.execute("delete from meta where name = 'place'", url=postgres_url)
    opened().close()
    assert (tmp_path / "blobs" / MARKER).read_text() == mark
    with pytest.raises(Conflict, match="another place"):
        opened(blobs=str(tmp_path / "two"))


def test_a_running_server_notices_that_its_place_is_another(opened: Open, tmp_path: Path) -> None:
    backend = opened()
    assert is_marked(backend.parts)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    assert not is_marked(backend.parts)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / MARKER).write_text("another\n")
    assert not is_marked(backend.parts)


# --- addresses


def test_bytes_lie_where_a_file_url_says(opened: Open, tmp_path: Path) -> None:
    opened(blobs=f"file://{tmp_path}/with%20space")
    assert (tmp_path / "with space" / MARKER).read_text().startswith("llmartifacts/")


@pytest.mark.parametrize(
    ("blobs", "error", "told"),
    [
        ("nosuch://bucket/path", NotFound, "Installed: "),
        ("memory://", InvalidInput, "folder"),
        ("file://host/folder", InvalidInput, "file:///folder"),
        ("file://", InvalidInput, "folder"),
        ("", InvalidInput, "folder"),
    ],
)
def test_a_place_that_is_none_is_refused(opened: Open, blobs: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        open_team("postgresql://127.0.0.1:1/nobody", blobs)
    assert told in caught.value.hint()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("database", "error"), [("registry.db", InvalidInput), ("oracle://host/db", NotFound)])
def test_a_database_that_is_none_is_refused(tmp_path: Path, database: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_team(database, str(tmp_path / "blobs"))
    assert os.listdir(tmp_path) == []


def test_without_its_driver_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [n for n in sys.modules if n.startswith("llmartifacts.metadata.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra) as caught:
        open_team("postgresql://host/db", str(tmp_path / "blobs"))
    assert caught.value.extra == "server"


def test_a_driver_of_another_scheme_is_opened_with_the_address(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, MemoryDriver] = {}
    monkeypatch.setitem(plugins._LOADED, ("blobs", "shelf"), lambda url: places.setdefault(url, MemoryDriver()))
    with la.Registry(opened(blobs="shelf://one"), project="default", actor="ann") as registry:
        registry.log("data", la.Files({"a.txt": b"hello"}))
    assert places["shelf://one"].size(MARKER)
    with la.Registry(opened(blobs="shelf://one"), project="default", actor="ann") as registry:
        value = registry.resolve("data:v1", la.Files)
        assert value.read("a.txt") == b"hello"


# --- large files


def test_large_files_share_chunks_as_in_an_embedded_registry(opened: Open, tmp_path: Path) -> None:
    import random

    first = random.Random(7).randbytes(6_000_000)
    second = first[:3_000_000] + b"changed" + first[3_000_000:]
    with la.Registry(opened(), project="default", actor="ann") as registry:
        registry.log("data", la.Files({"a.bin": first}))
        before = sum(p.stat().st_size for p in (tmp_path / "blobs").rglob("*") if p.is_file())
        registry.log("data", la.Files({"a.bin": second}))
        after = sum(p.stat().st_size for p in (tmp_path / "blobs").rglob("*") if p.is_file())
        assert after - before < 600_000
        other = la.Registry(opened(), project="default", actor="bob")
        assert other.resolve("data:v1", la.Files).read("a.bin") == first
        assert other.resolve("data:v2", la.Files).read("a.bin") == second
        assert registry.backend.verify(read_data=True).problems == ()
        assert registry.backend.gc(dry_run=True, actor="ann").chunks == 0
