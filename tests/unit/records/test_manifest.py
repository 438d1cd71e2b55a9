import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import DigestMismatch, InvalidInput, InvalidManifest, InvalidPath, NewerFormat, TooLarge
from llmartifacts.records import manifest as module
from llmartifacts.records.canonical import MAX_INTEGER, canonical_bytes
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.records.manifest import Component, Descriptor, Manifest

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
CONFIGS = st.dictionaries(
    TEXT, st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | TEXT, st.lists), max_size=4
)
DIGESTS = st.binary(max_size=4).map(digest_of)
PATHS = st.lists(st.sampled_from(["a", "b", "c.txt", "größe", ".x"]), min_size=1, max_size=3).map("/".join)
FILES = st.lists(
    st.builds(Descriptor, PATHS, DIGESTS, st.integers(0, MAX_INTEGER), st.none() | st.just("s3://a/b")), max_size=4
)
PARTS = st.lists(
    st.builds(Component, st.sampled_from(["prompt", "index", "eval"]), st.sampled_from(["prompt", "x"]), DIGESTS),
    max_size=3,
    unique_by=lambda c: c.role,
)


@given(st.sampled_from(["prompt", "vector_index", "x-1"]), CONFIGS, FILES, PARTS)
def test_a_manifest_reads_as_it_is_written_and_has_one_form(kind, config, files, parts):
    try:
        made = Manifest.build(kind, config, files, parts)
    except InvalidPath:
        return
    data = made.to_bytes()
    for read in (Manifest.from_bytes(data), Manifest.from_bytes(data, expect=made.digest)):
        assert read == made
        assert read.to_bytes() == data
        assert read.digest == made.digest == digest_of(data)
        assert read.size == made.size == len(data) + sum(f.size for f in files)
    assert canonical_bytes(json.loads(data)) == data
    again = Manifest.build(kind, dict(reversed(config.items())), reversed(files), reversed(parts))
    assert again.digest == made.digest
    for f in files:
        assert made.file(f.path) == f
        assert f.blob == Blob(f.digest, f.size)
    assert made.file("nowhere") is None


@given(CONFIGS, CONFIGS)
def test_two_contents_have_one_identity_only_if_they_are_equal(a, b):
    same = canonical_bytes(a) == canonical_bytes(b)
    assert (Manifest.build("x", a).digest == Manifest.build("x", b).digest) is same


D = digest_of(b"")
GOOD = {
    "schema": "llmartifacts/manifest/1",
    "kind": "bundle",
    "config": {"a": 1},
    "files": [{"path": "a", "digest": D, "size": 1}, {"path": "b", "digest": D, "size": 2, "url": "s3://a/b"}],
    "components": [{"role": "p", "kind": "prompt", "digest": D}, {"role": "q", "kind": "prompt", "digest": D}],
}


def changed(path, value):
    body = json.loads(json.dumps(GOOD))
    *way, last = path
    place = body
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return body


def test_the_good_one_is_good():
    Manifest.from_bytes(canonical_bytes(GOOD))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema"], ...),
        (["schema"], 1),
        (["schema"], "other/1"),
        (["kind"], ...),
        (["kind"], "a b"),
        (["kind"], 7),
        (["config"], ...),
        (["config"], []),
        (["config"], None),
        (["files"], ...),
        (["files"], {}),
        (["files"], {"a": 1}),
        (["files"], "abc"),
        (["files"], [1]),
        (["files"], None),
        (["files", 0], []),
        (["files", 0], None),
        (["files", 0, "path"], ...),
        (["files", 0, "path"], 7),
        (["files", 0, "path"], "c"),
        (["files", 0, "path"], "b"),
        (["files", 0, "path"], "../a"),
        (["files", 0, "digest"], "sha256:0"),
        (["files", 0, "digest"], ...),
        (["files", 0, "digest"], []),
        (["files", 0, "size"], -1),
        (["files", 0, "size"], 1.5),
        (["files", 0, "size"], True),
        (["files", 0, "size"], "1"),
        (["files", 0, "size"], ...),
        (["files", 0, "mode"], 493),
        (["files", 0, "url"], None),
        (["files", 0, "url"], ""),
        (["files", 0, "url"], 7),
        (["files", 0, "url"], ["s3://a/b"]),
        (["components"], ...),
        (["components"], {}),
        (["components", 0, "role"], "q"),
        (["components", 0, "role"], "z"),
        (["components", 0, "role"], ""),
        (["components", 0, "role"], 7),
        (["components", 0, "kind"], ...),
        (["components", 0, "digest"], "x"),
        (["components", 0, "name"], "support-agent"),
        (["extra"], 1),
        (["description"], "outside identity"),
    ],
    ids=str,
)
def test_a_manifest_that_build_would_not_have_written_is_refused_also_under_its_digest(path, value):
    data = canonical_bytes(changed(path, value))
    for expect in (None, digest_of(data)):
        with pytest.raises(InvalidInput):
            Manifest.from_bytes(data, expect=expect)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, b'{"schema":[]}', b'"x"'])
def test_bytes_that_are_no_manifest_are_refused(data):
    with pytest.raises(InvalidManifest):
        Manifest.from_bytes(data, origin="registry.db")


@pytest.mark.parametrize("spoil", [lambda d: b" " + d, lambda d: d + b"\n", lambda d: d.replace(b'"a":1', b'"a":1.0')])
def test_another_spelling_of_the_same_manifest_is_refused(spoil):
    with pytest.raises(InvalidManifest, match="canonical"):
        Manifest.from_bytes(spoil(canonical_bytes(GOOD)))


def test_bytes_of_another_digest_are_refused_before_they_are_parsed():
    with pytest.raises(DigestMismatch) as caught:
        Manifest.from_bytes(b"[" * 100_000, expect=D, origin="registry.db")
    assert (caught.value.digest, caught.value.file) == (D, "registry.db")


@given(st.binary(max_size=40), st.integers(0, 400))
def test_a_spoilt_manifest_is_refused_or_reads_to_other_bytes(junk, at):
    data = canonical_bytes(GOOD)
    spoilt = data[:at] + junk + data[at + len(junk) :]
    try:
        read = Manifest.from_bytes(spoilt)
    except InvalidInput:
        return
    assert read.to_bytes() == spoilt


def test_a_newer_schema_says_so():
    with pytest.raises(NewerFormat, match="manifest/2") as caught:
        Manifest.from_bytes(canonical_bytes({**GOOD, "schema": "llmartifacts/manifest/2"}))
    assert "pgrade" in caught.value.hint()


def test_a_config_that_is_no_json_is_refused_and_the_field_named():
    with pytest.raises(InvalidManifest) as caught:
        Manifest.build("prompt", {"model": {"parameters": {"top_p": float("nan")}}})
    assert caught.value.field == "config.model.parameters.top_p"


def test_two_files_of_one_path_and_two_parts_of_one_role_are_refused():
    with pytest.raises(InvalidPath, match="twice"):
        Manifest.build("files", {}, [Descriptor("a", D, 1), Descriptor("a", D, 1)])
    with pytest.raises(InvalidManifest, match="each once"):
        Manifest.build("bundle", {}, (), [Component("a", "x", D), Component("a", "x", D)])


def test_limits_of_files_and_bytes_hold(monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 2)
    with pytest.raises(TooLarge, match="3 files"):
        Manifest.build("files", {}, [Descriptor(str(i), D, 1) for i in range(3)])
    monkeypatch.setattr(module, "MAX_BYTES", 200)
    with pytest.raises(TooLarge):
        Manifest.build("prompt", {"template": "x" * 300})
    with pytest.raises(TooLarge):
        Manifest.from_bytes(canonical_bytes({**GOOD, "config": {"x": "y" * 300}}))


@pytest.mark.slow
def test_the_largest_number_of_files_is_taken_and_looked_up():
    files = [Descriptor(f"d{i % 100}/f{i}", D, i) for i in range(module.MAX_FILES)]
    made = Manifest.build("files", {}, files)
    assert Manifest.from_bytes(made.to_bytes()) == made
    assert all(made.file(f.path) is f for f in files)
