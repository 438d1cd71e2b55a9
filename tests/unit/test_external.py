"""External files: pinned when logged, fetched when read, verified always."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.registry import Registry

CONTENT = bytes(range(256)) * 4096


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return la.init(tmp_path / "registry")


def stored(registry: Registry, reference: str = "weights") -> Any:
    return registry.find(reference).manifest


# --- logged


def test_what_lies_at_a_url_is_pinned_by_digest_and_size_and_not_kept(registry: Registry, web: Any) -> None:
    web.files["w.bin"] = CONTENT
    registry.log("weights", la.Files({"config.json": b"{}"}, external={"w.bin": web.url("w.bin")}))
    file = stored(registry).file("w.bin")
    assert (file.digest, file.size, file.url) == (sha(CONTENT), len(CONTENT), web.url("w.bin"))
    assert stored(registry).config["bytes"] == len(CONTENT) + 2
    assert registry.stats().stored < len(CONTENT)
    with pytest.raises(errors.BlobMissing):
        registry.backend.blobs.read(file.blob)
    assert web.asked == ["GET /w.bin"]


def test_the_same_content_again_is_the_same_version(registry: Registry, web: Any) -> None:
    web.files["w.bin"] = CONTENT
    first = registry.log("weights", la.Files.from_references(web.url("w.bin")))
    again = registry.log("weights", la.Files.from_references([la.External(web.url("w.bin"), sha(CONTENT))]))
    assert (again.digest, again.created) == (first.digest, False)
    web.files["w.bin"] = CONTENT + b"!"
    assert registry.log("weights", la.Files.from_references(web.url("w.bin"))).number == 2


def test_where_digest_and_size_are_known_nothing_is_read(registry: Registry, web: Any) -> None:
    registry.log("weights", la.Files.from_references({"w": la.External(web.url("w.bin"), sha(CONTENT), len(CONTENT))}))
    assert web.asked == []


@pytest.mark.parametrize(("digest", "size"), [(sha(b"another"), None), (None, 7)])
def test_what_is_not_as_it_was_said_is_refused_and_nothing_is_logged(
    registry: Registry, web: Any, digest: str | None, size: int | None
) -> None:
    web.files["w.bin"] = CONTENT
    with pytest.raises(errors.DigestMismatch):
        registry.log("weights", la.Files.from_references([la.External(web.url("w.bin"), digest, size)]))
    assert registry.collections() == []


def test_the_version_of_a_bucket_is_pinned_where_it_can_be_read(registry: Registry, web: Any) -> None:
    web.files["w.bin"], web.versions["w.bin"] = CONTENT, "3sL4kqtJ"
    registry.log("weights", la.Files.from_references(web.url("w.bin")))
    assert stored(registry).file("w.bin").url == web.url("w.bin?versionId=3sL4kqtJ")
    web.oddly["w.bin?versionId=other"] = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    web.versions["w.bin"] = "other"
    registry.log("weights2", la.Files.from_references(web.url("w.bin")))
    assert stored(registry, "weights2").file("w.bin").url == web.url("w.bin")


def test_a_file_above_the_limit_is_not_pinned(registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["w.bin"] = CONTENT
    monkeypatch.setenv("LLMARTIFACTS_EXTERNAL_LIMIT", "1MB")
    with pytest.raises(errors.TooLarge, match="1,000,000"):
        registry.log("weights", la.Files.from_references(web.url("w.bin")))


def test_many_are_pinned_and_fetched_several_at_a_time_and_keep_their_order(
    registry: Registry, web: Any, tmp_path: Path
) -> None:
    web.files |= {f"{i:02}.bin": f"part {i}".encode() for i in range(40)}
    registry.log("parts", la.Files({"a": b"1"}, external={f"p/{p}": web.url(p) for p in web.files}))
    assert [f.digest for f in stored(registry, "parts").files if f.url] == [
        sha(web.files[p]) for p in sorted(web.files)
    ]
    pulled = {p.relative_to(tmp_path / "out").as_posix(): p for p in registry.pull("parts", tmp_path / "out")}
    assert {path: pulled[f"p/{path}"].read_bytes() for path in web.files} == web.files
    assert len(web.asked) == 80


def test_of_many_of_which_one_cannot_be_had_nothing_is_logged(registry: Registry, web: Any) -> None:
    web.files |= {f"{i}.bin": b"x" for i in range(20)}
    del web.files["7.bin"]
    with pytest.raises(errors.BlobMissing, match=r"7\.bin"):
        registry.log("parts", la.Files.from_references([web.url(f"{i}.bin") for i in range(20)]))
    assert registry.collections() == []


# --- read


def logged(registry: Registry, web: Any, content: bytes = CONTENT) -> la.Files:
    web.files["w.bin"] = content
    registry.log("weights", la.Files({"config.json": b"{}"}, external={"w.bin": web.url("w.bin")}))
    files = registry.resolve("weights:latest", la.Files)
    web.server.requests.clear()
    return files


def test_nothing_is_fetched_before_it_is_read_and_a_second_reading_is_local(registry: Registry, web: Any) -> None:
    files = logged(registry, web)
    assert files.sizes == {"config.json": 2, "w.bin": len(CONTENT)}
    assert files.read("config.json") == b"{}"
    assert web.asked == []
    assert files.read("w.bin") == CONTENT
    with files.open("w.bin") as stream:
        assert stream.read() == CONTENT
    assert files.path("w.bin").read_bytes() == CONTENT
    assert web.asked == ["GET /w.bin"]
    assert files.external["w.bin"].url == web.url("w.bin")


def test_a_file_of_no_bytes_is_fetched(registry: Registry, web: Any) -> None:
    assert logged(registry, web, b"").read("w.bin") == b""


def test_an_answer_in_chunks_is_read(registry: Registry, web: Any) -> None:
    files = logged(registry, web, b"abc" * 5)
    body = b"f\r\n" + b"abc" * 5 + b"\r\n0\r\n\r\n"
    web.oddly["w.bin"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    assert files.read("w.bin") == b"abc" * 5


@pytest.mark.parametrize("etags", [False, True])
@pytest.mark.parametrize("other", [CONTENT[:-1] + b"?", CONTENT[:-1], CONTENT + b"!", b""])
def test_changed_content_is_refused_whatever_the_etag_says(
    registry: Registry, web: Any, etags: bool, other: bytes
) -> None:
    web.etags = etags
    files = logged(registry, web)
    web.files["w.bin"] = other
    with pytest.raises(errors.DigestMismatch, match=r"w\.bin.* not what was logged") as caught:
        files.read("w.bin")
    assert "log the collection again" in caught.value.hint()
    assert caught.value.digest == sha(CONTENT)
    web.files["w.bin"] = CONTENT
    assert files.read("w.bin") == CONTENT


def test_a_bucket_that_goes_on_keeps_serving_the_version_that_was_pinned(registry: Registry, web: Any) -> None:
    web.versions["w.bin"] = "v1"
    files = logged(registry, web)
    web.files["w.bin"] = b"newer"
    web.oddly["w.bin?versionId=v1"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT
    assert files.read("w.bin") == CONTENT


def test_content_that_is_gone_is_missing_and_nothing_of_the_answer_is_told(registry: Registry, web: Any) -> None:
    files = logged(registry, web)
    web.files.clear()
    with pytest.raises(errors.BlobMissing, match="gone") as caught:
        files.read("w.bin")
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n",
            errors.NotAllowed,
        ),
        (b"HTTP/1.1 301 Moved\r\nLocation: /w2.bin\r\nContent-Length: 0\r\n\r\n", errors.NotAllowed),
        (b"HTTP/1.1 403 secret\r\nContent-Length: 6\r\n\r\nsecret", errors.NotAllowed),
        (b"HTTP/1.1 500 secret\r\nContent-Length: 6\r\n\r\nsecret", errors.Unreachable),
        (b"HTTP/1.1 204 No Content\r\n\r\n", errors.Unreachable),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/9\r\n\r\nx", errors.Unreachable),
        (b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT, errors.Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nsecret", errors.DigestMismatch),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", errors.DigestMismatch),
        (b"secret \x00 nonsense\r\n\r\n", errors.Unreachable),
        (b"", errors.Unreachable),
    ],
)
def test_a_web_server_that_answers_oddly_is_refused_in_a_typed_way(
    registry: Registry, web: Any, answer: bytes, error: type[errors.LlmartifactsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    files = logged(registry, web)
    web.oddly["w.bin"] = answer
    with pytest.raises(error) as caught:
        files.read("w.bin")
    assert "secret" not in f"{caught.value!r} {caught.value.hint()}"
    del web.oddly["w.bin"]
    assert files.read("w.bin") == CONTENT


def test_more_than_was_pinned_ends_the_transfer(registry: Registry, web: Any) -> None:
    files = logged(registry, web, b"small")
    sent = 0

    def endless(sock: Any, request: Any) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 100_000_000:
            sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    web.oddly["w.bin"] = endless
    with pytest.raises(errors.DigestMismatch):
        files.read("w.bin")
    assert sent < 20_000_000


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(
    registry: Registry, web: Any, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    files = logged(registry, web)
    web.ranges = ranges
    web.oddly["w.bin"] = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT[:300_000]]
    assert files.read("w.bin") == CONTENT
    assert len(web.asked) == 2
    assert web.asked[1].startswith("GET /w.bin ")


def test_a_web_server_that_sends_nothing_is_given_up(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = logged(registry, web)
    web.oddly["w.bin"] = lambda sock, request: web.server.ended.wait(30)
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "0.3")
    with pytest.raises(errors.DeadlineExceeded):
        files.read("w.bin")


def test_a_web_server_that_drips_is_given_up(registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = logged(registry, web)

    def drip(sock: Any, request: Any) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT))
        while not web.server.ended.wait(0.05):
            sock.sendall(b"x")

    web.oddly["w.bin"] = drip
    monkeypatch.setenv("LLMARTIFACTS_TIMEOUT", "0.5")
    with pytest.raises(errors.DeadlineExceeded):
        files.read("w.bin")


def test_a_private_address_is_not_looked_for(registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = logged(registry, web)
    monkeypatch.delenv("LLMARTIFACTS_ALLOW_HOSTS")
    with pytest.raises(errors.NotAllowed, match="private") as caught:
        files.read("w.bin")
    assert "LLMARTIFACTS_ALLOW_HOSTS" in caught.value.hint()
    assert web.server.connections == 1  # that of the log


def test_a_certificate_that_nobody_vouches_for_is_refused(
    registry: Registry, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    files = logged(registry, web)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(errors.Unreachable, match="certificate"):
        files.read("w.bin")


# --- pulled, exported, compared


def test_pull_brings_them_along_or_leaves_them(registry: Registry, web: Any, tmp_path: Path) -> None:
    files = logged(registry, web)
    pulled = registry.pull("weights", tmp_path / "a")
    assert {p.name: p.read_bytes() for p in pulled if p.name != "manifest.json"} == {
        "config.json": b"{}",
        "w.bin": CONTENT,
    }
    assert {p.name for p in registry.pull("weights", tmp_path / "b", external=False)} == {
        "config.json",
        "manifest.json",
    }
    assert len(files.export(tmp_path / "c")) == 2
    assert len(files.export(tmp_path / "d", external=False)) == 1


def test_a_pull_that_cannot_fetch_leaves_nothing(registry: Registry, web: Any, tmp_path: Path) -> None:
    logged(registry, web)
    web.files["w.bin"] = b"changed"
    with pytest.raises(errors.DigestMismatch):
        registry.pull("weights", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_versions_are_compared_without_fetching(registry: Registry, web: Any) -> None:
    logged(registry, web)
    logged(registry, web, b"two")
    changes = registry.diff("weights:v1", "weights:v2").changes
    assert [c.path for c in changes] == ["files/w.bin"]
    assert web.asked == []


def test_collecting_counts_nothing_of_them_as_missing(registry: Registry, web: Any) -> None:
    logged(registry, web)
    web.files.clear()
    registry.gc()
    assert registry.verify(read_data=True).problems == ()
    assert web.asked == []
