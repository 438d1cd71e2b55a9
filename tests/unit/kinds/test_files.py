import errno
import io
import os
import socket
import stat

import pytest

from llmartifacts.errors import (
    Conflict,
    InvalidInput,
    InvalidPath,
    InvalidValue,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    TooLarge,
)
from llmartifacts.kinds import disk
from llmartifacts.kinds.files import External, Files, FilesKind
from llmartifacts.testing.kinds import MemoryFiles, pack

KIND = FilesKind()
DIGEST = "sha256:" + "ab" * 32


def unpacked(files):
    manifest, stored = pack(KIND, files)
    return KIND.unpack(manifest.config, stored)


# --- taking files


def test_a_folder_is_taken_with_hidden_files_and_in_order(tmp_path):
    for path in ("z.txt", ".env", "sub/.git/HEAD", "sub/a"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    files = Files.from_path(tmp_path)
    assert files.paths() == [".env", "sub/.git/HEAD", "sub/a", "z.txt"]
    assert files.read("sub/.git/HEAD") == b"sub/.git/HEAD"
    assert files.sizes == {p: len(p) for p in files}
    assert len(files) == 4
    assert ".env" in files
    assert "nope" not in files


def test_the_order_in_which_a_folder_was_written_does_not_matter(tmp_path):
    for n, names in enumerate((["a", "b/c", "d"], ["d", "b/c", "a"])):
        for name in names:
            place = tmp_path / str(n) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(name)
    digests = {pack(KIND, Files.from_path(tmp_path / str(n)))[0].digest for n in range(2)}
    assert len(digests) == 1


def test_one_file_goes_by_its_name_and_several_sources_by_theirs(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    assert Files.from_path(str(tmp_path / "y")).paths() == ["y"]
    assert Files.from_path([tmp_path / "data", tmp_path / "y"]).paths() == ["data/x", "y"]


def test_two_sources_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").write_bytes(b"")
    with pytest.raises(InvalidValue, match="two sources give 'same'"):
        Files.from_path([tmp_path / "a" / "same", tmp_path / "b" / "same"])


def test_a_link_in_a_folder_is_refused_and_named_wherever_it_leads(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "real").write_bytes(b"1")
    for name, target in (("deep/inside", "real"), ("outside", "/etc/passwd"), ("dangling", "nowhere"), ("folder", "/")):
        link = tmp_path / "in" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)
        with pytest.raises(InvalidPath, match=name) as caught:
            Files.from_path(tmp_path / "in")
        assert caught.value.origin == str(tmp_path / "in")
        link.unlink()


def test_a_link_that_the_caller_names_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model.bin").symlink_to("blob")
    assert Files({"model.bin": tmp_path / "model.bin"}).read("model.bin") == b"weights"
    assert Files.from_path(tmp_path / "model.bin").paths() == ["model.bin"]


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    files = Files.from_path(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(InvalidPath):
        files.read("a")
    with pytest.raises(InvalidPath):
        pack(KIND, files)


def test_a_pipe_and_a_socket_are_refused_without_waiting_for_them(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidPath, match="pipe"):
        Files.from_path(tmp_path)
    with pytest.raises(InvalidPath, match="pipe"):
        Files({"pipe": tmp_path / "pipe"})
    (tmp_path / "pipe").unlink()
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(InvalidPath, match="socket"):
            Files.from_path(tmp_path)


def test_a_folder_without_files_is_refused(tmp_path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(InvalidValue, match="no file") as caught:
        Files.from_path(tmp_path)
    assert caught.value.origin == str(tmp_path)
    with pytest.raises(InvalidValue, match="no files"):
        Files({})


def test_a_missing_source_is_not_found_and_near_names_are_given(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(b"")
    with pytest.raises(NotFound) as caught:
        Files.from_path(tmp_path / "trian.jsonl")
    assert caught.value.near == ("train.jsonl",)
    with pytest.raises(NotFound):
        Files({"a": tmp_path / "none" / "a"})


class PathOfBytes:
    def __fspath__(self):
        return b"/etc/hostname-that-is-not-there"


@pytest.mark.parametrize(
    "paths", [None, 7, b"a", [None], ["a\0b"], {"a": 1}, "x" * 5000, ["\ud800"]], ids=lambda v: ascii(v)[:20]
)
def test_what_is_no_path_is_refused_as_such(paths):
    with pytest.raises(LlmartifactsError) as caught:
        Files.from_path(paths)
    assert caught.value.field == "paths"
    assert len(str(caught.value)) < 1000


def test_a_path_of_bytes_names_the_file_it_names():
    with pytest.raises(NotFound):
        Files({"a": PathOfBytes()})


def test_a_file_that_fails_while_it_is_read_is_named(tmp_path):
    class Failing(io.RawIOBase):
        def __init__(self, handle):
            self.handle = handle

        def readable(self):
            return True

        def fileno(self):
            return self.handle.fileno()

        def readinto(self, buffer):
            raise OSError(errno.EIO, "Input/output error")

        def close(self):
            self.handle.close()
            super().close()

    (tmp_path / "data").write_bytes(b"1")
    real = disk.open_regular
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "open_regular", lambda file: Failing(real(file)))
        with pytest.raises(NotAllowed, match=r"data.*Input/output error") as caught:
            disk.add_file(MemoryFiles(), "data", tmp_path / "data")
    assert caught.value.field == "files.data"
    assert caught.value.hint()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(NotAllowed, match="secret"):
        Files.from_path(tmp_path).read("secret")


@pytest.mark.parametrize("name", ["a\nb", "caf\u0065\u0301", "back\\slash", "a:b", " lead", "trail.", "bidi\u202e"])
def test_an_unsafe_name_in_a_folder_is_refused_and_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(InvalidPath) as caught:
        Files.from_path(tmp_path)
    assert repr(name) in caught.value.message


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    with pytest.raises(InvalidPath, match="surrogate"):
        Files.from_path(tmp_path)


def test_two_names_that_differ_in_case_only_are_refused():
    with pytest.raises(InvalidPath, match="case"):
        Files({"README": b"", "readme": b""})
    with pytest.raises(InvalidPath, match="case"):
        Files({"README": b""}, external={"readme": External("https://x.org/a", DIGEST, 1)})


def test_text_is_refused_because_it_could_be_content_or_a_path():
    with pytest.raises(InvalidValue, match="str") as caught:
        Files({"a": "hello"})
    assert caught.value.field == "files.a"
    assert "bytes" in caught.value.hint()


@pytest.mark.parametrize("given", ["folder", b"bytes", ["a.txt"]])
def test_what_is_no_mapping_is_refused_and_from_path_is_named(given):
    with pytest.raises(InvalidValue, match="no mapping of paths") as caught:
        Files(given)
    assert "Files.from_path" in caught.value.hint()


def test_a_folder_where_a_file_is_wanted_is_refused(tmp_path):
    with pytest.raises(InvalidPath, match="a folder"):
        Files({"a": tmp_path})


def test_more_files_than_a_manifest_takes_are_refused_while_looking(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MAX_FILES", 3)
    for i in range(5):
        (tmp_path / str(i)).write_bytes(b"")
    with pytest.raises(TooLarge, match="more than 3"):
        Files.from_path(tmp_path)


# --- a file that changes


class GrowingSink(MemoryFiles):
    """Somebody appends to the file while it is read."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def add(self, path, source):
        super().add(path, source)
        with self.place.open("ab") as out:
            out.write(b"more")
        os.utime(self.place, ns=(1, 1))


def test_a_file_that_changes_while_it_is_read_is_refused_and_named(tmp_path):
    log = tmp_path / "run.log"
    log.write_bytes(b"first")
    with pytest.raises(InvalidValue, match="changed while it was read") as caught:
        KIND.pack(Files.from_path(tmp_path), GrowingSink(log))
    assert caught.value.field == "files.run.log"
    assert caught.value.origin == str(log)


def test_the_digest_is_of_what_was_stored_not_of_what_was_there_before(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    files = Files.from_path(tmp_path)
    (tmp_path / "a").write_bytes(b"new content")
    manifest, stored = pack(KIND, files)
    assert stored.read("a") == b"new content"
    assert manifest.config["bytes"] == 11


# --- external files


def test_an_external_file_is_named_and_pinned_and_not_fetched_before_it_is_logged():
    weights = External("s3://models/llama/weights.bin", DIGEST, 10**12)
    files = Files({"config.json": b"{}"}, external={"weights.bin": weights})
    assert files.paths() == ["config.json", "weights.bin"]
    assert dict(files.external) == {"weights.bin": weights}
    assert files.sizes["weights.bin"] == 10**12
    for read in (files.open, files.read, files.path):
        with pytest.raises(NotFound, match="outside the registry") as caught:
            read("weights.bin")
        assert "Log these files" in caught.value.hint()
    assert dict(unpacked(files).external) == {"weights.bin": weights}


def test_files_may_be_external_only():
    assert unpacked(Files({}, external={"w": External("https://x.org/w", DIGEST, 0)})).paths() == ["w"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a",
        "https://example.org",
        "s3://bucket/key",
        "file:///data/weights.bin",
        "https://[::1]:8/a?v=2",
    ],
)
def test_a_url_that_names_one_file_is_taken(url):
    assert External(url, DIGEST, 1).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.org/a",
        "ftp://example.org/a",
        "javascript:alert(1)",
        "https://user:password@example.org/a",
        "https://example.org/a?X-Amz-Signature=abc",
        "https://example.org/a?token=abc",
        "https:///a",
        "https://example.org:99999/a",
        "https://[::1/a",
        "s3://bucket",
        "s3://bucket/",
        "file://host/a",
        "file:relative",
        "file:///a/../../etc/passwd",
        "file:///a/%2e%2e/b",
        "https://example.org/a b",
        "https://example.org/a\n",
        "https://exämple.org/a",
        'https://example.org/"><script>',
        "https://example.org/" + "a" * 3000,
        None,
        7,
    ],
)
def test_a_url_that_leaks_or_leads_elsewhere_is_refused(url):
    with pytest.raises(InvalidValue) as caught:
        External(url, DIGEST, 1)
    assert caught.value.field == "url"
    assert "user:password" not in f"{caught.value!r}{caught.value.hint()}"


@pytest.mark.parametrize(
    ("digest", "size", "field"), [("sha256:ab", 1, "digest"), (DIGEST, -1, "size"), (DIGEST, 1.0, "size")]
)
def test_an_external_file_needs_a_whole_digest_and_a_size(digest, size, field):
    with pytest.raises(InvalidValue) as caught:
        External("https://x.org/a", digest, size)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "path", "url"),
    [
        ("https://x.org/d/w.bin", "w.bin", "https://x.org/d/w.bin"),
        ("s3://b/d/w%20x.bin", "w x.bin", "s3://b/d/w%20x.bin"),
        ("https://x.org/w%20x.bin?v=1", "w x.bin", "https://x.org/w%20x.bin?v=1"),
        ("d/v=s3://b/w", "d/v", "s3://b/w"),
        ("a=b=s3://b/w", "a=b", "s3://b/w"),
        ("https://x.org/w?next=https://y.org/z", "w", "https://x.org/w?next=https://y.org/z"),
    ],
)
def test_an_argument_names_a_url_and_perhaps_a_path(text, path, url):
    for argument in (text, f"{text}#sha256={DIGEST[7:]}"):
        named, made = External.parse(argument)
        assert (named, made.url) == (path, url)
        assert made.digest == (DIGEST if "#" in argument else None)


@pytest.mark.parametrize("text", ["", "w.bin", "https://x.org", "https://x.org/w#sha256=", "https://x.org/w#x", "=x"])
def test_an_argument_that_names_no_file_elsewhere_is_refused(text):
    with pytest.raises(InvalidValue):
        External.parse(text)


def test_files_elsewhere_go_by_their_own_names_or_by_those_that_are_given():
    url = "https://x.org/d/w.bin"
    assert Files.from_references(url).paths() == ["w.bin"]
    assert Files.from_references([url, External("s3://b/v.bin")]).paths() == ["v.bin", "w.bin"]
    assert Files.from_references({"a": url, "b": url}).paths() == ["a", "b"]
    for wrong in ([], {}, [url, url], 7, [7], b"x", {"../a": url}, "https://x.org", {"a": "http://x.org/w"}):
        with pytest.raises(InvalidInput):
            Files.from_references(wrong)


def test_how_large_a_file_is_that_was_never_looked_at_is_not_known():
    with pytest.raises(InvalidValue, match="not known"):
        _ = Files.from_references("https://x.org/w").sizes


def test_a_url_in_a_hostile_manifest_is_refused_when_unpacked():
    stored = MemoryFiles()
    stored.add_external("w", "file:///a/../etc/passwd", DIGEST, 1)
    with pytest.raises(InvalidValue):
        KIND.unpack({"count": 1, "bytes": 1, "suffixes": {"w": 1}}, stored)


# --- resolved


def test_resolved_files_are_read_when_asked_for():
    class Counting(MemoryFiles):
        opened = 0

        def open(self, path):
            self.opened += 1
            return super().open(path)

    stored = Counting()
    config = KIND.pack(Files({"a": b"1", "b": b"22"}), stored)
    files = KIND.unpack(config, stored)
    assert stored.opened == 0
    assert files.sizes == {"a": 1, "b": 2}
    assert files.read("b") == b"22"
    assert stored.opened == 1
    assert files.path("a").read_bytes() == b"1"


def test_an_unknown_path_is_not_found_and_near_names_are_given():
    for files in (Files({"config.json": b""}), unpacked(Files({"config.json": b""}))):
        with pytest.raises(NotFound) as caught:
            files.read("confg.json")
        assert caught.value.near == ("config.json",)


def test_content_in_memory_has_no_place_on_disk():
    with pytest.raises(InvalidValue, match="in memory"):
        Files({"a": b"1"}).path("a")


def test_export_writes_the_files_under_their_names(tmp_path):
    written = unpacked(Files({"a/b.txt": b"1", "c": b"2"})).export(tmp_path / "new" / "out")
    assert written == [tmp_path / "new/out/a/b.txt", tmp_path / "new/out/c"]
    assert [p.read_bytes() for p in written] == [b"1", b"2"]
    assert os.listdir(tmp_path / "new") == ["out"]


def test_export_refuses_a_directory_that_holds_something(tmp_path):
    (tmp_path / "mine").write_bytes(b"")
    for target in (tmp_path, tmp_path / "mine"):
        with pytest.raises(Conflict):
            Files({"a": b"1"}).export(target)
    assert os.listdir(tmp_path) == ["mine"]


def test_an_export_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    files = Files({"a": tmp_path / "a", "b": b"2"})
    (tmp_path / "a").unlink()
    with pytest.raises(NotFound):
        files.export(tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value"), [("count", 3), ("bytes", 999), ("count", True), ("count", "2"), ("bytes", -1)]
)
def test_a_config_that_does_not_agree_with_the_files_is_refused(field, value):
    manifest, stored = pack(KIND, Files({"a": b"1", "b": b"22"}))
    with pytest.raises(InvalidValue) as caught:
        KIND.unpack({**manifest.config, field: value}, stored)
    assert caught.value.field == f"config.{field}"


# --- what people see


def test_the_summary_counts_files_bytes_and_suffixes():
    manifest, _ = pack(KIND, Files({"a.onnx": b"x" * 1500, "b.onnx": b"", "c.json": b"{}", "LICENSE": b""}))
    assert KIND.summary(manifest.config) == "4 files, 1.5 kB: 2 .onnx, 1 .json, 1 LICENSE"


def test_the_config_stays_small_whatever_the_number_of_suffixes():
    manifest, _ = pack(KIND, Files({f"f.{i}": b"" for i in range(500)}))
    assert len(manifest.config["suffixes"]) == 12
    assert KIND.check(manifest.config) == []


def test_the_difference_shows_lines_of_small_text_and_digests_of_the_rest():
    before, a = pack(KIND, Files({"t.txt": b"one\ntwo\n", "b.bin": b"\x00", "gone": b"1", "same": b"s"}))
    after, b = pack(KIND, Files({"t.txt": b"one\nTWO\n", "b.bin": b"\x01", "new": b"1", "same": b"s"}))
    told = KIND.diff(before, after, (a, b))
    assert [(c.op, c.path) for c in told.changes] == [
        ("changed", "files/b.bin"),
        ("removed", "files/gone"),
        ("added", "files/new"),
        ("changed", "files/t.txt"),
    ]
    assert told.text == "--- a/t.txt\n+++ b/t.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+TWO\n"
    assert told.numbers == {"added": 1, "removed": 1, "changed": 2, "bytes": 0}


def test_text_that_would_act_on_a_terminal_is_not_shown():
    before, a = pack(KIND, Files({"t": b"plain\n"}))
    after, b = pack(KIND, Files({"t": b"\x1b[2Jplain\n"}))
    assert KIND.diff(before, after, (a, b)).text == ""
    assert "\x1b" not in str(KIND.diff(before, after, (a, b)))


def test_a_large_text_is_compared_by_digest_only():
    before, a = pack(KIND, Files({"t": b"a\n" * 3000}))
    after, b = pack(KIND, Files({"t": b"a\n" * 3001}))
    told = KIND.diff(before, after, (a, b))
    assert told
    assert told.text == ""


def test_an_external_file_that_moved_is_a_difference():
    before, a = pack(KIND, Files({}, external={"w": External("s3://a/w", DIGEST, 1)}))
    after, b = pack(KIND, Files({}, external={"w": External("s3://b/w", DIGEST, 1)}))
    assert [str(c) for c in KIND.diff(before, after, (a, b)).changes] == ["~ files/w.url: s3://a/w -> s3://b/w"]


def test_a_source_is_read_from_paths_and_takes_no_options(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert KIND.read_source([tmp_path], {}).paths() == ["a"]
    with pytest.raises(InvalidValue, match="unknown option"):
        KIND.read_source([tmp_path], {"x": "1"})


def test_real_folders_come_back_byte_for_byte(shared_data, tmp_path):
    folder = shared_data / "bundles" / "all-MiniLM-L6-v2"
    files = unpacked(Files.from_path(folder))
    written = files.export(tmp_path / "out")
    assert [p.read_bytes() for p in written] == [(folder / p).read_bytes() for p in files]
    assert all(stat.S_ISREG(p.stat().st_mode) for p in written)


def test_every_refusal_is_typed_and_says_what_to_do():
    for bad in ({"../a": b""}, {"/a": b""}, {"a\x00": b""}, {"": b""}, {"a/../b": b""}):
        with pytest.raises(InvalidInput) as caught:
            Files(bad)
        assert isinstance(caught.value, LlmartifactsError)
        assert caught.value.hint()
