"""Every backend keeps the contract: stories end the same way, and wrong calls get the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.registry import Registry
from llmartifacts.testing.backends import ANN, BOB, STORIES, Opened, Story
from llmartifacts.testing.refusals import refusals
from llmartifacts.testing.server import RunningServer, running_server


def embedded(place: Path) -> Opened:
    la.init(place).close()
    return lambda person, project: la.connect(place, project=project, actor=person)


@contextmanager
def served(server: RunningServer) -> Iterator[Opened]:
    """Registries of a server; everybody administers it, each with a token of their own."""
    admin = RemoteBackend(HttpSession(server.url, server.token))
    tokens = {}
    for person in (ANN, BOB):
        admin.accounts.create_account(person)
        admin.accounts.grant(person, "admin")
        tokens[person] = admin.accounts.create_token("stories", account=person).text
    admin.close()

    def opened(person: str, project: str) -> Registry:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("LLMARTIFACTS_TOKEN", tokens[person])
            return la.connect(server.url, project=project)

    yield opened


@pytest.fixture(scope="module", params=["embedded", "served over SQLite", "served over PostgreSQL"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    place = tmp_path_factory.mktemp("registry")
    if request.param == "embedded":
        yield embedded(place / "r")
        return
    postgres = "PostgreSQL" in request.param
    database = request.getfixturevalue("postgres_server").new_database() if postgres else ""
    where = {"database": database, "blobs": place / "blobs"} if postgres else {"registry": place / "r"}
    with running_server(**where) as server, served(server) as made:
        yield made


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_contract_is_kept(story: Story, opened: Opened) -> None:
    story(opened)


def test_wrong_calls_get_the_answers_that_an_embedded_registry_gives(opened: Opened, tmp_path: Path) -> None:
    expected, told = refusals(embedded(tmp_path / "r")), refusals(opened)
    assert told.keys() == expected.keys()
    for name, error in told.items():
        assert error[0] != "nothing", name
        assert error == expected[name], name


def test_a_registry_of_a_server_says_who_acts(opened: Opened) -> None:
    with opened(BOB, "default") as registry:
        assert registry.actor == BOB
        assert not hasattr(registry, "nonsense")
