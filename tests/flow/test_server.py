"""A server as a team has it: its first start, its answers to services, several processes, its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import requests

import llmartifacts as la
from llmartifacts.records.reference import Reference
from llmartifacts.testing.server import RunningServer, running_server
from llmartifacts.wire.bodies.reading import encode_reading

READ = "/api/v1/projects/default/read"


def _prompt(text: str) -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("served") / "registry"
    with la.init(where, actor="ann") as registry:
        registry.log("agent", _prompt("one"), aliases="prod")
        registry.log("kb", la.Files({"x": b"1"}), aliases="prod")
    return where


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RunningServer]:
    with running_server(place) as running:
        yield running


@pytest.fixture
def ask(server: RunningServer) -> Iterator[Any]:
    with requests.Session() as session:
        session.headers.update(server.headers)

        def asked(method: str, path: str, **more: Any) -> requests.Response:
            return session.request(method, server.url + path, timeout=30, **more)

        yield asked


def test_it_is_alive_and_ready_and_says_what_it_is(ask: Any) -> None:
    assert ask("GET", "/healthz").json()["status"] == "ok"
    assert ask("GET", "/readyz").json()["checks"] == {"server": "ok", "database": "ok", "blobs": "ok"}
    about = ask("GET", "/api/v1/info").json()
    assert about["version"] == version("llmartifacts")
    assert about["limits"]["piece"] == 8 * 1024 * 1024


def test_one_round_trip_reads_every_reference_with_its_manifest(ask: Any) -> None:
    found = ask("GET", READ, params={"ref": ["agent:prod", "kb:prod", "nothing:prod"]}).json()
    agent, kb, nothing = found["items"]
    assert agent["manifest"]["config"]["template"] == "one"
    assert kb["version"]["number"] == 1
    assert nothing["code"] == "not_found"
    assert found["revision"] == 2


def test_an_unchanged_reading_is_not_sent_again_and_a_changed_one_is_sent_at_once(ask: Any, place: Path) -> None:
    def read(tag: str = "") -> requests.Response:
        return ask("GET", READ, params={"ref": "agent:prod"}, headers={"If-None-Match": tag} if tag else {})

    first = read()
    for _ in range(3):  # from memory by now
        again = read(first.headers["ETag"])
        assert (again.status_code, again.content) == (304, b"")
        assert read().content == first.content
    changes = (
        lambda registry: registry.log("agent", _prompt("two"), aliases="prod"),
        lambda registry: registry.tag("agent:v2", set={"k": "v"}),
        lambda registry: registry.log("agent", _prompt("three")),
        lambda registry: registry.rollback("agent:prod", reason="worse"),
        lambda registry: registry.promote("agent:v3", to="prod", reason="best"),
    )
    with la.connect(place, actor="bob") as beside:
        for change in changes:
            change(beside)
            stored = encode_reading(beside.backend.read("default", [Reference.parse("agent:prod")]))
            assert read().content == stored
            assert read().content == stored


def test_what_is_said_of_a_project_that_is_not_there(ask: Any) -> None:
    answer = ask("GET", "/api/v1/projects/nope/read", params={"ref": "a:prod"})
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "not_found"


def test_each_answer_has_an_id_that_the_log_has_too(ask: Any, server: RunningServer) -> None:
    given = ask("GET", "/api/v1/me", headers={"X-Request-Id": "from-a-client-0001"})
    made = ask("GET", "/api/v1/me", headers={"X-Request-Id": "no good: spaces\t"})
    assert given.headers["X-Request-Id"] == "from-a-client-0001"
    assert made.headers["X-Request-Id"] != "no good: spaces\t"
    lines = [json.loads(line) for line in server.log_text().splitlines()]
    line = next(one for one in lines if one.get("id") == "from-a-client-0001")
    assert (line["route"], line["status"], line["account"]) == ("/api/v1/me", 200, "admin")


def test_the_log_has_no_token_and_no_query(ask: Any, server: RunningServer) -> None:
    ask("GET", READ, params={"ref": "very-secret-name:prod"})
    requests.get(server.url + "/api/v1/me", params={"token": server.token}, timeout=30)
    requests.get(server.url + f"/api/v1/{server.token}", timeout=30)
    ask("POST", "/api/v1/tokens", json={"label": "for the log"})
    told = server.log_text()
    assert "lla_" not in told
    assert server.token.split("_")[2] not in told
    assert "very-secret-name" not in told


def test_the_figures_name_routes_and_nobody(ask: Any) -> None:
    ask("GET", "/api/v1/projects/secret-project/read", params={"ref": "a:prod"})
    text = ask("GET", "/metrics").text
    assert 'route="/api/v1/projects/{project}/read"' in text
    assert "secret-project" not in text
    assert "admin" not in text
    for line in text.splitlines():
        assert line.startswith("#") or line.rpartition(" ")[2].replace(".", "").isdigit(), line


def test_the_description_is_of_what_is_there(ask: Any) -> None:
    described = ask("GET", "/api/v1/openapi.json").json()
    assert described["openapi"].startswith("3.")
    for path, methods in described["paths"].items():
        for method in ("GET", "POST", "PUT", "DELETE"):
            plain = path.replace("{", "").replace("}", "")
            status = ask(method, plain).status_code
            assert (status == 405) == (method.lower() not in methods), (method, path, status)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    where = tmp_path_factory.mktemp("several") / "registry"
    with running_server(where, workers=3, drain_seconds=0.5) as running:
        yield running


def test_several_processes_share_the_port_and_their_figures(several: RunningServer) -> None:
    def once(_: int) -> int:
        return requests.get(several.url + "/api/v1/me", headers=several.headers, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(once, range(120))) == {200}
    until = time.monotonic() + 20
    while time.monotonic() < until:
        text = requests.get(several.url + "/metrics", timeout=30).text
        counted = 'route="/api/v1/me",status="200"} 120' in text
        if counted and "llmartifacts_workers 3" in text:
            break
        time.sleep(0.2)
    assert counted, text
    assert "llmartifacts_workers 3" in text


def test_what_one_process_writes_the_others_say_at_once(several: RunningServer) -> None:
    for number in range(10):
        name = f"project-{number}"
        made = requests.post(several.url + "/api/v1/projects", json={"name": name}, headers=several.headers, timeout=30)
        assert made.status_code == 201, made.text
        for _ in range(4):  # each on a new connection, so most likely another process
            found = requests.get(f"{several.url}/api/v1/projects/{name}/revision", headers=several.headers, timeout=30)
            assert found.json() == {"revision": 0}


def test_told_to_end_it_says_so_finishes_and_ends(tmp_path: Path) -> None:
    with running_server(tmp_path / "registry", drain_seconds=1.5, grace_seconds=10) as server:
        ended: list[int] = []
        ending = threading.Thread(target=lambda: ended.append(server.stop()))
        ending.start()
        said, status = "", 0
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            answer = requests.get(server.url + "/readyz", timeout=30)
            said = answer.json()["checks"]["server"] if answer.status_code == 503 else ""
        status = requests.get(server.url + "/api/v1/me", headers=server.headers, timeout=30).status_code
        ending.join(30)
        assert (said, status) == ("ending", 200)  # it said so, and went on to answer
        assert ended == [0]
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url + "/healthz", timeout=5)


@pytest.mark.parametrize(
    "team", [pytest.param(False, id="embedded"), pytest.param(True, id="team", marks=pytest.mark.matrix)]
)
def test_a_server_whose_folder_of_bytes_is_another_is_not_ready(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, team: bool
) -> None:
    where: dict[str, Any] = {"database": postgres_url, "blobs": tmp_path / "registry" / "blobs"} if team else {}
    with running_server(None if team else tmp_path / "registry", **where) as server:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        with la.connect(server.url) as registry:
            registry.log("kb", la.Files({"x": b"1"}))
        assert requests.get(server.url + "/readyz", timeout=30).json()["checks"]["blobs"] == "ok"
        blobs = tmp_path / "registry" / "blobs"
        blobs.rename(tmp_path / "registry" / "unmounted")
        blobs.mkdir()
        assert _blobs_said(server, until="another place")  # what was found is good for two seconds
        blobs.rename(tmp_path / "other")
        (tmp_path / "registry" / "unmounted").rename(blobs)
        assert _blobs_said(server, until="ok")


def _blobs_said(server: RunningServer, until: str) -> bool:
    """Whether the server comes to say this of its bytes, with the status that belongs to it."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        answer = requests.get(server.url + "/readyz", timeout=30)
        if answer.json()["checks"]["blobs"] == until:
            return answer.status_code == (200 if until == "ok" else 503)
        time.sleep(0.2)
    return False


def test_a_second_start_prints_no_token_and_the_first_one_goes_on_to_work(tmp_path: Path) -> None:
    with running_server(tmp_path / "registry") as first:
        token = first.token
        assert token.startswith("lla_")
        assert token not in first.log_text()
    with running_server(tmp_path / "registry") as second:
        assert second.token == ""
        answer = requests.get(second.url + "/api/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.json()["name"] == "admin"


@pytest.mark.matrix
def test_of_replicas_that_start_at_once_one_prints_the_token(tmp_path: Path, postgres_url: str) -> None:
    made: list[str] = []
    together = threading.Barrier(3)

    def start(number: int) -> None:
        together.wait()
        with running_server(
            database=postgres_url, blobs=tmp_path / "blobs", folder=tmp_path / str(number), workers=2
        ) as server:
            made.append(server.token)
            together.wait()

    threads = [threading.Thread(target=start, args=(n,)) for n in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(90)
    assert len(made) == 3
    assert sum(bool(token) for token in made) == 1
