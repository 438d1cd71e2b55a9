"""verify finds what is wrong with records and bytes, says it with a code, and is stopped by nothing that is stored."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.forms import RECIPE, key_of
from llmartifacts.errors import BlobMissing, Damaged, InvalidInput, NewerFormat, NotFound
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_bytes, digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.versioning import verify
from llmartifacts.versioning.embedded import EmbeddedBackend

Shelf = Any
Short = Any
MB = 1 << 20


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


def change(backend: EmbeddedBackend, sql: str, **values: object) -> None:
    with backend.parts.metadata.writing() as s:
        s.run(sql, values)


# --- records, over each database


ALTERED = (
    ("update version set size = size + 1 where number = 1", "bytes"),
    ("update version set git_commit = 'f00'", "Git commit"),
    ("update version set message = 'another'", "message"),
    ("update version set created_at = created_at + 1 where number = 2", "time"),
    ("update collection set kind = 'another-kind'", "kind"),
    ("update collection set created_at = created_at + 1", "time of the collection"),
    ("update tag set value = 'another'", "tags"),
    ("delete from tag", "tags"),
    ("update move set actor = 'eve' where alias = 'latest'", "latest"),
    ("update move set at = at + 1 where alias = 'latest' and number = 2", "latest"),
    ("update manifest set size = size + 1", "bytes"),
    ("update audit set at = at + 1 where id = 3", "time"),
    ("update audit set subject = 'another' where id = 3", "subject"),
    ("update audit set verb = 'tag' where id = 3", "verb"),
    ("update edge set relation = 'derived_frem'", "lineage"),
)
"""What is altered, and a word of what is said of it."""


class _Undone(Exception):
    pass


def test_a_record_that_was_altered_is_found(short: Short) -> None:
    short.log("kb", "one", tags={"ticket": "CHG-1"})
    short.log("kb", "two", inputs=("kb:v1",))
    assert short.backend.verify().problems == ()
    for sql, told in ALTERED:
        with suppress(_Undone), short.backend.parts.metadata.writing() as s:
            s.run(sql)
            found = short.backend.verify()
            raise _Undone
        assert any(told in str(problem) for problem in found.problems), (sql, found.problems)
        assert {wire.exit_code(problem) for problem in found.problems} == {wire.DAMAGED}
    assert short.backend.verify().problems == ()


def test_tags_that_come_and_go_are_what_the_audit_says(short: Short) -> None:
    from llmartifacts.records.reference import Reference

    backend, first = short.backend, Reference.parse("kb:v1")
    short.log("kb", "one", tags={"a": "1", "b": "2"})
    short.log("kb", "two")
    backend.tag("default", first, set={"a": "3", "c": "4"}, remove=["b"], actor="ann")
    short.log("kb", "one", tags={"d": "5"})
    backend.tag("default", first, set={}, remove=["d"], actor="ann")
    assert backend.verify().problems == ()
    change(backend, "update tag set value = '2' where name = 'c'")
    assert any("tags" in str(problem) for problem in backend.verify().problems)


def test_a_file_that_is_listed_with_another_size_is_found(short: Short) -> None:
    with short.backend.blobs.stage() as staging:
        blob = staging.add(b"kept")
        manifest = Manifest.build("files", {}, [Descriptor("a", blob.digest, blob.size)])
        short.backend.commit("default", [la_draft("kb", manifest)], actor="ann", staging=staging)
    assert short.backend.verify().ok
    change(short.backend, "update content set size = size + 1")
    assert not short.backend.verify().ok


def la_draft(name: str, manifest: Manifest) -> Any:
    from llmartifacts.records.backend import Draft

    return Draft(name, manifest)


def test_content_kept_outside_is_not_looked_for(short: Short) -> None:
    outside = Descriptor("a", digest_of(b"elsewhere"), 9, "https://example.com/a")
    short.backend.commit("default", [la_draft("kb", Manifest.build("unknown-kind", {}, [outside]))], actor="ann")
    found = short.backend.verify(read_data=True)
    assert (found.ok, found.blobs) == (True, 0)


# --- bytes


@pytest.fixture
def full(shelf: Shelf) -> Shelf:
    for number in range(6):
        shelf.log("small", b"text %d " % number * 300)
    shelf.log("large", noise(1))
    shelf.log("large", noise(2))
    return shelf


def spoil(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_all_parts_together_find_what_one_check_finds(full: Shelf) -> None:
    for path in full.place.joinpath("blobs").rglob("*"):
        if path.is_file() and path.suffix != ".recipe":
            spoil(path)
    whole = full.registry.verify(read_data=True)
    parts = [full.registry.verify(subset=f"{number}/4") for number in range(1, 5)]
    assert [part.part for part in parts] == ["1/4", "2/4", "3/4", "4/4"]
    assert {str(p) for part in parts for p in part.problems} == {str(p) for p in whole.problems}
    assert all(len(part.problems) < len(whole.problems) for part in parts)
    assert list(map(str, full.registry.verify(subset="100%").problems)) == list(map(str, whole.problems))


def test_only_the_bytes_of_one_collection(full: Shelf) -> None:
    for path in full.place.joinpath("blobs", "packs").rglob("*.pack"):
        spoil(path)
    assert full.registry.verify("small", read_data=True).ok
    found = full.registry.verify("large", read_data=True)
    assert (found.versions, found.blobs, len(found.problems)) == (2, 2, 2)
    with pytest.raises(NotFound):
        full.registry.verify("nothing")
    with pytest.raises(InvalidInput):
        full.registry.verify(subset="5/4")


def test_progress_ends_at_all_of_it(full: Shelf) -> None:
    told: list[tuple[int, int]] = []
    full.registry.verify(read_data=True, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 2 * MB


def test_the_versions_that_need_a_file_are_counted(full: Shelf) -> None:
    for number in range(30):
        full.registry.log(f"copy-{number}", la.Files({"index.faiss": b"text 1 " * 300}))
    found = full.registry.find("copy-1:v1").manifest.files[0]
    for form in ("", ".zst"):
        full.place.joinpath("blobs", key_of(found.digest, form)).unlink(missing_ok=True)
    (problem,) = full.registry.verify().problems
    assert isinstance(problem, BlobMissing)
    assert (len(problem.versions), problem.needed_by) == (verify.NAMED, 31)
    assert str(problem).endswith("and 11 more")


def test_of_very_many_findings_the_others_are_counted(full: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LISTED", 3)
    for path in full.place.joinpath("blobs", "sha256").rglob("*"):
        if path.is_file():
            path.unlink()
    found = full.registry.verify()
    assert (len(found.problems), found.more, found.ok) == (3, 5, False)


# --- what somebody hostile stored


def put_recipe(shelf: Shelf, reference: str, **header: Any) -> None:
    """A recipe with a lie in its header and the right checksum."""
    import blake3

    file = shelf.registry.find(reference).manifest.files[0]
    path = shelf.place / "blobs" / key_of(file.digest, RECIPE)
    data = path.read_bytes()
    length = int.from_bytes(data[8:12], "little")
    told = {**recipes.parse_json(data[12 : 12 + length]), **header}
    made = canonical_bytes(told)
    body = data[:8] + len(made).to_bytes(4, "little") + made + data[12 + length : -32]
    path.chmod(0o644)
    path.write_bytes(body + blake3.blake3(body).digest())


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 1 << 52},
        {"codec": "lines", "parameters": {}},
        {"codec": "faiss-ivf", "parameters": {"nlist": -1}},
        {"codec": "faiss-rows", "parameters": {"rows": "many"}},
        {"dead": 1 << 52},
        {"streams": []},
        {"streams": [{"name": "rows", "entries": 1 << 40, "stored": 1, "nodes": True}]},
    ],
    ids=str,
)
def test_a_recipe_that_lies_is_a_finding(full: Shelf, lie: dict[str, Any]) -> None:
    put_recipe(full, "large:v1", **lie)
    for read_data in (False, True):
        found = full.registry.verify(read_data=read_data)
        assert all(isinstance(p, Damaged | NewerFormat) for p in found.problems)
    if found.ok:  # it lies about what does not matter
        assert full.read("large:v1") == noise(1)
    else:
        with pytest.raises((Damaged, NewerFormat)):
            full.read("large:v1")


def test_a_recipe_of_a_newer_release_is_told_as_that(full: Shelf) -> None:
    put_recipe(full, "large:v1", codec="cdc", version=99)
    found = full.registry.verify(read_data=True)
    assert {type(p) for p in found.problems} == {NewerFormat}
    assert wire.exit_code(found.problems[0]) == wire.NEWER_FORMAT


def test_a_manifest_of_a_newer_release_is_told_as_that(full: Shelf) -> None:
    body = canonical_bytes({"schema": "llmartifacts/manifest/2"})
    with full.parts.metadata.writing() as s:
        values = {"d": digest_bytes(digest_of(body)), "b": body, "n": len(body)}
        s.run("insert into manifest(digest, body, size) values (:d, :b, :n)", values)
    assert [type(p) for p in full.registry.verify().problems] == [NewerFormat]


@pytest.mark.parametrize("body", [b"", b"[]", b"{" * 100_000, b"\xff", b'{"schema": 1}'], ids=len)
def test_a_manifest_that_is_none_is_a_finding(full: Shelf, body: bytes) -> None:
    with full.parts.metadata.writing() as s:
        values = {"d": digest_bytes(digest_of(body)), "b": body, "n": len(body)}
        s.run("insert into manifest(digest, body, size) values (:d, :b, :n)", values)
    (problem,) = full.registry.verify().problems
    assert isinstance(problem, Damaged)
    assert "manifest" in problem.message


def test_a_bomb_in_the_place_of_a_file_is_read_no_further_than_it_should_be(full: Shelf) -> None:
    import zstandard

    file = full.registry.find("small:v1").manifest.files[0]
    path = full.place / "blobs" / key_of(file.digest, "")
    path.unlink(missing_ok=True)
    bomb = full.place / "blobs" / key_of(file.digest, ".zst")
    bomb.unlink(missing_ok=True)
    bomb.parent.mkdir(parents=True, exist_ok=True)
    bomb.write_bytes(zstandard.compress(bytes(1 << 28)))
    (problem,) = full.registry.verify(read_data=True).problems
    assert isinstance(problem, Damaged)
    assert problem.versions == ("small:v1",)
