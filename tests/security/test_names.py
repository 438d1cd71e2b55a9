"""Hostile names and paths: refused by the one validator, wherever they enter."""

import json

import pytest

from llmartifacts.errors import InvalidInput, InvalidPath, InvalidReference
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.packing import StagedFiles
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import Lockfile
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.names import check_alias, check_name, check_path
from llmartifacts.records.reference import Reference
from llmartifacts.testing.kinds import MemoryFiles

HOSTILE_PATHS = {
    "climbs": "../etc/passwd",
    "climbs in the middle": "a/../../etc/passwd",
    "climbs at the end": "a/..",
    "is absolute": "/etc/passwd",
    "is absolute twice": "//etc/passwd",
    "is absolute on Windows": "C:/Windows",
    "names a Windows share": "\\\\host\\share",
    "climbs on Windows": "..\\..\\secret",
    "has a Windows separator": "a\\b",
    "has a Windows stream": "a.txt:stream",
    "holds NUL": "a\x00.txt",
    "holds a line end": "a\nb",
    "holds an escape": "a\x1b[2J",
    "holds DEL": "a\x7f",
    "holds a C1 control": "a\x85b",
    "holds a line separator": "a\u2028b",
    "holds a paragraph separator": "a\u2029b",
    "turns the text around": "a\u202etxt.exe",
    "is invisible": "a\u200bb",
    "holds a joiner": "a\u200db",
    "holds a byte order mark": "\ufeffa",
    "holds a soft hyphen": "a\u00adb",
    "holds a tag character": "a\U000e0041b",
    "is not NFC": "cafe\u0301",
    "is not NFC, Angstrom": "\u212b",
    "is not NFC, Hangul": "\u1112\u1161\u11ab",
    "holds a lone surrogate": "a\ud800",
    "is empty": "",
    "is a dot": ".",
    "has an empty segment": "a//b",
    "ends in a slash": "a/",
    "begins with a dot segment": "./a",
    "ends in a dot": "a.",
    "ends in a space": "a ",
    "begins with a space": " a",
    "ends in a no-break space": "a\u00a0",
    "begins with a wide space": "\u3000a",
    "is longer than a segment may be": "a" * 256,
    "is longer than a segment may be in bytes": "é" * 128,
    "is longer than a path may be": "/".join(["a" * 200] * 6),
    "is no text": 7,
    "is bytes": b"a",
    "is nothing": None,
}


@pytest.fixture(params=HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def hostile(request):
    return request.param


def test_the_validator_refuses_a_path_that(hostile):
    with pytest.raises(InvalidPath) as caught:
        check_path(hostile)
    assert len(caught.value.message) < 500
    assert caught.value.hint()


def test_a_manifest_refuses_a_path_that(hostile):
    with pytest.raises(InvalidInput):
        Manifest.build("files", {}, [Descriptor(hostile, digest_of(b""), 0)])
    body = {
        "schema": "llmartifacts/manifest/1",
        "kind": "files",
        "config": {},
        "files": [{"path": hostile if not isinstance(hostile, bytes) else [1], "digest": digest_of(b""), "size": 0}],
        "components": [],
    }
    with pytest.raises(InvalidInput):
        Manifest.from_bytes(json.dumps(body).encode())


def test_a_pack_refuses_a_path_that(hostile):
    class NoStaging:
        def add(self, source, like=tuple):
            raise AssertionError("bytes were taken before the path was checked")

    with pytest.raises(InvalidPath):
        StagedFiles(NoStaging()).add(hostile, b"x")
    with pytest.raises(InvalidPath):
        StagedFiles(NoStaging()).add_external(hostile, "s3://a/b", digest_of(b""), 1)
    with pytest.raises(InvalidPath):
        MemoryFiles().add(hostile, b"x")


def test_files_and_models_refuse_a_path_that(hostile):
    with pytest.raises(InvalidPath):
        Files({hostile: b"x"})
    with pytest.raises(InvalidPath):
        ModelSpec("peft", "llama", files={hostile: "x"})


HOSTILE_NAMES = [
    "../a",
    "a/b/c",
    "a b",
    "a\x00",
    "a\n",
    "a\u202e",
    "аgent",
    "ａgent",
    "a\u0301",
    "sha256",
    "",
    ".",
    "..",
    ".a",
    "-a",
    "a" * 129,
    "a;drop table",
    "a'b",
    'a"b',
    "a%00",
    "a*",
    "a?",
    "$(x)",
    "`x`",
    "<a>",
    "a|b",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_a_hostile_name_is_refused_wherever_it_enters(name):
    with pytest.raises(InvalidReference):
        check_name(name)
    with pytest.raises(InvalidReference):
        check_alias(name.lower() if name != "sha256" else "v1")
    with pytest.raises(InvalidReference):
        Reference.parse(name)
    with pytest.raises(InvalidReference):
        Reference.parse(f"agent:{name}" if name != "sha256" else "sha256:prod")
    with pytest.raises(InvalidInput):
        Manifest.build(name, {})


@pytest.mark.parametrize("name", ["../a", "a/b/c", "a b", "a\x1b"], ids=ascii)
def test_a_lockfile_refuses_hostile_names(name):
    entry = {"reference": f"{name}:prod", "kind": "prompt", "version": "v1", "digest": digest_of(b""), "size": 0}
    body = {"schema": "llmartifacts/lock/1", "project": "default", "revision": 1, "set": "", "components": {"a": entry}}
    with pytest.raises(InvalidInput):
        Lockfile.from_text(json.dumps(body))
    with pytest.raises(InvalidInput):
        Lockfile.from_text(json.dumps({**body, "components": {}, "project": name}))
