"""Addresses of object stores: what they say, and that no credential is ever in one or told of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.objects.address import Place, parse_endpoint, parse_place
from llmartifacts.errors import InvalidInput

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", Place("s3", "bucket")),
        ("s3://bucket/", Place("s3", "bucket")),
        ("s3://my.bucket-1/team/registry/", Place("s3", "my.bucket-1", "team/registry")),
        (
            "s3://b-1/p?endpoint=https://s3.example.org:9000/&region=eu-central-1&style=virtual&public=no",
            Place("s3", "b-1", "p", "https://s3.example.org:9000", "eu-central-1", "virtual", "no"),
        ),
        ("s3://b-1?endpoint=http%3A%2F%2Fminio%3A9000", Place("s3", "b-1", endpoint="http://minio:9000")),
        ("s3://b-1?endpoint=http://[::1]:9000", Place("s3", "b-1", endpoint="http://[::1]:9000")),
        ("gs://bucket/p", Place("gs", "bucket", "p")),
        ("az://container/p?account=ours", Place("az", "container", "p", account="ours")),
    ],
)
def test_an_address_says_where_objects_are(url: str, place: Place) -> None:
    assert parse_place(url) == place
    assert str(place) == url.partition("?")[0].rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3:bucket",
        "s3://",
        "s3:///prefix",
        "ftp://bucket",
        "S3://bucket",
        "s3://b",
        "s3://-bucket",
        "s3://bucket:80/p",
        "s3://bucket:x/p",
        "s3://[bucket/p",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/%2e%2e/b",
        "s3://bucket/.hidden",
        "s3://bucket/a b",
        "s3://bucket/é",
        "s3://bucket/a\n",
        "s3://bucket/p#part",
        "s3://bucket/" + "a/" * 300,
        "s3://bucket/p?",
        "s3://bucket/p?x",
        "s3://bucket/p?colour=red",
        "s3://bucket/p?region=a&region=b",
        "s3://bucket/p?region=",
        "s3://bucket/p?region=eu/central",
        "s3://bucket/p?style=round",
        "s3://bucket/p?endpoint=s3.example.org",
        "s3://bucket/p?endpoint=ftp://s3.example.org",
        "s3://bucket/p?endpoint=https://s3.example.org?x=1",
        "s3://bucket/p?endpoint=https://s3.example.org:x",
        "s3://bucket/p?endpoint=https://",
        "s3://bucket/p?endpoint=https://a/b%20c",
        "s3://bucket/p?public=maybe",
        "s3://bucket/p?account=x",
        "gs://bucket/p?region=x",
        "az://bucket/p?style=path",
        "s3://bucket/p?" + "&".join(f"o{i}=1" for i in range(40)),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    if url == "s3://bucket/p?":
        assert parse_place(url) == Place("s3", "bucket", "p")
        return
    with pytest.raises(InvalidInput) as caught:
        parse_place(url)
    assert caught.value.field == "blobs"
    assert caught.value.hint()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIDX:{SECRET}@bucket/p",
        f"s3://{SECRET}@bucket/p",
        f"s3://bucket/p?secret_access_key={SECRET}",
        f"s3://bucket/p?access_key_id=a&token={SECRET}",
        f"az://container/p?sas_token={SECRET}",
        f"az://container/p?account_key={SECRET}",
        f"gs://bucket/p?service_account_key={SECRET}",
        f"s3://bucket/p?endpoint=https://user:{SECRET}@s3.example.org",
        f"s3://bucket/p?public=https://user:{SECRET}@s3.example.org",
        f"s3://bucket/p?endpoint=https://s3.example.org/?token={SECRET}",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_told(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_place(url)
    assert SECRET not in f"{caught.value!r}{caught.value.hint()}{caught.value.details()}{caught.value.__context__}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(max_size=60), st.sampled_from(["s3://", "gs://", "az://", ""]))
def test_any_text_is_an_address_or_refused(text: str, scheme: str) -> None:
    try:
        place = parse_place(scheme + text)
    except InvalidInput:
        return
    assert parse_place(str(place)) == Place(place.scheme, place.bucket, place.prefix)


def test_an_endpoint_of_the_environment_is_held_to_the_same() -> None:
    assert parse_endpoint("https://s3.example.org/", "AWS_ENDPOINT_URL") == "https://s3.example.org"
    with pytest.raises(InvalidInput, match="AWS_ENDPOINT_URL"):
        parse_endpoint(f"https://a:{SECRET}@b", "AWS_ENDPOINT_URL")
