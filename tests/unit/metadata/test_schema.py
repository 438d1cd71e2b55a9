"""A registry that the release before wrote is brought to this release's schema with all that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmartifacts.metadata import condemned, leases, projects, store, versions
from llmartifacts.metadata.postgres import PostgresDatabase
from llmartifacts.metadata.schema import MIGRATIONS, SCHEMA
from llmartifacts.metadata.sqlite import SqliteDatabase
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.digest import digest_bytes
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        return lambda: PostgresDatabase(url, connections=2)
    return lambda: SqliteDatabase(tmp_path / "registry.db", create=True)


def test_what_nobody_removed_is_not_removed_after_the_sixth_migration(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.build("unknown-kind", {"content": "1"})
    with monkeypatch.context() as before:
        before.setattr(store, "MIGRATIONS", MIGRATIONS[:5])
        before.setattr(store, "SCHEMA", 5)
        old = MetadataStore(make(), create=True)
        with old.writing() as s:
            s.run("insert into project(name, name_key, created_at, collections) values ('default', 'default', 1, 1)")
            s.run(
                "insert into collection(project_id, name, name_key, kind, head, latest, latest_move, created_at)"
                " values (1, 'a', 'a', 'unknown-kind', 1, 1, 1, 1)"
            )
            digest = digest_bytes(manifest.digest)
            body = manifest.to_bytes()
            s.run("insert into manifest(digest, body, size) values (:d, :b, :n)", {"d": digest, "b": body, "n": 1})
            s.run(
                "insert into version(collection_id, number, digest, size, author, message, git_commit, run_id,"
                " created_at) values (1, 1, :d, 1, 'ann', '', '', '', 1)",
                {"d": digest},
            )
        old.close()
    now = MetadataStore(make())
    with now.reading() as s:
        assert s.row("select value from meta where name = 'schema'") == (SCHEMA,)
        project, _ = projects.find_project(s, "default")
        assert projects.removed_at(s, project) is None
        found = versions.find(s, project, "default", Reference("a", number=1))
        assert (found.version.removed_at, found.version.removed_by, found.version.remove_rule) == (None, "", "")
        assert versions.manifest_body(s, manifest.digest) == (manifest.to_bytes(), 1)
        assert condemned.all_of(s) == {}
        assert leases.of_project(s, project, "default") == []
    now.close()
