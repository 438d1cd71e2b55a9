from importlib.metadata import EntryPoint, EntryPoints

import pytest

from llmartifacts import plugins
from llmartifacts.errors import InvalidInput, NotFound


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(plugins, "_LOADED", {})


def installed(monkeypatch, *entries):
    monkeypatch.setattr(
        plugins, "_entry_points", lambda socket: EntryPoints(e for e in entries if e.group.endswith(socket))
    )


@pytest.mark.parametrize(("socket", "name"), [(s, n) for s, names in plugins.BUILT_IN.items() for n in names])
def test_every_built_in_is_there_and_names_itself(socket, name):
    loaded = plugins.load(socket, name)
    assert plugins.load(socket, name) is loaded
    if socket == "kinds":
        assert loaded.name == name
        assert loaded().value_type.kind == name


def test_a_kind_of_another_package_enters_by_the_same_door(monkeypatch):
    installed(monkeypatch, EntryPoint("graph", "collections:OrderedDict", "llmartifacts.kinds"))
    assert plugins.load("kinds", "graph").__name__ == "OrderedDict"
    assert "graph" in plugins.names("kinds")
    assert "prompt" in plugins.names("kinds")
    assert plugins.names("kinds") == sorted(plugins.names("kinds"))


def test_an_installed_plug_in_cannot_take_the_name_of_a_built_in(monkeypatch):
    installed(monkeypatch, EntryPoint("files", "collections:OrderedDict", "llmartifacts.kinds"))
    assert plugins.load("kinds", "files").__module__ == "llmartifacts.kinds.files.kind"
    assert plugins.names("kinds").count("files") == 1


def test_an_unknown_name_is_not_found_with_near_names_and_what_is_installed():
    with pytest.raises(NotFound, match="no kind is called 'promt'") as caught:
        plugins.load("kinds", "promt")
    assert caught.value.near[0] == "prompt"
    assert "vector_index" in caught.value.hint()


@pytest.mark.parametrize("target", ["no_such_module_here:X", "collections:NoSuchName"])
def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch, target):
    installed(monkeypatch, EntryPoint("broken", target, "llmartifacts.kinds"))
    with pytest.raises(InvalidInput, match="'broken'") as caught:
        plugins.load("kinds", "broken")
    assert caught.value.field == "kinds"


def test_a_built_in_is_loaded_without_looking_for_plug_ins(monkeypatch):
    def looked(socket):
        raise AssertionError("looking for entry points costs 12 ms")

    monkeypatch.setattr(plugins, "_entry_points", looked)
    assert plugins.load("kinds", "files").name == "files"
