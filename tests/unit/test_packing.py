import io

import pytest

from llmartifacts import packing, plugins
from llmartifacts.errors import BlobMissing, DigestMismatch, InvalidPath, InvalidValue, NotFound, WrongKind
from llmartifacts.kinds.base import Config, Kind
from llmartifacts.kinds.bundle import Bundle, BundleKind
from llmartifacts.kinds.files import External, Files, FilesKind
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.records.manifest import Component, Manifest

LLM = ModelSpec("openai", "gpt-4-turbo")


class Store:
    """Staging and blobs in one dict; `broken` answers as a damaged store would."""

    def __init__(self, folder):
        self.blobs, self.broken, self.folder = {}, {}, folder

    def add(self, source, like=tuple):
        data = source if isinstance(source, bytes) else source.read()
        digest = digest_of(data)
        self.blobs[digest] = data
        return Blob(digest, len(data))

    def publish(self):
        raise AssertionError("packing never publishes")

    def read(self, blob):
        if blob.digest in self.broken:
            raise self.broken[blob.digest]
        return self.blobs[blob.digest]

    def open(self, blob):
        return io.BytesIO(self.read(blob))

    def path(self, blob):
        place = self.folder / blob.digest[7:]
        place.write_bytes(self.read(blob))
        return place


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def nothing(digests):
    return {}


def test_a_value_goes_into_a_manifest_and_comes_back(store):
    manifest = packing.pack(FilesKind(), Files({"b": b"22", "a": b"1"}), store)
    assert [f.path for f in manifest.files] == ["a", "b"]
    assert manifest.kind == "files"
    files = packing.unpack(manifest, store, nothing)
    assert {p: files.read(p) for p in files} == {"a": b"1", "b": b"22"}


def test_an_external_file_keeps_its_address_and_is_not_asked_of_the_store(store):
    pinned = External("s3://models/w.bin", digest_of(b"w"), 1)
    manifest = packing.pack(FilesKind(), Files({"a": b"1"}, external={"w.bin": pinned}), store)
    assert manifest.file("w.bin").url == "s3://models/w.bin"
    view = packing.view(manifest, store)
    assert view.size("w.bin") == 1
    for read in (view.read, view.open, view.as_path):
        with pytest.raises(NotFound, match="outside"):
            read("w.bin")


def test_the_parts_of_a_bundle_are_loaded_by_role(store):
    part = packing.pack(FilesKind(), Files({"a": b"1"}), store)
    components = [Component("data", "files", part.digest)]
    manifest = packing.pack(BundleKind(), Bundle({"data": "docs:v1"}, {"llm": LLM}), store, components)
    bundle = packing.unpack(manifest, store, lambda digests: {part.digest: part})
    assert bundle.component("data", Files).read("a") == b"1"
    assert bundle.components == {"data": part.digest}


def test_a_part_that_is_missing_is_named(store):
    manifest = packing.pack(
        BundleKind(), Bundle({"data": "docs:v1"}), store, [Component("data", "files", digest_of(b"x"))]
    )
    with pytest.raises(NotFound, match="'data'") as caught:
        packing.unpack(manifest, store, nothing)
    assert caught.value.name == "data"


@pytest.mark.parametrize("error", [DigestMismatch, BlobMissing])
def test_a_damaged_file_is_named_by_its_path_and_keeps_its_error(store, error):
    manifest = packing.pack(FilesKind(), Files({"deep/a.onnx": b"weights"}), store)
    digest = manifest.files[0].digest
    store.broken[digest] = error("bad bytes", digest=digest, file="blobs/ab", versions=("kb:v1",))
    files = packing.unpack(manifest, store, nothing)
    for read in (files.read, files.open, files.path):
        with pytest.raises(error, match=r"deep/a\.onnx: bad bytes") as caught:
            read("deep/a.onnx")
        assert (caught.value.digest, caught.value.file, caught.value.versions) == (digest, "blobs/ab", ("kb:v1",))


@pytest.mark.parametrize("name", ["multimodal-decoder-with-input-ids", "marian-batch", "engine/dummy-decoder"])
def test_a_real_onnx_bundle_is_packed_and_loaded_and_an_altered_file_is_named(store, shared_data, name):
    folder = shared_data / "bundles" / "onnxruntime_genai" / name
    manifest = packing.pack(BundleKind(), Bundle.from_folder(folder), store)
    bundle = packing.unpack(manifest, store, nothing)
    for path in bundle.model_files("llm"):
        assert bundle.model_files("llm").read(path) == (folder / path).read_bytes()
    for descriptor in manifest.files:
        if descriptor.path.endswith(".onnx"):
            store.broken = {descriptor.digest: DigestMismatch("altered", digest=descriptor.digest)}
            with pytest.raises(DigestMismatch, match=descriptor.path):
                packing.unpack(manifest, store, nothing)


def test_an_unknown_path_of_a_view_is_not_found_and_near_paths_are_given(store):
    view = packing.view(packing.pack(FilesKind(), Files({"config.json": b""}), store), store)
    for ask in (view.read, view.open, view.as_path, view.size, view.descriptor):
        with pytest.raises(NotFound) as caught:
            ask("confg.json")
        assert caught.value.near == ("config.json",)
    with pytest.raises(NotFound):
        view.component("x")
    assert view.parts() == ()


class Odd:
    pass


class OddConfig(Config):
    n: int


class OddKind(Kind[Odd]):
    name = "odd"
    value_type = Odd
    config_model = OddConfig
    config = {"n": 1}  # noqa: RUF012
    path = ""

    def pack(self, value, files):
        if self.path:
            files.add(self.path, b"x")
        return self.config

    def unpack(self, config, files):
        return Odd()

    def summary(self, config):
        return "odd"

    def read_source(self, paths, options):
        return Odd()


def test_the_kind_of_a_value_is_found_by_what_it_says_or_by_its_type(monkeypatch):
    assert packing.kind_of(Files({"a": b""})).name == "files"
    monkeypatch.setitem(plugins.BUILT_IN["kinds"], "odd", "x:y")
    monkeypatch.setitem(plugins._LOADED, ("kinds", "odd"), OddKind)
    assert packing.kind_of(Odd()).name == "odd"


class Borrowed:
    """A stranger's class that happens to say a kind."""

    kind = "files"


class Unheard:
    kind = "no-such-kind"


@pytest.mark.parametrize("value", [7, "text", None, {"a": 1}, object(), OddKind, Borrowed(), Unheard()])
def test_a_value_of_no_kind_is_refused_and_what_can_be_logged_is_said(value):
    with pytest.raises(WrongKind, match="cannot be logged") as caught:
        packing.kind_of(value)
    assert "VectorIndex" in caught.value.hint() or "la.Files.from_path" in caught.value.hint()


@pytest.mark.parametrize(("config", "field"), [({"n": "x"}, "n"), ({}, "n"), ({"n": 1, "m": 2}, "m")])
def test_a_config_that_a_kind_itself_refuses_is_never_stored(store, monkeypatch, config, field):
    monkeypatch.setattr(OddKind, "config", config)
    with pytest.raises(InvalidValue) as caught:
        packing.pack(OddKind(), Odd(), store)
    assert caught.value.field == field


def test_an_unsafe_path_of_a_kind_is_refused_before_its_bytes_are_taken(store, monkeypatch):
    monkeypatch.setattr(OddKind, "path", "../a")
    with pytest.raises(InvalidPath):
        packing.pack(OddKind(), Odd(), store)
    assert store.blobs == {}


def test_a_kind_that_is_not_installed_is_named():
    with pytest.raises(NotFound, match="'knowledge_graph'"):
        packing.unpack(Manifest.build("knowledge_graph", {}), None, nothing)


def test_a_value_of_another_type_than_asked_for_is_refused_with_the_type_it_has():
    files = Files({"a": b""})
    assert packing.expect_type(files, Files, "x:prod") is files
    with pytest.raises(WrongKind, match="x:prod is a Files, not a Bundle") as caught:
        packing.expect_type(files, Bundle, "x:prod")
    assert "la.Files" in caught.value.hint()
