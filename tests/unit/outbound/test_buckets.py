"""`s3://` objects, pinned by their version and their SHA-256, from a real S3 server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.cli.main import main
from llmartifacts.registry import Registry

pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.fixture
def bucket(moto_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that keeps versions."""
    name = moto_server.new_bucket()
    moto_server.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    return str(name)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return la.init(tmp_path / "registry")


def put(server: Any, bucket: str, key: str, content: bytes) -> str:
    return str(server.client().put_object(Bucket=bucket, Key=key, Body=content).get("VersionId", ""))


def test_an_object_is_pinned_by_its_version_and_read_though_the_bucket_goes_on(
    registry: Registry, moto_server: Any, bucket: str
) -> None:
    content = bytes(range(256)) * 10_000
    version = put(moto_server, bucket, "deep/w.bin", content)
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/deep/w.bin"))
    file = registry.find("weights").manifest.file("w.bin")
    assert file is not None
    assert file.url == f"s3://{bucket}/deep/w.bin?versionId={version}"
    assert (file.digest, file.size) == ("sha256:" + hashlib.sha256(content).hexdigest(), len(content))
    put(moto_server, bucket, "deep/w.bin", b"newer")
    assert registry.resolve("weights:latest", la.Files).read("w.bin") == content


@pytest.mark.matrix
@pytest.mark.xdist_group("s3")
def test_a_store_of_the_other_make_keeps_its_word_too(
    registry: Registry, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, content = s3_server.new_bucket(), bytes(range(256)) * 50_000
    s3_server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    version = put(s3_server, bucket, "a b/w+.bin", content)
    registry.log("weights", la.Files.from_references({"w": f"s3://{bucket}/a%20b/w+.bin"}))
    assert registry.resolve("weights:v1").external["w"].url.endswith(f"?versionId={version}")
    put(s3_server, bucket, "a b/w+.bin", b"newer")
    assert registry.resolve("weights:v1").read("w") == content
    s3_server.client().delete_object(Bucket=bucket, Key="a b/w+.bin", VersionId=version)
    assert [f.state for f in registry.check_external().files] == ["gone"]


def test_an_object_of_a_bucket_without_versions_that_changed_is_refused(
    registry: Registry, moto_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = moto_server.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    put(moto_server, name, "w.bin", b"one")
    registry.log("weights", la.Files.from_references(f"s3://{name}/w.bin"))
    assert registry.resolve("weights:v1").external["w.bin"].url == f"s3://{name}/w.bin"
    put(moto_server, name, "w.bin", b"two")
    with pytest.raises(errors.DigestMismatch, match="not what was logged"):
        registry.resolve("weights:v1").read("w.bin")
    moto_server.client().delete_object(Bucket=name, Key="w.bin")
    with pytest.raises(errors.BlobMissing, match="gone"):
        registry.resolve("weights:v1").read("w.bin")


def test_a_deleted_version_is_gone(registry: Registry, moto_server: Any, bucket: str) -> None:
    version = put(moto_server, bucket, "w.bin", b"one")
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    moto_server.client().delete_object(Bucket=bucket, Key="w.bin", VersionId=version)
    put(moto_server, bucket, "w.bin", b"one")
    with pytest.raises(errors.BlobMissing):
        registry.resolve("weights:v1").read("w.bin")


@pytest.mark.parametrize("key", ["a b.bin", "a%20b", "a#b?c=d&e", "ü/ö.bin", "a+b", "a'b", "a:b@c"])
def test_an_object_of_any_name_is_found(registry: Registry, moto_server: Any, bucket: str, key: str) -> None:
    put(moto_server, bucket, key, key.encode())
    registry.log("weights", la.Files.from_references({"w": f"s3://{bucket}/{quote(key, safe='/+:@')}"}))
    assert registry.resolve("weights:v1").read("w") == key.encode()


def test_an_object_of_no_bytes_is_an_object(registry: Registry, moto_server: Any, bucket: str) -> None:
    put(moto_server, bucket, "empty", b"")
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/empty"))
    assert registry.resolve("weights:v1").read("empty") == b""


def test_everything_below_a_prefix_is_named_one_by_one(
    registry: Registry, moto_server: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {f"data/{name}": name.encode() for name in ("a.bin", "deep/b c.bin", "é=1#.bin", "z")}
    for key, body in content.items():
        put(moto_server, bucket, key, body)
    put(moto_server, bucket, "data2/other", b"other")
    put(moto_server, bucket, "data", b"no folder")
    found = registry.external.below(f"s3://{bucket}/data/")
    assert list(found) == sorted(key.removeprefix("data/") for key in content)
    registry.log("data", la.Files.from_references(found))
    files = registry.resolve("data:v1", la.Files)
    assert {f"data/{path}": files.read(path) for path in files} == content
    assert len(registry.external.below(f"s3://{bucket}/")) == 6
    with pytest.raises(errors.NotFound):
        registry.external.below(f"s3://{bucket}/nothing/")
    for url in (f"s3://{bucket}/data", "https://example.org/", "s3:///", f"s3://{bucket}/../"):
        with pytest.raises(errors.InvalidValue):
            registry.external.below(url)
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", str(tmp_path / "registry"))
    for source, paths in (
        ([f"s3://{bucket}/data/"], sorted(found)),
        ([f"s3://{bucket}/data/", f"x=s3://{bucket}/data2/"], sorted([*(f"data/{p}" for p in found), "x/other"])),
    ):
        assert main(["log", "files", "again", *source]) == 0
        assert registry.resolve("again:latest", la.Files).paths() == paths


def test_without_credentials_nobody_is_asked_for_any_and_the_store_decides(
    registry: Registry, moto_server: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(moto_server, bucket, "w.bin", b"one")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(errors.NotAllowed, match="do not go together"):
        registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # this machine has no role
    with pytest.raises(errors.NotAllowed, match="may not be read"):
        registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    moto_server.client().put_object_acl(Bucket=bucket, Key="w.bin", ACL="public-read")
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    assert registry.resolve("weights:v1").read("w.bin") == b"one"


def test_what_nobody_may_read_is_read_by_the_role_of_the_machine(
    registry: Registry, moto_server: Any, bucket: str, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(moto_server, bucket, "w.bin", b"one")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    role = {
        "AccessKeyId": "AKIDTESTER",
        "SecretAccessKey": "x",
        "Token": "t",
        "Code": "Success",
        "Expiration": "2099-01-01T00:00:00Z",
    }

    def metadata(sock: Any, request: Any) -> None:
        path = request.line.split()[1]
        body = json.dumps(role).encode() if path.endswith("/reader") else b"token" if "token" in path else b"reader"
        sock.sendall(http.answer(200, body))

    monkeypatch.setenv("AWS_METADATA_ENDPOINT", http.serve(metadata).url)
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    assert registry.resolve("weights:v1").read("w.bin") == b"one"


def test_credentials_of_the_shared_file_are_taken(
    registry: Registry, moto_server: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(moto_server, bucket, "w.bin", b"one")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIDTESTER\naws_secret_access_key = hush\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    registry.log("weights", la.Files.from_references(f"s3://{bucket}/w.bin"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(errors.NotAllowed, match="no credentials") as caught:
        registry.resolve("weights:v1").read("w.bin")
    assert "hush" not in repr(caught.value)


def test_a_store_that_is_not_there_is_said_to_be(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.Unreachable, match=r"s3://somewhere/w\.bin"):
        registry.log("weights", la.Files.from_references("s3://somewhere/w.bin"))
    assert registry.collections() == []


def test_what_a_store_says_of_a_failure_is_not_told(
    registry: Registry, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    server = http.serve(http.answer(400, b"<Error><Message>secret</Message></Error>", kind="application/xml"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    with pytest.raises(errors.LlmartifactsError) as caught:
        registry.log("weights", la.Files.from_references("s3://somewhere/w.bin"))
    assert "secret" not in f"{caught.value!r}{caught.value.hint()}{caught.value.__cause__!r}"


def test_a_store_that_sends_more_or_less_than_was_logged_is_refused(
    registry: Registry, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmartifacts.external._PAUSE", 0.01)
    digest = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    registry.log("weights", la.Files.from_references([la.External("s3://somewhere/w.bin", digest, 7)]))
    for body in (b"weights!", b"weight", b"weighty"):
        answer = http.answer(200, body, ETag='"same"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
        monkeypatch.setenv("AWS_ENDPOINT_URL", http.serve(answer, echo=False).url)
        with pytest.raises(errors.DigestMismatch):
            registry.resolve("weights:v1").read("w.bin")
