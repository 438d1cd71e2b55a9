"""An embedded registry and short ways to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.blobs.store import BlobStore
from llmartifacts.metadata.postgres import PostgresDatabase
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.backend import Draft, Input, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.parts import Parts

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test with many cases one is tried over PostgreSQL too: the SQL is one text. `make matrix` tries all."""
    seen = set()
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if HERE in item.path.parents and given.get("backend") == "postgresql" and len(given) > 1:
            test = (item.path, item.originalname)  # type: ignore[attr-defined]
            if test in seen:
                item.add_marker(pytest.mark.matrix)
            seen.add(test)


class Short:
    """The embedded backend of the project `default`, in few words."""

    def __init__(self, backend: EmbeddedBackend) -> None:
        self.backend = backend

    def draft(self, name: str, content: str, inputs: tuple[str, ...] = (), **more: Any) -> Draft:
        edges = tuple(Input(Reference.parse(i)) for i in inputs)
        return Draft(name, Manifest.build("unknown-kind", {"content": content}), inputs=edges, **more)

    def log(self, name: str, content: str, inputs: tuple[str, ...] = (), **more: Any) -> Version:
        return self.backend.commit("default", [self.draft(name, content, inputs, **more)], actor="ann")[0]

    def promote(self, *references: str, to: str = "prod", **more: Any) -> Promotion:
        targets = tuple(Target(Reference.parse(r), to) for r in references)
        return self.backend.promote("default", PromotionRequest(targets, **more), actor="bob")

    def rollback(self, target: str, **more: Any) -> Promotion:
        parsed: Any = target if "@r" in target else Reference.parse(target)
        if "to" in more:
            more["to"] = Reference.parse(more["to"])
        return self.backend.rollback("default", parsed, reason="it was worse", actor="cat", **more)

    def at(self, reference: str) -> str:
        """`vN` that a reference means, or `-`."""
        item = self.backend.read("default", [Reference.parse(reference)]).items[0]
        return "-" if isinstance(item, Exception) else f"v{item.version.number}"


@pytest.fixture(scope="session")
def with_tables(postgres_server: Any) -> str:
    """URL of a PostgreSQL database with this release's tables and nothing in them; to be copied."""
    url: str = postgres_server.new_database()
    MetadataStore(PostgresDatabase(url, connections=1), create=True).close()
    return url


@pytest.fixture
def postgres_tables(postgres_server: Any, with_tables: str) -> Iterator[str]:
    """A copy of it, dropped after the test."""
    url = postgres_server.new_database(with_tables)
    try:
        yield url
    finally:
        postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedBackend]:
    """The verbs over each database: the SQL is one text, and both take it."""
    monkeypatch.setattr("llmartifacts.versioning.judge.ALWAYS", ())
    made = EmbeddedBackend.create(tmp_path / "registry", actor="ann")
    if request.param == "postgresql":
        made.close()
        database = PostgresDatabase(request.getfixturevalue("postgres_tables"), connections=4)
        store = MetadataStore(database)
        blobs = BlobStore.local(Path(made.location) / "blobs", index=lambda driver: RecordedIndex(store, driver))
        made = EmbeddedBackend(Parts(store, blobs, made.location))
        made.create_project("default", actor="ann")
    yield made
    made.close()


@pytest.fixture
def short(backend: EmbeddedBackend) -> Short:
    return Short(backend)


# --- large files, as users log them


class Shelf:
    """A registry of large files, in few words."""

    def __init__(self, registry: la.Registry) -> None:
        self.registry = registry
        self.place = Path(registry.backend.location)

    @property
    def parts(self) -> Parts:
        backend: Any = self.registry.backend
        parts: Parts = backend._parts
        return parts

    def log(self, name: str, content: bytes, **more: Any) -> Version:
        return self.registry.log(name, la.Files({"index.faiss": content}), **more)

    def read(self, reference: str) -> bytes:
        file = self.registry.find(reference).manifest.file("index.faiss")
        assert file is not None
        return self.registry.backend.blobs.read(file.blob)

    def forget(self, reference: str) -> None:
        """Take a version out of the records, so that nothing needs its bytes any more."""
        found = self.registry.find(reference).version
        with self.parts.metadata.writing() as s:
            s.run(
                "delete from version where number = :n and collection_id = (select id from collection where name = :c)",
                {"n": found.number, "c": found.name},
            )

    def files(self, folder: str = "") -> dict[str, int]:
        """Path -> bytes of every file below `blobs/`."""
        root = self.place / "blobs"
        return {str(p.relative_to(root)): p.stat().st_size for p in (root / folder).rglob("*") if p.is_file()}

    def on_disk(self) -> int:
        return sum(self.files().values())

    def holds(self, data: bytes) -> bool:
        """Whether some file below `blobs/` has these bytes in it."""
        return any(data in (self.place / "blobs" / name).read_bytes() for name in self.files())


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with la.init(tmp_path / "shelf") as registry:
        yield Shelf(registry)


@pytest.fixture(scope="session")
def flask_vectors(shared_data: Path) -> Any:
    """Real embeddings of real passages: those of Flask 3.1's documentation, float32, shape (passages, 384)."""
    import json

    import numpy as np

    folder = shared_data / "corpora" / "flask_docs"
    lines = (folder / "3.1.0.chunks.jsonl").read_text(encoding="utf-8").splitlines()
    every = np.load(folder / "embeddings.npy", allow_pickle=False)
    return np.ascontiguousarray(every[[json.loads(line)["row"] for line in lines]], "f4")


@pytest.fixture
def ivf() -> Callable[..., bytes]:
    """Makes the file of an IVF index: vectors, ids, and which to remove after they were added."""

    def make(vectors: Any, ids: Any = None, remove: Any = ()) -> bytes:
        import faiss
        import numpy as np

        quantizer = faiss.IndexFlatIP(vectors.shape[1])
        index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], 8, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:700])
        index.add_with_ids(vectors, np.arange(len(vectors)) if ids is None else np.asarray(ids, np.int64))
        if len(remove):
            index.remove_ids(np.asarray(remove, np.int64))
        return bytes(faiss.serialize_index(index))

    return make
