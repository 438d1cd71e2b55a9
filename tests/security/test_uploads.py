"""What comes from outside is believed in nothing: what is wrong is refused with a typed error, and nothing is kept."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
import zstandard

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import recipe as recipes
from llmartifacts.blobs.chunks.entries import entries_of
from llmartifacts.blobs.chunks.pack import PackWriter
from llmartifacts.blobs.chunks.recipe import Encoded, Recipe
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD
from llmartifacts.errors import Conflict, InvalidInput, InvalidValue, NotAllowed, NotFound, TooLarge
from llmartifacts.metadata import projects
from llmartifacts.metadata import uploads as rows
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Blob, Digest, digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.versioning import downloads, standing, uploads
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.uploads import Sent, SentBlob, SentPack, UploadLimits

P = "default"


@dataclass
class Site:
    """A registry, and uploads by hand."""

    backend: EmbeddedBackend
    folder: Path
    count: int = 0

    def start(self, *digests: Digest, account: str = "ann") -> str:
        return uploads.start(self.backend.parts, P, digests or (digest_of(b"x"),), account=account).id

    def put(self, upload: str, data: bytes, *, account: str = "ann") -> tuple[str, ...]:
        names = []
        for at in range(0, len(data), PIECE * 8):
            piece = data[at : at + PIECE * 8]
            names.append(hashlib.sha256(piece).hexdigest())
            uploads.put_piece(self.backend.parts, P, upload, names[-1], piece, account=account)
        return tuple(names)

    def finish(self, upload: str, sent: Sent, *, account: str = "ann", **more: Any) -> tuple[Digest, ...]:
        return uploads.finish(self.backend.parts, P, upload, sent, account=account, **more)

    def send(self, row: Row, parents: tuple[Digest, ...] = (), **more: Any) -> tuple[str, tuple[Digest, ...]]:
        upload = self.start(*(one.blob.digest for one in row.blobs))
        names = self.put(upload, bytes(row.data))
        return upload, self.finish(upload, Sent(names, tuple(row.packs), tuple(row.blobs), parents), **more)

    def commit(self, upload: str | None, *blobs: Blob, name: str = "files", account: str = "ann") -> None:
        files = [Descriptor(f"f{n}", blob.digest, blob.size) for n, blob in enumerate(blobs)]
        manifest = Manifest.build("unknown-kind", {}, files)
        with self.backend.parts.metadata.writing() as s:
            project_id, _ = projects.find_project(s, P)
            uploads.require_available(s, project_id, upload, account, [b.digest for b in blobs])
            self.backend.commit(P, [Draft(name, manifest)], actor=account)

    def kept(self) -> list[str]:
        """Every stored object and piece."""
        return [key for key, _ in self.backend.parts.blobs.driver.list("")]

    def pack(self, *chunks: bytes, form: int = packs.RAW) -> tuple[str, bytes]:
        self.count += 1
        writer = PackWriter(self.folder / f"pack{self.count}")
        for chunk in chunks:
            data = chunk if form == packs.RAW else zstandard.compress(chunk)
            writer.add(blake3.blake3(chunk).digest(), data, len(chunk), form)
        return writer.finish(), (self.folder / f"pack{self.count}").read_bytes()


@dataclass
class Row:
    """What is sent, one thing after another."""

    data: bytearray = field(default_factory=bytearray)
    packs: list[SentPack] = field(default_factory=list)
    blobs: list[SentBlob] = field(default_factory=list)

    def pack(self, name: str, data: bytes) -> Row:
        self.packs.append(SentPack(name, len(self.data), len(data)))
        self.data += data
        return self

    def blob(self, blob: Blob, form: str, data: bytes) -> Row:
        self.blobs.append(SentBlob(blob, form, len(self.data), len(data)))
        self.data += data
        return self


def blob_of(data: bytes) -> Blob:
    return Blob(digest_of(data), len(data))


def recipe_of(*chunks: bytes, size: int | None = None, codec: str = "cdc") -> bytes:
    entries = entries_of([blake3.blake3(c).digest() for c in chunks], [len(c) for c in chunks])
    made = Recipe(codec, 1, sum(map(len, chunks)) if size is None else size, Encoded({}, {"data": entries}))
    return recipes.write(made, lambda entries, ends: entries)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    backend = EmbeddedBackend.create(tmp_path / "registry", actor="tests")
    folder = tmp_path / "work"
    folder.mkdir()
    yield Site(backend, folder)
    backend.close()


A, B = b"a" * 70_000, bytes(range(256)) * 300


def test_a_large_blob_that_is_what_it_says_is_stored_and_can_be_logged(site: Site) -> None:
    name, data = site.pack(A, B)
    blob = blob_of(A + B + A)
    upload, made = site.send(Row().pack(name, data).blob(blob, RECIPE, recipe_of(A, B, A)))
    assert made == (blob.digest,)
    site.commit(upload, blob)
    assert site.backend.blobs.read(blob) == A + B + A
    assert not [key for key in site.kept() if key.startswith("uploads/")]
    assert site.backend.verify(read_data=True).ok


@pytest.mark.parametrize("form", [RAW, ZSTD])
def test_many_small_blobs_fit_into_one_piece(site: Site, form: str) -> None:
    from llmartifacts.blobs.forms import encode

    row = Row()
    texts = [f"text {n} ".encode() * 20 for n in range(200)]
    for text in texts:
        row.blob(blob_of(text), form, encode(form, text))
    upload, made = site.send(row)
    assert len(made) == 200
    site.commit(upload, *(blob_of(text) for text in texts))
    assert [site.backend.blobs.read(blob_of(text)) for text in texts] == texts


def test_a_piece_must_be_what_its_name_says(site: Site) -> None:
    upload = site.start()
    with pytest.raises(InvalidValue):
        uploads.put_piece(site.backend.parts, P, upload, hashlib.sha256(b"other").hexdigest(), b"this", account="ann")
    assert site.kept() == []


@pytest.mark.parametrize("name", ["", "A" * 64, "../../../etc/passwd", "0" * 63, "0" * 64 + "\n"])
def test_a_piece_has_no_other_name_than_a_digest(site: Site, name: str) -> None:
    with pytest.raises(InvalidInput):
        uploads.put_piece(site.backend.parts, P, site.start(), name, b"this", account="ann")


@pytest.mark.parametrize("upload", ["", "x", "../" * 10, "0" * 32, "0" * 31 + "%"])
def test_an_upload_that_is_not_there_is_not_found(site: Site, upload: str) -> None:
    with pytest.raises(NotFound):
        site.put(upload, b"this")
    with pytest.raises(NotFound):
        site.finish(upload, Sent(()))
    with pytest.raises(NotFound):
        site.commit(upload)


def test_an_upload_is_not_there_for_another_account_or_project(site: Site) -> None:
    row = Row().blob(blob_of(b"mine"), RAW, b"mine")
    upload, _ = site.send(row)
    site.backend.create_project("other", actor="tests")
    for account, project in (("bob", P), ("ann", "other")):
        with pytest.raises(NotFound):
            uploads.put_piece(
                site.backend.parts, project, upload, hashlib.sha256(b"x").hexdigest(), b"x", account=account
            )
        with pytest.raises(NotFound):
            uploads.remaining(site.backend.parts, project, upload, (), account=account)
        with pytest.raises(NotFound):
            uploads.abort(site.backend.parts, project, upload, account=account)
    with pytest.raises(NotFound):
        site.commit(upload, blob_of(b"mine"), account="bob")
    site.commit(upload, blob_of(b"mine"))


def test_knowing_a_digest_gives_no_right_to_it(site: Site) -> None:
    site.backend.create_project("secret", actor="tests")
    secret = b"secret" * 1000
    with site.backend.blobs.stage() as staging:
        blob = staging.add(secret)
        manifest = Manifest.build("unknown-kind", {}, [Descriptor("f", blob.digest, blob.size)])
        site.backend.commit("secret", [Draft("files", manifest)], actor="eve", staging=staging)
    assert uploads.start(site.backend.parts, P, [blob.digest], account="ann").absent == (blob.digest,)
    with pytest.raises(InvalidValue):
        site.commit(None, blob)
    upload, _ = site.send(Row().blob(blob_of(b"other"), RAW, b"other"))
    with pytest.raises(InvalidValue):
        site.commit(upload, blob)
    with pytest.raises(NotFound):
        downloads.visible(site.backend.parts, blob.digest, lambda project: project == P)
    assert downloads.visible(site.backend.parts, blob.digest, lambda project: project == "secret") == blob


def test_what_may_not_be_seen_is_answered_like_what_is_not_there(site: Site) -> None:
    upload, _ = site.send(Row().blob(blob_of(b"mine"), RAW, b"mine"))
    site.commit(upload, blob_of(b"mine"))
    told = []
    for digest in (digest_of(b"mine"), digest_of(b"nothing")):
        with pytest.raises(NotFound) as error:
            downloads.visible(site.backend.parts, digest, lambda _: False)
        told.append(str(error.value).replace(digest, "…"))
    assert told[0] == told[1]


def test_a_recipe_may_not_name_chunks_of_blobs_that_are_no_parents(site: Site) -> None:
    name, data = site.pack(A, B)
    upload, _ = site.send(Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B)))
    site.commit(upload, blob_of(A + B))
    stolen = Row().blob(blob_of(A), RECIPE, recipe_of(A))
    before = site.kept()
    with pytest.raises(InvalidValue, match="a chunk that did not come with it"):
        site.send(stolen)
    assert site.kept() == before
    upload, made = site.send(stolen, parents=(digest_of(A + B),))
    assert made == (digest_of(A),)


def test_a_parent_must_be_in_the_project(site: Site) -> None:
    site.backend.create_project("secret", actor="tests")
    name, data = site.pack(A, B)
    upload, _ = site.send(Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B)))
    with pytest.raises(NotFound):  # not even what an upload holds that no version names
        site.send(Row().blob(blob_of(A), RECIPE, recipe_of(A)), parents=(digest_of(A + B),))
    assert uploads.remaining(site.backend.parts, P, upload, (), account="ann").blobs == (digest_of(A + B),)


def lies() -> dict[str, Any]:
    """What is wrong -> makes it."""

    def other_pack_name(site: Site) -> Row:
        _, data = site.pack(A)
        return Row().pack("0" * 64, data).blob(blob_of(A), RECIPE, recipe_of(A))

    def altered(at: int) -> Any:
        def make(site: Site) -> Row:
            name, data = site.pack(A, B)
            bad = bytearray(data)
            bad[at] ^= 1
            return Row().pack(name, bytes(bad)).blob(blob_of(A + B), RECIPE, recipe_of(A, B))

        return make

    def chunk_of_other_bytes(site: Site) -> Row:
        site.count += 1
        writer = PackWriter(site.folder / f"pack{site.count}")
        writer.add(blake3.blake3(A).digest(), B, len(B), packs.RAW)
        name = writer.finish()
        data = (site.folder / f"pack{site.count}").read_bytes()
        return Row().pack(name, data).blob(blob_of(A), RECIPE, recipe_of(A))

    def cut_short(site: Site) -> Row:
        name, data = site.pack(A, B)
        return Row().pack(name, data[:-9]).blob(blob_of(A + B), RECIPE, recipe_of(A, B))

    def empty_pack(site: Site) -> Row:
        return Row().pack("0" * 64, b"").blob(blob_of(b"x"), RAW, b"x")

    def another_digest(site: Site) -> Row:
        name, data = site.pack(A, B)
        return Row().pack(name, data).blob(replace(blob_of(A + B), digest=digest_of(b"")), RECIPE, recipe_of(A, B))

    def another_order(site: Site) -> Row:
        name, data = site.pack(A, B)
        return Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(B, A))

    def size_that_lies(change: int) -> Any:
        def make(site: Site) -> Row:
            name, data = site.pack(A, B)
            blob = replace(blob_of(A + B), size=len(A + B) + change)
            return Row().pack(name, data).blob(blob, RECIPE, recipe_of(A, B))

        return make

    def recipe_size_that_lies(site: Site) -> Row:
        name, data = site.pack(A, B)
        size = len(A + B) + 1
        return Row().pack(name, data).blob(replace(blob_of(A + B), size=size), RECIPE, recipe_of(A, B, size=size))

    def no_recipe(site: Site) -> Row:
        return Row().blob(blob_of(A), RECIPE, b"no recipe at all" * 10)

    def altered_recipe(site: Site) -> Row:
        name, data = site.pack(A, B)
        bad = bytearray(recipe_of(A, B))
        bad[40] ^= 1
        return Row().pack(name, data).blob(blob_of(A + B), RECIPE, bytes(bad))

    def codec_that_does_not_fit(site: Site) -> Row:
        name, data = site.pack(A, B)
        return Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B, codec="faiss-ivf"))

    def small_of_other_bytes(site: Site) -> Row:
        return Row().blob(blob_of(b"this"), RAW, b"that")

    def small_that_is_large(site: Site) -> Row:
        data = b"x" * (PIECE + 1)
        return Row().blob(blob_of(data), RAW, data)

    def bomb(site: Site) -> Row:
        data = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 30))
        frame = data + b"\x50\x2a\x4d\x18\x04\x00\x00\x00" + zlib.crc32(data).to_bytes(4, "little")
        return Row().blob(Blob(digest_of(b""), 1 << 19), ZSTD, frame)

    def bombs_in_a_pack(site: Site) -> Row:
        zeros = [bytes([n]) * (1 << 24) for n in range(8)]
        name, data = site.pack(*zeros, form=packs.ZSTD)
        return Row().pack(name, data).blob(blob_of(b"x"), RAW, b"x")

    def outside(site: Site) -> Row:
        row = Row().blob(blob_of(b"this"), RAW, b"this")
        row.blobs = [replace(row.blobs[0], offset=1 << 40)]
        return row

    def pack_outside(site: Site) -> Row:
        row = Row().pack(*site.pack(A)).blob(blob_of(b"this"), RAW, b"this")
        row.packs = [replace(row.packs[0], size=1 << 40)]
        return row

    return {
        "the name of a pack": other_pack_name,
        "the beginning of a pack": altered(0),
        "a chunk": altered(100),
        "a footer": altered(-100),
        "the end of a pack": altered(-1),
        "a chunk of other bytes": chunk_of_other_bytes,
        "a pack that is cut short": cut_short,
        "an empty pack": empty_pack,
        "another digest": another_digest,
        "another order": another_order,
        "a size too large": size_that_lies(1),
        "a size too small": size_that_lies(-1),
        "the size in a recipe": recipe_size_that_lies,
        "no recipe": no_recipe,
        "an altered recipe": altered_recipe,
        "a codec that does not fit": codec_that_does_not_fit,
        "small bytes": small_of_other_bytes,
        "a small blob that is large": small_that_is_large,
        "a bomb": bomb,
        "bombs in a pack": bombs_in_a_pack,
        "a place outside": outside,
        "a pack outside": pack_outside,
    }


@pytest.mark.parametrize("wrong", lies())
def test_what_lies_is_refused_and_nothing_of_it_is_kept(site: Site, wrong: str) -> None:
    row = lies()[wrong](site)
    with pytest.raises((InvalidValue, TooLarge)):
        site.send(row)
    assert site.kept() == []
    assert list((Path(site.backend.location) / "tmp").iterdir()) == []


def test_a_digest_must_not_be_held_because_of_a_lie_beside_it(site: Site) -> None:
    row = Row().blob(blob_of(b"good"), RAW, b"good").blob(blob_of(b"this"), RAW, b"that")
    upload = site.start()
    names = site.put(upload, bytes(row.data))
    with pytest.raises(InvalidValue):
        site.finish(upload, Sent(names, (), tuple(row.blobs)))
    with pytest.raises(NotFound):
        site.commit(upload, blob_of(b"good"))


def test_pieces_of_another_upload_are_not_there(site: Site) -> None:
    first, second = site.start(account="ann"), site.start(account="bob")
    names = site.put(first, b"secret bytes")
    left = uploads.remaining(site.backend.parts, P, second, names, account="bob")
    assert left.missing == names
    with pytest.raises(Conflict, match="missing"):
        site.finish(second, Sent(names, (), (SentBlob(blob_of(b"secret bytes"), RAW, 0, 12),)), account="bob")


def test_a_piece_that_was_cut_short_at_the_server_is_asked_for_again(site: Site) -> None:
    upload = site.start()
    (name,) = site.put(upload, b"some bytes")
    driver = site.backend.parts.blobs.driver
    driver.replace(f"uploads/{upload}/{name}", b"some byteX")
    sent = Sent((name,), (), (SentBlob(blob_of(b"some bytes"), RAW, 0, 10),))
    with pytest.raises(Conflict):
        site.finish(upload, sent)
    assert uploads.remaining(site.backend.parts, P, upload, [name], account="ann").missing == (name,)
    site.put(upload, b"some bytes")
    assert site.finish(upload, sent) == (digest_of(b"some bytes"),)


def test_an_account_has_only_so_many_uploads_open(site: Site) -> None:
    limits = UploadLimits(open=2)
    for _ in range(2):
        uploads.start(site.backend.parts, P, [digest_of(b"x")], account="ann", limits=limits)
    with pytest.raises(NotAllowed):
        uploads.start(site.backend.parts, P, [digest_of(b"x")], account="ann", limits=limits)
    uploads.start(site.backend.parts, P, [digest_of(b"x")], account="bob", limits=limits)


def test_an_upload_takes_only_so_many_bytes(site: Site) -> None:
    limits, upload = UploadLimits(sent=100), site.start()
    for number in range(3):
        data = bytes([number]) * 50
        put = (site.backend.parts, P, upload, hashlib.sha256(data).hexdigest(), data)
        if number < 2:
            uploads.put_piece(*put, account="ann", limits=limits)
        else:
            with pytest.raises(TooLarge):
                uploads.put_piece(*put, account="ann", limits=limits)


def test_an_upload_takes_only_so_many_pieces(site: Site) -> None:
    limits, upload = UploadLimits(pieces=2), site.start()
    for number in range(3):
        data = bytes([number])
        put = (site.backend.parts, P, upload, hashlib.sha256(data).hexdigest(), data)
        if number < 2:
            uploads.put_piece(*put, account="ann", limits=limits)
        else:
            with pytest.raises(TooLarge, match="pieces"):
                uploads.put_piece(*put, account="ann", limits=limits)


def test_a_piece_costs_the_same_however_many_came_before_and_one_sent_again_counts_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = site.start()
    (name,) = site.put(upload, b"piece 0")

    def listed(prefix: str = "") -> Any:
        raise AssertionError("every piece would be looked at for each")

    with monkeypatch.context() as patch:
        patch.setattr(site.backend.parts.blobs.driver, "list", listed)
        for number in range(3):
            assert site.put(upload, b"piece 0") == (name,)
            site.put(upload, b"piece %d" % number)
    with site.backend.parts.metadata.reading() as s:
        row = rows.find(s, upload)
    assert row is not None
    assert (row.pieces, row.sent) == (3, 21)


def test_few_bytes_do_not_make_very_many(site: Site) -> None:
    chunk = bytes(1 << 20)
    name, data = site.pack(chunk, form=packs.ZSTD)
    many = [chunk] * 4000
    blob = Blob(digest_of(b""), len(chunk) * len(many))
    with pytest.raises(TooLarge):
        site.send(Row().pack(name, data).blob(blob, RECIPE, recipe_of(*many)))
    assert site.kept() == []


def test_putting_together_ends_in_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(n * 1000) for n in range(1000))
    monkeypatch.setattr("llmartifacts.versioning.uploads.time.monotonic", lambda: next(clock))
    name, data = site.pack(A, B)
    with pytest.raises(InvalidValue, match="too long"):
        site.send(Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B)))


def test_finishing_twice_is_finishing_once(site: Site) -> None:
    name, data = site.pack(A, B)
    row = Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B))
    upload = site.start()
    sent = Sent(site.put(upload, bytes(row.data)), tuple(row.packs), tuple(row.blobs))
    assert site.finish(upload, sent) == site.finish(upload, sent) == (digest_of(A + B),)
    assert len([key for key in site.kept() if key.startswith("packs/")]) == 1


def test_content_that_is_stored_already_is_not_stored_again(site: Site) -> None:
    name, data = site.pack(A, B)
    row = Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B))
    upload, _ = site.send(row)
    before = site.kept()
    other_name, other = site.pack(B, A)  # the same content, cut and packed in another way
    again = Row().pack(other_name, other).blob(blob_of(A + B), RECIPE, recipe_of(A, B))
    second, made = site.send(again)
    assert made == (digest_of(A + B),)
    assert site.kept() == before
    uploads.abort(site.backend.parts, P, upload, account="ann")
    site.commit(second, blob_of(A + B))
    assert site.backend.blobs.read(blob_of(A + B)) == A + B


def test_damage_of_what_is_relied_on_is_told_from_a_lie(site: Site) -> None:
    from llmartifacts.errors import Damaged

    name, data = site.pack(A, B)
    upload, _ = site.send(Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B)))
    site.commit(upload, blob_of(A + B))
    bad = bytearray(data)
    bad[100] ^= 1
    site.backend.parts.blobs.driver.replace(packs.key_of(name), bytes(bad))
    with pytest.raises(Damaged):
        site.send(Row().blob(blob_of(A), RECIPE, recipe_of(A)), parents=(digest_of(A + B),))


def test_sums_are_given_of_rows_of_the_blob_only(site: Site) -> None:
    name, data = site.pack(A, B)
    upload, _ = site.send(Row().pack(name, data).blob(blob_of(A + B), RECIPE, recipe_of(A, B)))
    other_name, other = site.pack(B[::-1])
    site.send(Row().pack(other_name, other).blob(blob_of(B[::-1]), RECIPE, recipe_of(B[::-1])))
    site.commit(upload, blob_of(A + B))
    hands = site.backend.downloads
    found = hands.sums(blob_of(A + B), [blake3.blake3(B).digest()], 256)
    rows = np.frombuffer(B, "V256")
    assert found == b"".join(blake3.blake3(row.tobytes()).digest(16) for row in rows)
    with pytest.raises(NotFound):
        hands.sums(blob_of(A + B), [blake3.blake3(B[::-1]).digest()], 256)
    with pytest.raises(InvalidValue):
        hands.sums(blob_of(A + B), [blake3.blake3(B).digest()], 7)


def test_asking_for_much_that_is_stored_reads_a_part_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [bytes([number]) * 1000 for number in range(8)]
    row = Row()
    for data in files:
        row.blob(blob_of(data), RAW, data)
    site.commit(site.send(row)[0], *map(blob_of, files))
    monkeypatch.setattr(standing, "READ", 3000)
    read: list[Blob] = []
    look = site.backend.parts.blobs.standing
    monkeypatch.setattr(site.backend.parts.blobs, "standing", lambda blob: (read.append(blob), look(blob))[1])
    assert uploads.start(site.backend.parts, P, [digest_of(data) for data in files], account="ann").absent == ()
    assert len(read) == 3


def test_the_same_bytes_are_not_taken_again_and_again(site: Site) -> None:
    data = b"again" * 100
    twice = Row().blob(blob_of(data), RAW, data)
    twice.blobs.append(twice.blobs[0])
    overlapping = Row().blob(blob_of(data), RAW, data)
    overlapping.blobs.append(SentBlob(blob_of(data[1:]), RAW, 1, len(data) - 1))
    name, pack = site.pack(A)
    packs_twice = Row().pack(name, pack)
    packs_twice.packs.append(packs_twice.packs[0])
    before = site.kept()
    for row, told in ((twice, "named twice"), (overlapping, "said to hold"), (packs_twice, "named twice")):
        with pytest.raises(InvalidValue, match=told):
            site.send(row)
    assert site.kept() == before


def test_a_piece_that_is_named_often_counts_once(site: Site) -> None:
    piece = b"p" * 1000
    upload = site.start(digest_of(piece * 100))
    (name,) = site.put(upload, piece)
    row = Row().blob(blob_of(piece * 100), RAW, piece * 100)
    with pytest.raises(TooLarge, match="1000 bytes were sent"):
        site.finish(upload, Sent((name,) * 100, (), tuple(row.blobs)), limits=UploadLimits(even=0, ratio=10))
