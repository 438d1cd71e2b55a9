from pathlib import Path

import pytest
from pydantic import Field

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import Config, Kind, check_options
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Component, Descriptor, Manifest
from llmartifacts.testing.kinds import MemoryFiles


class Inner(Config):
    weight: float


class NoteConfig(Config):
    text: str
    inner: list[Inner] = Field(default_factory=list)


class NoteKind(Kind[str]):
    name = "note"
    value_type = str
    config_model = NoteConfig

    def pack(self, value, files):
        return {"text": value}

    def unpack(self, config, files):
        return self.parse(config).text

    def summary(self, config):
        return self.parse(config).text

    def read_source(self, paths, options):
        check_options(options, ("encoding",))
        return Path(paths[0]).read_text(encoding=options.get("encoding", "utf-8"))


KIND = NoteKind()


def test_a_config_is_checked_in_words_that_begin_with_the_field():
    assert KIND.check({"text": "x"}) == []
    assert KIND.check({"text": 7})[0].startswith("text: ")
    assert KIND.check({})[0].startswith("text: ")
    assert KIND.check({"text": "x", "extra": 1})[0].startswith("extra: ")
    assert KIND.check({"text": "x", "inner": [{"weight": 1}, {"weight": "heavy"}]})[0].startswith("inner[1].weight: ")
    assert KIND.check({"text": "x", "inner": [{"weight": float("nan")}]})[0].startswith("inner[0].weight: ")
    assert KIND.check("no object")[0].startswith("config: ")


def test_a_config_that_does_not_fit_is_a_typed_error_that_names_the_first_field():
    with pytest.raises(InvalidValue, match="note config") as caught:
        KIND.parse({"text": "x", "inner": [{}]})
    assert caught.value.field == "config.inner[0].weight"
    assert caught.value.__cause__ is None


def test_what_a_hostile_config_holds_is_not_repeated_in_the_message():
    with pytest.raises(InvalidValue) as caught:
        KIND.parse({"text": ["\x1b[2Jsecret"]})
    assert "secret" not in str(caught.value)


def test_a_config_is_frozen():
    config = KIND.parse({"text": "x"})
    with pytest.raises(ValueError, match="frozen"):
        config.text = "y"


def test_the_common_difference_covers_config_files_and_parts():
    a = Manifest.build("note", {"text": "x"}, [Descriptor("f", digest_of(b"1"), 1)])
    b = Manifest.build("note", {"text": "y"}, (), [Component("p", "prompt", digest_of(b"2"))])
    told = KIND.diff(a, b, (MemoryFiles(), MemoryFiles()))
    assert [(c.op, c.path) for c in told.changes] == [
        ("changed", "text"),
        ("removed", "files/f"),
        ("added", "components.p"),
    ]
    assert told.kind == "note"
    assert not KIND.diff(a, a, (MemoryFiles(), MemoryFiles()))


def test_a_kind_without_parts_refers_to_nothing():
    assert KIND.references("x") == {}


def test_unknown_options_are_refused_and_the_known_ones_listed():
    check_options({}, ())
    check_options({"a": "1"}, ("a", "b"))
    with pytest.raises(InvalidValue) as caught:
        check_options({"encodng": "x"}, ("encoding", "errors"))
    assert caught.value.field == "encodng"
    assert "encoding, errors" in caught.value.hint()
    with pytest.raises(InvalidValue) as caught:
        check_options({"x": "1"}, ())
    assert "no options" in caught.value.hint()


def test_a_kind_that_lacks_a_verb_cannot_be_made():
    class Half(Kind[str]):
        name = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half()
