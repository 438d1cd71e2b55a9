"""URLs of content that is kept outside: one writing for one place, and nothing secret in it."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidManifest, InvalidValue
from llmartifacts.records.digest import digest_of
from llmartifacts.records.external import MAX_URL, is_address, parse_place, pinned_url, url_problem
from llmartifacts.records.manifest import Descriptor, Manifest

GOOD = [
    "https://example.org/a",
    "https://example.org",
    "https://EXAMPLE.org:8443/a/b%20c?v=2&x=1",
    "https://[2606:2800:220:1::1]/a",
    "https://storage.googleapis.com/b/o?generation=1700000000000000",
    "s3://bucket/deep/key.bin",
    "s3://my.bucket-1/a%20b%25/%C3%A4?versionId=3sL4kqtJ.x_-",
    "file:///data/weights%20(1).bin",
]
BAD = [
    "http://example.org/a",
    "HTTPS://example.org/a",
    "gopher://x/a",
    "https:/example.org/a",
    "https://",
    "https:///a",
    "https://user@example.org/a",
    "https://user:pw@example.org/a",
    "https://example.org@evil.example/a",
    "https://example.org\\@evil.example/a",
    "https://example.org/a#sha256=1",
    "https://2130706433/a",
    "https://0x7f.1/a",
    "https://127.1/a",
    "https://exa mple.org/a",
    "https://example.org:0/a",
    "https://example.org:/a",
    "https://example.org:x/a",
    "https://[::1/a",
    "https://[fe80::1%25eth0]/a",
    "https://example.org/%zz",
    "https://example.org/%",
    "https://example.org/a%0d%0aHost:x",
    "https://example.org/%00",
    "https://example.org/a\r\nX: y",
    "https://example.org/a?X-Amz-Signature=abc",
    "https://example.org/a?x-amz-credential=abc",
    "https://example.org/a?sv=1&sig=abc",
    "https://example.org/a?ACCESS_TOKEN=abc",
    "https://example.org/a?%73ig=abc",
    "https://example.org/a?" + "&".join(f"a{i}" for i in range(200)),
    "s3://bucket",
    "s3://bucket/",
    "s3://bucket/a/",
    "s3://bucket//a",
    "s3://bucket/a/../b",
    "s3://bucket/./b",
    "s3://bucket/%2e%2e/b",
    "s3://bucket/a%2Fb",
    "s3://bucket/a?versionId=",
    "s3://bucket/a?versionId=x&y=1",
    "s3://bucket/a?region=evil",
    "s3://bucket/%ff",
    "s3://-bucket/a",
    "s3://buck..et/a",
    "s3://evil.example:80/a",
    "file:///",
    "file:///a/",
    "file:///a//b",
    "file:///a/../b",
    "file:///a/%2e%2e/b",
    "file:///a/%41",
    "file:///a?x=1",
    "file://localhost/a",
    "file:/a",
    "",
    "a",
    "https://example.org/" + "a" * MAX_URL,
    None,
    7,
    b"https://example.org/a",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_url_that_names_one_place_is_taken(url: str) -> None:
    assert parse_place(url).url == url
    Manifest.build("files", {}, [Descriptor("w", digest_of(b""), 0, url)])


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_is_unsafe_or_ambiguous_is_refused_as_a_value_and_in_a_manifest(url: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_place(url)
    assert caught.value.field == "url"
    if url:
        with pytest.raises(InvalidManifest) as refused:
            Manifest.build("files", {}, [Descriptor("w", digest_of(b""), 0, url)])  # type: ignore[arg-type]
        assert refused.value.field == "files[0].url"


def test_what_is_told_of_a_place_leaves_the_query_out_but_for_the_version() -> None:
    assert str(parse_place("https://example.org/a?key=hush&versionId=v1")) == "https://example.org/a (version v1)"
    assert str(parse_place("https://example.org/a?key=hush")) == "https://example.org/a"


@given(st.text(min_size=1, max_size=40))
def test_any_key_of_a_bucket_comes_back_or_is_refused(key: str) -> None:
    try:
        url = "s3://bucket/" + quote(key, safe="/-_.~")
    except UnicodeEncodeError:
        return
    problem = url_problem(url)
    refusable = any(s in ("", ".", "..") for s in key.split("/")) or any(ord(c) < 32 or ord(c) == 127 for c in key)
    assert bool(problem) == refusable
    if not problem:
        assert parse_place(url).key == key


@given(st.one_of(st.text(), st.from_regex(r"(https|s3|file)://[ -~]{0,60}", fullmatch=True)))
def test_whatever_is_taken_is_read_the_same_by_another_parser(url: str) -> None:
    if url_problem(url):
        return
    place, other = parse_place(url), urlsplit(url)
    assert other.scheme == place.scheme
    assert other.username is None
    assert other.password is None
    assert not other.fragment
    if place.scheme == "https":
        assert (other.hostname or "").strip("[]") == place.host or ":" in place.host
    assert url.isascii()
    assert url.isprintable()


@pytest.mark.parametrize(
    ("url", "version", "made"),
    [
        ("s3://b/k", "v1", "s3://b/k?versionId=v1"),
        ("s3://b/k?versionId=v0", "v1", "s3://b/k?versionId=v0"),
        ("s3://b/k", "null", "s3://b/k"),
        ("s3://b/k", "", "s3://b/k"),
        ("s3://b/k", "v 1\r\n", "s3://b/k"),
        ("https://h.example/k?a=1", "v1", "https://h.example/k?a=1&versionId=v1"),
        ("https://storage.googleapis.com/b/k", "17", "https://storage.googleapis.com/b/k?generation=17"),
        ("file:///data/k", "v1", "file:///data/k"),
    ],
)
def test_a_version_goes_into_the_url_where_there_is_a_way_to_write_it(url: str, version: str, made: str) -> None:
    assert pinned_url(url, version) == made


def test_an_address_is_told_from_a_file() -> None:
    assert all(map(is_address, ["https://x/a", "w.bin=s3://b/k", "a/b=file:///x", "ftp://x", "a=b=s3://b/k"]))
    assert not any(map(is_address, ["a.txt", "a/b", "C:/x", "a=b", "/a//b", "", "x:y"]))
