"""A version that names stored bytes: the store is looked at while others write, and what it says still holds then."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import BlobMissing
from llmartifacts.metadata import projects
from llmartifacts.records.digest import Blob
from llmartifacts.server.app import create_app
from llmartifacts.server.config import Settings
from llmartifacts.server.logs import Log
from llmartifacts.versioning import standing
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.gc import gc
from llmartifacts.versioning.parts import Parts

sys.path.insert(0, str(Path(__file__).parent))
from asgi import Asked, Reply

LARGE = bytes(range(256)) * 8000
SMALL = b"small"


class Site:
    """A server without a network, over a registry in which one version has a large and a small file."""

    def __init__(self, where: Path) -> None:
        with la.init(where, actor="ann") as registry:
            registry.log("files", la.Files({"large": LARGE, "small": SMALL}))
            self.manifest = registry.find("files:v1").manifest
        self.backend = EmbeddedBackend.open(where)
        settings = Settings(registry=str(where), authenticate=False)
        self.asked = Asked(create_app(settings, self.backend, log=Log("json", io.StringIO())))

    def log_again(self, name: str) -> Reply:
        """Log what the first version has, without sending a byte of it."""
        draft = {"name": name, "manifest": json.loads(self.manifest.to_bytes())}
        return self.asked("POST", "/api/v1/projects/default/commit", body={"drafts": [draft]})

    def close(self) -> None:
        self.asked.close()
        self.backend.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "registry")
    yield made
    made.close()


def watch(monkeypatch: pytest.MonkeyPatch, before: Any) -> list[Blob]:
    """Have something happen before each look at the store; gives the blobs that were looked at."""
    seen: list[Blob] = []
    plain = standing.check_there

    def look(parts: Parts, blob: Blob) -> None:
        seen.append(blob)
        before(len(seen))
        plain(parts, blob)

    monkeypatch.setattr(standing, "check_there", look)
    return seen


def test_others_write_while_the_store_is_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bool] = []

    def write(_: int) -> None:
        def of_somebody_else() -> None:
            with site.backend.parts.metadata.writing() as s:
                projects.ensure_project(s, "default")

        other = threading.Thread(target=of_somebody_else, daemon=True)
        other.start()
        other.join(20)
        written.append(not other.is_alive())

    seen = watch(monkeypatch, write)
    assert site.log_again("copy").status == 200
    assert sorted(blob.size for blob in seen) == [len(SMALL), len(LARGE)]  # each once
    assert written == [True, True]


@pytest.mark.parametrize("compact", [False, True])
def test_a_collection_between_the_look_and_the_transaction_takes_nothing_away(
    site: Site, monkeypatch: pytest.MonkeyPatch, compact: bool
) -> None:
    watch(monkeypatch, lambda _: gc(site.backend.parts, actor="ann", compact=compact))
    assert site.log_again("copy").status == 200
    assert site.backend.verify(read_data=True).ok


def test_what_is_missed_at_first_is_looked_at_again_in_the_transaction(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moves_meanwhile(number: int) -> None:
        if number == 1:
            raise BlobMissing("it is under way to another pack")

    seen = watch(monkeypatch, moves_meanwhile)
    assert site.log_again("copy").status == 200
    assert len(seen) == 3


def test_what_is_lost_is_refused_and_nothing_is_logged(site: Site) -> None:
    driver = site.backend.parts.blobs.driver
    for key, _ in list(driver.list("packs/")):
        driver.delete(key)
    refused = site.log_again("copy")
    assert (refused.status, refused.error["code"]) == (422, "invalid_value")
    assert "lost or damaged" in refused.error["message"]
    assert [found.name for found in site.backend.collections("default")] == ["files"]
