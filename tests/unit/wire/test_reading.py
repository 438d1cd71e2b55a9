import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import Damaged, NotFound
from llmartifacts.records.backend import Reading
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.version import Found, Version
from llmartifacts.wire.bodies import reading as bodies
from llmartifacts.wire.bodies.base import read_body
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.bodies.versions import Manifest as ManifestBody
from llmartifacts.wire.bodies.versions import Version as VersionBody

AT = datetime(2026, 3, 3, 9, 0, 0, 5, tzinfo=UTC)


def found(text: str, *, move: int | None = None, size: int = 0, **more) -> Found:
    manifest = Manifest.build("files", {"text": text, "pad": "x" * size}, [Descriptor("a", digest_of(b"a"), 1)])
    version = Version("default", "kb", "files", 1, manifest.digest, AT, message=text, **more)
    return Found(version, manifest, move)


def by_models(reading: Reading) -> dict:
    items = tuple(
        Problem.of(item)
        if not isinstance(item, Found)
        else bodies.Found.known(
            version=VersionBody.of(item.version), manifest=ManifestBody.of(item.manifest), move=item.move
        )
        for item in reading.items
    )
    return bodies.Reading.known(project=reading.project, revision=reading.revision, items=items).plain()


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers(0, 9), st.booleans())
def test_the_fast_writer_writes_what_the_models_say(text, move, yanked):
    more = {"yanked_at": AT, "yank_reason": text, "tags": {"k": text}, "aliases": ("latest", "prod")} if yanked else {}
    errors = (NotFound('no "x"\n', near=("a",)), Damaged("gone", versions=("kb:v1",)))
    reading = Reading("default", 7, (found(text, move=move, **more), *errors))
    data = bodies.encode_reading(reading)
    assert parse_json(data) == by_models(reading)
    read = read_body(bodies.Reading, data)
    assert read.items[0].version.record() == reading.items[0].version
    assert read.items[0].manifest.record() == reading.items[0].manifest
    assert [str(item.record()) for item in read.items[1:]] == [str(error) for error in errors]


def test_the_bytes_of_a_manifest_travel_as_they_are_kept():
    one = found("ä \u2028")
    assert one.manifest.to_bytes() in bodies.encode_reading(Reading("default", 1, (one,)))


def test_a_large_manifest_is_left_out_and_so_is_what_would_make_the_answer_too_long():
    large = found("a", size=70_000)
    small = [found(str(i), size=60_000) for i in range(200)]
    read = read_body(bodies.Reading, bodies.encode_reading(Reading("default", 1, (large, *small))))
    assert read.items[0].manifest is None
    inside = [item for item in read.items if item.manifest is not None]
    assert 100 < len(inside) < 200
    assert sum(len(item.manifest.record().to_bytes()) for item in inside) <= bodies.MAX_INLINE
    many = bodies.encode_manifests({f.version.digest: f.manifest.to_bytes() for f in (large, *small)})
    told = read_body(bodies.Manifests, many).manifests
    assert len(told) == 201
    assert told[0].manifest is None
    assert told[1].manifest.record() == small[0].manifest


def test_the_entity_tag_changes_with_the_body_and_the_revision():
    a, b = bodies.encode_reading(Reading("default", 1, ())), bodies.encode_reading(Reading("default", 2, ()))
    assert bodies.etag(a, 1) != bodies.etag(b, 2)
    assert bodies.etag(a, 1).startswith('"r1-')
    assert len(bodies.etag(a, 1)) == len('"r1-') + 32 + 1


@pytest.mark.parametrize("extra", [{"version": 1}, {"code": "x"}, {}])
def test_an_item_that_is_neither_found_nor_an_error_is_refused(extra):
    body = json.loads(bodies.encode_reading(Reading("default", 1, ()))) | {"items": [extra]}
    with pytest.raises(ValueError):
        bodies.Reading.model_validate(body)
