import inspect
import re

import pytest
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from llmartifacts.records.accounts import Accounts
from llmartifacts.records.backend import Backend
from llmartifacts.records.rights import Permission
from llmartifacts.wire.bodies.base import Model, Query
from llmartifacts.wire.routes import BY_NAME, ROUTES, P

SHORT = {"location", "blobs", "close", "identity", "repair"}
"""Members of the contract that are no call, are told by `info`, or are refused by the client: they work on files."""


def verbs(protocol):
    return {name for name, member in vars(protocol).items() if inspect.isfunction(member) and not name.startswith("_")}


def test_every_verb_of_the_contract_has_a_route():
    assert verbs(Backend) - SHORT <= BY_NAME.keys()


def test_every_verb_on_accounts_has_a_route():
    assert verbs(Accounts) <= BY_NAME.keys()


def test_names_are_unique_and_so_are_method_and_path():
    assert len(BY_NAME) == len(ROUTES)
    assert len({(r.method, re.sub(r"\{\w+\}", "{}", r.path)) for r in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.name)
def test_a_route_is_whole(route):
    assert isinstance(route.permission, Permission)
    assert route.path.startswith("/")
    assert not route.path.endswith("/")
    assert route.summary
    assert not route.summary.endswith(".")
    assert re.fullmatch(r"[a-z_]+", route.name)
    assert route.query is None or issubclass(route.query, Query)
    assert route.body is None or isinstance(route.body, str) or issubclass(route.body, Model)
    assert (route.result is None) == (route.status == 204)
    assert route.in_project == ("project" in route.parameters)
    assert not (route.method == "GET" and (route.writes or route.body is not None))
    # What an upload brings has no effect before a commit, and may be sent again by itself: it needs no key.
    assert route.method in ("GET", "POST") or route.writes or "/uploads/" in route.path
    assert 401 in route.errors or route.permission is Permission.PUBLIC


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.name)
def test_a_permission_of_a_project_is_asked_for_in_one(route):
    of_a_project = {
        Permission.READ,
        Permission.LOG,
        Permission.COMMIT,
        Permission.EVALUATE,
        Permission.PROMOTE,
        Permission.APPROVE,
        Permission.ADMIN,
    }
    assert (route.permission in of_a_project) == route.path.startswith(f"{P}/")


def test_the_schemas_of_all_bodies_can_be_written_together():
    models = {m for r in ROUTES for m in (r.query, r.body, r.result) if inspect.isclass(m) and issubclass(m, BaseModel)}
    _, schema = models_json_schema([(m, mode) for m in models for mode in ("validation", "serialization")])
    for name, one in schema["$defs"].items():
        if one["type"] == "object" and "properties" in one:
            assert one["additionalProperties"] is False, name
            assert one.get("description") or name.startswith("Page_"), name
