"""Requests that nobody means well: refused in the design's words, nothing kept, and the server goes on as before."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

import llmartifacts as la
from llmartifacts.testing.server import RunningServer, running_server

JSON = {"Content-Type": "application/json"}
NASTY = (
    "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "C:\\Windows\\win.ini", "file:///etc/passwd",
    "a/../../b", "\\\\host\\share", "a\x00b", "nul\u0000", "\ufeffa", "a\r\nSet-Cookie: x=1", "a\nb", "\u202eabc",
    "ｐｒｏｄ",
    "'; drop table version; --", "' or '1'='1", "1) union select secret from access_token --", "$(id)", "`id`", "|id",
    "{{ 7*7 }}", "{{ ''.__class__.__mro__ }}", "{% for x in range(10**9) %}{% endfor %}", "${jndi:ldap://x/a}", "%s%n",
    "<script>alert(1)</script>", "%00", ":", "a:b:c", "@", "@sha256:" + "0" * 64, "a@sha256:" + "z" * 64, "sha256",
    "v1", "latest", "", " ", "-", "a" * 200, "a" * 20_000, "\U0001f4a9", "\u0000", "null", "NaN", "-1", "1e309",
    "__proto__", "constructor", "!*", "*", "default@r1", "default@r999999999999999999999",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("bad") / "registry"
    with la.init(where, actor="ann") as registry:
        registry.log("agent", la.Prompt("Hi {{ x }}", template_format="jinja2"), aliases="prod")
    return where


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RunningServer]:
    limits = {"body_seconds": 4.0, "body_rate": 1000, "max_json": 2_000_000}
    with running_server(place, rate_address=0, rate_failures=0, **limits) as running:
        yield running


@pytest.fixture
def session(server: RunningServer) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        made.headers.update(server.headers)
        yield made


def _refused(answer: requests.Response, *statuses: int) -> str:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert answer.headers["Content-Type"] == "application/json"
    (error,) = answer.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert "Traceback" not in answer.text
    return str(error["code"])


def _entries(server: RunningServer) -> int:
    answer = requests.get(server.url + "/api/v1/audit/checkpoint", headers=server.headers, timeout=30)
    return int(answer.json()["size"])


def _as_before(server: RunningServer) -> None:
    answer = requests.get(server.url + "/api/v1/me", headers=server.headers, timeout=30)
    assert answer.status_code == 200


# --- every string field of every route


def _examples(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Method, path, query and body of a request of every operation that takes text."""
    schemas = described["components"]["schemas"]
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            query = {p["name"]: _value(p["schema"], schemas) for p in one.get("parameters", ()) if p["in"] == "query"}
            content = one.get("requestBody", {}).get("content", {}).get("application/json")
            yield method.upper(), path, query, _value(content["schema"], schemas) if content else None


def _value(schema: Any, schemas: Any, depth: int = 0) -> Any:
    if depth > 12 or schema is True:
        return {}
    if "$ref" in schema:
        return _value(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _value(next(o for o in schema[choice] if o.get("type") != "null"), schemas, depth + 1)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind == "object":
        return {k: _value(v, schemas, depth + 1) for k, v in schema.get("properties", {}).items()}
    if kind == "array":
        return [_value(schema.get("items", {}), schemas, depth + 1)]
    return {"integer": 1, "number": 1, "boolean": False, "null": None}.get(kind, "agent:prod")


def _leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*place, number))
    elif isinstance(value, str):
        yield place


def _with(value: Any, place: tuple[Any, ...], text: Any) -> Any:
    if not place:
        return text
    if isinstance(value, dict):
        return {k: _with(v, place[1:], text) if k == place[0] else v for k, v in value.items()}
    return [_with(v, place[1:], text) if n == place[0] else v for n, v in enumerate(value)]


def test_no_text_in_any_field_of_any_route_breaks_it(server: RunningServer, place: Path) -> None:
    described = requests.get(server.url + "/api/v1/openapi.json", timeout=30).json()
    files = {p for p in place.parent.rglob("*") if "blobs" not in p.parts}
    calls: list[tuple[str, str, Any, Any]] = []
    for method, path, query, body in _examples(described):
        filled = path
        for part in [p for p in path.split("/") if p.startswith("{")]:
            filled = filled.replace(part, "default" if part == "{project}" else "agent")
        for text in NASTY:
            for part in [p for p in path.split("/") if p.startswith("{")]:
                safe = requests.utils.quote(text, safe="")
                swapped = path.replace(part, safe or "%20").replace("{project}", "default")
                for other in [p for p in swapped.split("/") if p.startswith("{")]:
                    swapped = swapped.replace(other, "agent")
                calls.append((method, swapped, query, body))
            calls += [(method, filled, _with(query, leaf, text), body) for leaf in _leaves(query)]
            calls += [(method, filled, query, _with(body, leaf, text)) for leaf in _leaves(body)]

    def send(number: int) -> list[str]:
        wrong = []
        with requests.Session() as made:
            made.trust_env = False
            made.headers.update(server.headers)
            for method, path, query, body in calls[number::4]:
                answer = made.request(method, server.url + path, params=query, json=body, timeout=60)
                if answer.status_code >= 500 or (answer.status_code >= 400 and "errors" not in answer.json()):
                    wrong.append(
                        f"{method} {path[:80]} {query} {str(body)[:200]} -> {answer.status_code} {answer.text[:200]}"
                    )
                if "root:" in answer.text:
                    wrong.append(f"{method} {path} shows a file of the machine")
        return wrong

    with ThreadPoolExecutor(4) as pool:
        wrong = [one for found in pool.map(send, range(4)) for one in found]
    assert len(calls) > 3000
    assert wrong == [], f"{len(wrong)}: {wrong[:5]}"
    assert {p for p in place.parent.rglob("*") if "blobs" not in p.parts} - files <= {
        place / name for name in ("registry.db-wal", "registry.db-shm", "registry.db-journal")
    }
    assert "failed" not in server.log_text()
    _as_before(server)


# --- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b'{"name": "a", "name": "b"}', b'{"name": NaN}', b'{"name": 1e999}', b"[" * 100_000,
        b'{"a":' * 5_000, b'{"name": "\\ud800"}', b'"\xff\xfe"', b"\xef\xbb\xbf{}", b"[]", b"null", b'{"name": 7}',
        b'{"name": "a", "more": 1}', b'{"name": "' + b"a" * 1_200_000 + b'"}',
    ],
    ids=lambda body: body[:12].decode("ascii", "replace"),
)  # fmt: skip
def test_a_body_that_is_none_is_refused(session: requests.Session, server: RunningServer, body: bytes) -> None:
    before = _entries(server)
    answer = session.post(server.url + "/api/v1/projects", data=body, headers=JSON, timeout=30)
    _refused(answer, 400, 413, 422)
    assert _entries(server) == before


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b"0,"])
@pytest.mark.parametrize("route", ["/storage", "/projects/default/commit", "/manifests"])
def test_a_body_of_very_many_values_takes_no_memory(
    session: requests.Session, server: RunningServer, route: str, unit: bytes
) -> None:
    size = 900_000 if route == "/manifests" else 1_900_000
    field = {"/storage": b"blobs", "/manifests": b"digests"}.get(route, b"drafts")
    before = _memory(server)
    answer = session.post(
        server.url + "/api/v1" + route, data=b'{"%b":[%b0]}' % (field, unit * (size // len(unit))), headers=JSON
    )
    _refused(answer, 400, 413, 422)
    assert _memory(server) - before < 500_000


def _memory(server: RunningServer) -> int:
    """The most that the server had so far, in KiB."""
    told = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0])


def test_a_body_of_another_type_is_refused(session: requests.Session, server: RunningServer) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = session.post(
            server.url + "/api/v1/projects", data=b'{"name": "a"}', headers={"Content-Type": kind}, timeout=30
        )
        _refused(answer, 415)


def test_a_body_is_not_read_before_it_is_known_who_sends_it(server: RunningServer) -> None:
    head = f"POST /api/v1/projects HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as wire:
        wire.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert wire.recv(100).startswith(b"HTTP/1.1 401")


def test_a_length_that_lies_does_not_help(session: requests.Session, server: RunningServer) -> None:
    head = _head(server, "POST", "/api/v1/projects")
    for length in (b"-1", b"1e3", b"99999999999999999999", b"0x10", b"5, 5"):
        status = _raw(server, head + b"Content-Length: " + length + b"\r\n\r\n{}")
        assert status in (400, 413), length
    many = head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 40 + b"0\r\n\r\n"
    assert _raw(server, many) == 413
    both = head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert _raw(server, both) == 400
    _as_before(server)


def _more(wire: socket.socket) -> bytes:
    """What still comes; nothing at the end, also where it ends with a reset, as there were bytes nobody read."""
    try:
        return wire.recv(65536)
    except OSError:
        return b""


def test_a_slow_body_is_given_up(server: RunningServer) -> None:
    before = _entries(server)
    with socket.create_connection(("127.0.0.1", server.port), 30) as wire:
        wire.sendall(_head(server, "POST", "/api/v1/projects") + b"Content-Length: 1000\r\n\r\n")
        answer = b""
        wire.settimeout(0.5)
        until = time.monotonic() + 30
        while not answer and time.monotonic() < until:
            try:
                wire.sendall(b" ")
                answer = wire.recv(4000)
            except TimeoutError:
                continue
        while more := _more(wire):
            answer += more
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"deadline_exceeded" in answer
    assert _entries(server) == before


def test_a_client_that_leaves_in_the_middle_leaves_nothing(server: RunningServer) -> None:
    before = _entries(server)
    for sent in (b"", b'{"name": "half', b'{"name": "whole"}'):
        with socket.create_connection(("127.0.0.1", server.port), 30) as wire:
            wire.sendall(_head(server, "POST", "/api/v1/projects") + b"Content-Length: 500\r\n\r\n" + sent)
            wire.shutdown(socket.SHUT_WR)
    assert _entries(server) == before
    _as_before(server)


# --- heads


def _head(server: RunningServer, method: str, path: str, *more: str) -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {server.token}",
        "Content-Type: application/json", *more,
    )  # fmt: skip
    return "".join(f"{line}\r\n" for line in lines).encode()


def _raw(server: RunningServer, data: bytes) -> int:
    with socket.create_connection(("127.0.0.1", server.port), 30) as wire:
        with suppress(BrokenPipeError, ConnectionResetError):  # it had read enough
            wire.sendall(data)
        try:
            answer = wire.recv(65536)
        except ConnectionResetError:
            return 413  # refused, and the rest of what was sent thrown away
    return int(answer[9:12]) if answer else 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 100,
        b"GET http://elsewhere/ HTTP/1.1\r\nHost: elsewhere\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /api/v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: 1\r\n" * 500 + b"\r\n",
        b"GET /api/v1/info?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /" + b"a" * 500_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 500_000,
    ],
    ids=range(14),
)  # fmt: skip
def test_a_head_that_is_none_is_refused(server: RunningServer, data: bytes) -> None:
    assert _raw(server, data) in (400, 404, 405, 413, 414, 431)
    _as_before(server)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "127.0.0.1@evil", "169.254.169.254"]
)
def test_another_host_name_is_not_answered(session: requests.Session, server: RunningServer, host: str) -> None:
    answer = session.get(server.url + "/api/v1/me", headers={"Host": host}, timeout=30)
    _refused(answer, 400)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-origin"},
    ],
)  # fmt: skip
def test_another_site_changes_nothing(
    session: requests.Session, server: RunningServer, headers: dict[str, str]
) -> None:
    before = _entries(server)
    answer = session.post(server.url + "/api/v1/projects", json={"name": "crossed"}, headers=headers, timeout=30)
    assert _refused(answer, 403) == "not_allowed"
    asked = session.options(
        server.url + "/api/v1/projects", headers={**headers, "Access-Control-Request-Method": "POST"}, timeout=30
    )
    assert not any(name.lower().startswith("access-control") for name in asked.headers)
    assert _entries(server) == before


def test_its_own_site_may(session: requests.Session, server: RunningServer) -> None:
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    answer = session.post(server.url + "/api/v1/projects", json={"name": "own-site"}, headers=headers, timeout=30)
    assert answer.status_code == 201


def test_ten_thousand_ranges_are_no_work(session: requests.Session, server: RunningServer, place: Path) -> None:
    with la.connect(place, actor="ann") as registry:
        digest = registry.log("big", la.Files({"x": b"0123456789" * 20_000})).digest
        found = registry.backend.manifests([digest])[digest].files[0].digest
    url = f"{server.url}/api/v1/blobs/{found}"
    whole = session.get(url, timeout=30)
    assert len(whole.content) == 200_000
    began = len(whole.content)
    many = "bytes=" + ",".join(f"{n}-{n + 9}" for n in range(5000))
    for wanted in (
        many[:30_000].rpartition(",")[0],
        "bytes=0-,0-,0-,0-",
        "bytes=-",
        "bytes=5-2",
        "bytes=999999999-",
        "lines=1-2",
    ):
        answer = session.get(url, headers={"Range": wanted}, timeout=30)
        assert answer.status_code in (200, 206, 400, 416), (wanted[:40], answer.status_code)
        assert len(answer.content) <= began + 2000
    with socket.create_connection(("127.0.0.1", server.port), 30) as wire:
        ranges = "bytes=" + ",".join(["0-"] * 10_000)
        wire.sendall(_head(server, "GET", f"/api/v1/blobs/{found}", f"Range: {ranges}") + b"\r\n")
        assert int(wire.recv(100)[9:12]) in (200, 400, 416, 431)
    _as_before(server)


# --- the same key again


def test_a_key_used_again_for_something_else_is_refused(session: requests.Session, server: RunningServer) -> None:
    key = {"Idempotency-Key": "0123456789abcdef-again"}

    def send(name: str, headers: dict[str, str] = key) -> requests.Response:
        return session.post(server.url + "/api/v1/projects", json={"name": name}, headers=headers, timeout=30)

    first = send("keyed")
    entries = _entries(server)
    assert (first.status_code, send("keyed").content) == (201, first.content)
    assert _refused(send("other"), 409) == "conflict"
    for bad in ("short", "a" * 200, "with spaces in it ....", "../../../../etc/passwd"):
        _refused(send("third", {"Idempotency-Key": bad}), 400)
    assert _entries(server) == entries


def test_the_same_request_many_times_at_once_has_one_effect(server: RunningServer) -> None:
    before = _entries(server)

    def send(_: int) -> tuple[int, bytes]:
        headers = {**server.headers, "Idempotency-Key": "one-effect-0123456789"}
        answer = requests.post(server.url + "/api/v1/projects", json={"name": "once"}, headers=headers, timeout=60)
        return answer.status_code, answer.content

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(24)))
    assert {status for status, _ in answers} == {201}
    assert len(answers) == 1
    assert _entries(server) == before + 1


# --- too much of everything


def test_too_many_wrong_tokens_are_told_to_wait(tmp_path: Path) -> None:
    with running_server(tmp_path / "registry", rate_failures=6, rate_address=1000) as server:
        good = server.headers
        statuses = []
        for number in range(20):
            wrong = server.token[:-6] + "000000" if number % 2 else _other(number)
            answer = requests.get(server.url + "/api/v1/me", headers={"Authorization": f"Bearer {wrong}"}, timeout=30)
            statuses.append(answer.status_code)
        assert set(statuses) == {401, 429}
        assert int(answer.headers.get("Retry-After", "1")) >= 1
        assert requests.get(server.url + "/api/v1/me", headers=good, timeout=30).status_code in (200, 429)


def _other(number: int) -> str:
    from llmartifacts.records.rights import make_token

    return make_token()[1]


def test_an_account_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with running_server(tmp_path / "registry", rate=5) as server, requests.Session() as session:
        answers = [session.get(server.url + "/api/v1/me", headers=server.headers, timeout=30) for _ in range(60)]
        refused = [one for one in answers if one.status_code == 429]
        assert refused
        assert answers[0].status_code == 200
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert json.loads(refused[0].content)["errors"][0]["code"] == "busy"


# --- what it is told of this machine


def test_no_answer_names_a_place_of_this_machine(tmp_path: Path) -> None:
    place = tmp_path / "secret-place"
    with la.init(place, actor="ann") as registry:
        registry.log("agent", la.Prompt("Hi", template_format="jinja2"))
        registry.log("files", la.Files({"small": b"s", "large": bytes(range(256)) * 8192}))
        digests = [file.blob.digest for file in registry.find("files:v1").manifest.files]
    with running_server(place, rate_address=0, rate_failures=0) as server, requests.Session() as session:
        session.trust_env = False
        session.headers.update(server.headers)
        api = server.url + "/api/v1"
        begun = session.post(f"{api}/projects/default/uploads", json={"blobs": ["sha256:" + "0" * 64]}, timeout=30)
        upload = f"{api}/projects/default/uploads/{begun.json()['id']}"
        (place / "blobs").rename(tmp_path / "away")
        (place / "blobs").write_bytes(b"no folder")
        answers = [
            *(session.get(f"{api}/blobs/{digest}{more}", timeout=30) for digest in digests for more in ("", "/recipe")),
            session.post(f"{upload}/missing", json={"pieces": ["0" * 64]}, timeout=30),
            session.post(f"{upload}/finish", json={"pieces": ["0" * 64]}, timeout=30),
            session.post(f"{api}/verify", json={"read_data": True}, timeout=30),
            session.get(f"{api}/stats", timeout=30),
            session.post(f"{api}/gc", json={}, timeout=30),
            session.get(server.url + "/readyz", timeout=30),
            session.get(server.url + "/metrics", timeout=30),
        ]
        assert answers[-5].json()["problems"]
        for answer in answers:
            assert "secret-place" not in answer.text, answer.text[:300]
            assert "Traceback" not in answer.text
