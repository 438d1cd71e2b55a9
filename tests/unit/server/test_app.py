"""Every route has one handler and a permission, or there is no server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llmartifacts.errors import NotAllowed
from llmartifacts.server.app import bind, create_app
from llmartifacts.server.calls import HANDLERS, Handler, handler
from llmartifacts.server.config import Settings
from llmartifacts.server.openapi import document
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.wire.routes import BASE, ROUTES


def test_the_table_and_the_handlers_fit() -> None:
    assert set(bind()) == {route.name for route in ROUTES}


@pytest.mark.parametrize(
    ("routes", "handlers", "told"),
    [
        (ROUTES, {r.name: Handler(print) for r in ROUTES[1:]}, "'info' has no handler"),
        (ROUTES[1:], {r.name: Handler(print) for r in ROUTES}, "'info' has no route"),
        ((replace(ROUTES[0], permission=None), *ROUTES[1:]), None, "'info' has no permission"),  # type: ignore[arg-type]
        ((*ROUTES, ROUTES[0]), None, "two routes 'info'"),
    ],
)
def test_one_that_does_not_fit_stops_the_start(routes: Any, handlers: Any, told: str) -> None:
    bind()
    with pytest.raises(RuntimeError, match=told):
        bind(routes, handlers or HANDLERS)


def test_a_handler_for_no_route_or_a_second_one_is_a_mistake() -> None:
    bind()
    with pytest.raises(RuntimeError, match="no route 'nonsense'"):
        handler("nonsense")(print)
    with pytest.raises(RuntimeError, match="two handlers"):
        handler("info")(print)


def test_an_application_is_as_strict_as_the_command(tmp_path: Path) -> None:
    place = tmp_path / "registry"
    EmbeddedBackend.create(place, actor="ann").close()
    backend = EmbeddedBackend.open(place)
    with pytest.raises(NotAllowed):
        create_app(Settings(registry=str(place), host="0.0.0.0", authenticate=False), backend)
    app = create_app(Settings(registry=str(place)), backend)
    assert app.openapi() == document("http://127.0.0.1:8391")
    backend.close()


def test_the_description_is_whole_and_sound() -> None:
    described = document("https://registry.example.org")
    text = json.dumps(described)
    for reference in set(_references(described)):
        assert reference.startswith("#/components/schemas/")
        jsonschema.Draft202012Validator.check_schema(described["components"]["schemas"][reference.rpartition("/")[2]])
    for route in ROUTES:
        operation = described["paths"][BASE + route.path][route.method.lower()]
        assert operation["operationId"] == route.name
        assert str(route.status) in operation["responses"]
        assert all(str(status) in operation["responses"] for status in route.errors)
        named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert named == set(route.parameters)
    assert "PydanticUndefined" not in text
    assert "__" not in text.replace("__proto__", "")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for inner in value.values() for one in _references(inner)]
    return [one for inner in value for one in _references(inner)] if isinstance(value, list) else []
