"""Every route, for every role, project and sort of token: who gets in, and what the others are told.

What is expected stands in a table here, and is worked out here: nothing of the package's own rules is asked.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.metadata import accounts as rows
from llmartifacts.records.rights import UNLIMITED, Role, TokenScope, make_token, operator
from llmartifacts.server.app import create_app
from llmartifacts.server.config import Settings
from llmartifacts.server.logs import Log
from llmartifacts.versioning import tokens
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.wire.routes import BASE, ROUTES, Route

sys.path.insert(0, str(Path(__file__).parent))
from asgi import Asked, Reply

OWN, OTHER, ABSENT = "acme", "beta", "nowhere"
ROLES = ["nobody", "reader", "writer", "evaluator", "promoter", "admin", "operator"]
TOKENS = ["good", "read-only", "as-reader", "of-other", "expired", "revoked", "disabled", "mistyped", "unknown", "none"]

READ = {"reader", "writer", "evaluator", "promoter", "admin", "operator"}
LOG = {"writer", "admin", "operator"}
COMMIT = LOG | {"evaluator"}
EVALUATE = {"evaluator", "admin", "operator"}
PROMOTE = {"promoter", "admin", "operator"}
ADMIN = {"admin", "operator"}
OPERATE = {"operator"}
ANYBODY, SIGNED_IN = "anybody", "signed in"

WHO: dict[str, Any] = {
    "info": ANYBODY,
    "exchange": ANYBODY,
    **dict.fromkeys(["me", "tokens", "create_token", "revoke_token", "projects", "manifests", "manifest"], SIGNED_IN),
    **dict.fromkeys(["blob", "recipe", "chunks", "sums", "storage", "trusted_keys"], SIGNED_IN),
    **dict.fromkeys(["audit_checkpoint", "audit_inclusion", "audit_consistency"], SIGNED_IN),
    **dict.fromkeys(["accounts", "create_account", "account", "disable_account", "enable_account"], OPERATE),
    **dict.fromkeys(["add_member", "remove_member", "registry_grants", "grant_everywhere"], OPERATE),
    **dict.fromkeys(["revoke_everywhere", "create_project", "trust_key", "rotate_key", "revoke_key"], OPERATE),
    **dict.fromkeys(["audit", "audit_log", "export_audit", "verify_audit", "verify", "registry_stats"], OPERATE),
    **dict.fromkeys(["gc", "migrate", "remove_project"], OPERATE),
    **dict.fromkeys(["grants", "grant", "revoke_grant", "protections", "protect", "set_policy", "erase"], ADMIN),
    **dict.fromkeys(["read", "read_many", "revision", "promotions", "gate", "evidence", "policies"], READ),
    **dict.fromkeys(["bindings", "approvals", "signers", "collections", "versions", "history", "state"], READ),
    **dict.fromkeys(["lease", "leases"], READ),
    **dict.fromkeys(["lineage", "runs", "run", "project_audit", "stats", "preview"], READ),
    **dict.fromkeys(["begin_upload", "put_piece", "missing_pieces", "finish_upload", "abort_upload"], COMMIT),
    "commit": COMMIT,
    **dict.fromkeys(["promote", "rollback", "remove_alias", "review", "yank", "approve", "withdraw"], PROMOTE),
    "attest": EVALUATE,
    **dict.fromkeys(["tag", "start_run", "use_in_run", "end_run"], LOG),
}
"""Who may: roles in the project, or in every project (`operator`)."""

DIGEST = "sha256:" + "0" * 64
PLAIN = {"id": "9999999999", "name": "nothing", "team": "nobodys", "member": "nobody-else", "digest": DIGEST}
ENVELOPE = base64.b64encode(b"{}").decode()
TARGETS = {"targets": [{"reference": "thing:v1", "alias": "prod"}]}
SENT: dict[str, Any] = {
    "exchange": {"token": "a.b.c"},
    "create_token": {"days": 1},
    "create_account": {"name": "reader"},
    "grant_everywhere": {"subject": "absent", "role": "reader"},
    "grant": {"subject": "absent", "role": "reader"},
    "protect": {"protected": []},
    "create_project": {"name": OWN},
    "read_many": {"references": ["thing:v1"]},
    "manifests": {"digests": [DIGEST]},
    "begin_upload": {"blobs": []},
    "put_piece": b"bytes",
    "missing_pieces": {"pieces": []},
    "finish_upload": {"pieces": []},
    "commit": {
        "drafts": [
            {
                "name": "thing",
                "manifest": {
                    "schema": "llmartifacts/manifest/1",
                    "kind": "report",
                    "config": {},
                    "files": [],
                    "components": [],
                },
            }
        ]
    },
    "sums": {"chunks": ["0" * 64], "row": 64},
    "storage": {"blobs": []},
    "promote": TARGETS,
    "gate": TARGETS,
    "bindings": TARGETS,
    "rollback": {"target": "thing:prod", "reason": "r"},
    "remove_alias": {"reference": "thing:prod", "reason": "r"},
    "review": {"promotion": "acme@r1", "reason": "r"},
    "set_policy": {"policy": None, "message": ""},
    "yank": {"reference": "thing:v1", "reason": "r"},
    "tag": {"reference": "thing:v1", "set": {"k": "v"}},
    "approve": {"envelope": ENVELOPE},
    "attest": {"envelope": ENVELOPE},
    "rotate_key": {"envelope": ENVELOPE},
    "withdraw": {"approval": "acme@a1", "reason": "r"},
    "trust_key": {"public": "ed25519:AAAA", "person": "p"},
    "revoke_key": {"key": "00000000", "reason": "r"},
    "start_run": {"name": "job"},
    "use_in_run": {"reference": "thing:v1"},
    "end_run": {"status": "done"},
    "verify_audit": {},
    "verify": {},
    "gc": {"dry_run": True},
    "migrate": {"dry_run": True},
    "remove_project": {"name": "nothing", "reason": "over"},
    "erase": {"name": "thing", "documents": ["d1"], "reason": "asked", "dry_run": True},
    "lease": {"references": ["thing:v1"], "holder": "web", "length": 60},
    "preview": {"reference": "thing:v1", "variables": {}},
}
QUERIES: dict[str, Any] = {
    "read": {"ref": ["thing:v1"]},
    **{name: {"reference": "thing:v1"} for name in ("evidence", "signers", "lineage")},
    "history": {"reference": "thing:prod"},
    "approvals": {"alias": "prod"},
    "state": {"alias": "prod"},
    "audit_inclusion": {"index": 0, "size": 1},
    "audit_consistency": {"old": 1, "new": 1},
    "stats": {"name": "thing"},
}


@dataclass
class World:
    """A server, and tokens of every sort for every role."""

    ask: Asked
    backend: EmbeddedBackend
    tokens: dict[tuple[str, str], str]

    def call(self, route: Route, role: str, token: str, project: str, **more: Any) -> Reply:
        values = {**PLAIN, "project": project, "sha256": "0" * 64}
        path = BASE + route.path.format(**values)
        return self.ask(
            route.method,
            path,
            token=self.tokens[role, token],
            body=SENT.get(route.name),
            query=QUERIES.get(route.name),
            **more,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("rights") / "registry"
    backend = EmbeddedBackend.create(place, actor="root")
    for project in (OWN, OTHER):
        backend.create_project(project, actor="root")
    root = EmbeddedAccounts(backend.parts, operator("root"))
    made: dict[tuple[str, str], str] = {}
    future = datetime.now(UTC) + timedelta(days=1)
    for role in ROLES:
        name = role
        root.create_account(name)
        root.create_account(f"{name}-gone")
        if role != "nobody":
            for account in (name, f"{name}-gone"):
                root.grant(
                    account, "admin" if role == "operator" else role, project=None if role == "operator" else OWN
                )
        with backend.parts.metadata.writing() as s:

            def issue(account: str, scope: TokenScope = UNLIMITED, end: datetime = future) -> tokens.NewToken:
                owner = rows.find(s, account)
                assert owner is not None
                return tokens.issue(s, owner, label="", scope=scope, end=end, actor="root")

            made[role, "good"] = issue(name).text
            made[role, "read-only"] = issue(name, TokenScope(read_only=True)).text
            made[role, "as-reader"] = issue(name, TokenScope(roles=(Role.READER,))).text
            made[role, "of-other"] = issue(name, TokenScope(projects=(OTHER,))).text
            made[role, "expired"] = issue(name, end=datetime.now(UTC) - timedelta(seconds=1)).text
            revoked = issue(name)
            made[role, "revoked"] = revoked.text
            made[role, "disabled"] = issue(f"{name}-gone").text
        root.revoke_token(revoked.info.id)
        root.disable_account(f"{name}-gone")
        good = made[role, "good"]
        made[role, "mistyped"] = good[:-1] + ("0" if good[-1] != "0" else "1")
        made[role, "unknown"] = make_token()[1]
        made[role, "none"] = ""
    settings = Settings(registry=str(place), rate=0, rate_address=0, rate_failures=0)
    ask = Asked(create_app(settings, backend, log=Log("text", io.StringIO())))
    yield World(ask, backend, made)
    ask.close()
    backend.close()


def expected(name: str, in_project: bool, role: str, token: str, project: str) -> str:
    """`in`, `401`, `403`, `404`; `absent`: who sees every project is told that this is none, or what else is wrong."""
    who = WHO[name]
    if who == ANYBODY:
        return "in"
    if token not in ("good", "read-only", "as-reader", "of-other"):
        return "401"
    if who == SIGNED_IN:
        return "in"
    if not in_project:
        return "in" if role == "operator" and token == "good" else "403"
    seen = {"nobody": set(), "operator": {OWN, OTHER}}.get(role, {OWN})
    if token == "of-other":
        seen = seen & {OTHER}
    if project == ABSENT and role == "operator":  # sees whatever there is
        allowed = token in ("good", "of-other") or who == READ
        return "absent" if allowed else "403"
    if project not in seen:
        return "404"
    if token in ("read-only", "as-reader"):
        return "in" if who == READ else "403"
    return "in" if role in who else "403"


def got(reply: Reply, role: str, project: str) -> str:
    error = reply.error
    detail = error.get("detail", {})
    if reply.status == 404 and detail.get("what") == "project" and detail.get("name") == project:
        return "absent" if project == ABSENT and role == "operator" else "404"
    if reply.status == 403 and error["code"] == "not_allowed" and " may not " in error["message"]:
        return "403"
    if reply.status == 401:
        return "401"
    assert reply.status < 500 or reply.status == 501, (reply.status, reply.body)
    return "absent" if 400 <= reply.status < 500 and project == ABSENT else "in"


def test_the_table_here_names_every_route_and_asks_each_rightly() -> None:
    assert set(WHO) == {route.name for route in ROUTES}
    for route in ROUTES:
        assert (route.name in SENT) == (route.body is not None), route.name


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_lets_in_exactly_those(world: World, route: Route) -> None:
    wrong = []
    for role in ROLES:
        for token in TOKENS:
            for project in (OWN, OTHER, ABSENT) if route.in_project else (OWN,):
                wanted = expected(route.name, route.in_project, role, token, project)
                reply = world.call(route, role, token, project)
                if got(reply, role, project) != wanted:
                    wrong.append((role, token, project, f"wanted {wanted}", reply.status, reply.body[:200]))
    assert wrong == []


@pytest.mark.parametrize("route", [r for r in ROUTES if r.in_project], ids=lambda route: route.name)
def test_a_project_that_one_may_not_see_is_answered_as_one_that_is_not_there(world: World, route: Route) -> None:
    for role, token in (("nobody", "good"), ("writer", "good"), ("admin", "good"), ("operator", "of-other")):
        unseen = OWN if token == "of-other" else OTHER
        there, not_there = world.call(route, role, token, unseen), world.call(route, role, token, "qqqqqq")
        assert there.status == not_there.status == 404

        def told(reply: Reply, name: str) -> Any:
            kept = {k: v for k, v in reply.headers.items() if k not in ("x-request-id", "date", "content-length")}
            return kept, reply.body.replace(name.encode(), b"*")

        assert told(there, unseen) == told(not_there, "qqqqqq")


@pytest.mark.parametrize("token", [t for t in TOKENS if t in ("expired", "revoked", "disabled", "mistyped", "unknown")])
def test_what_is_wrong_with_a_token_is_not_told(world: World, token: str) -> None:
    reply = world.ask("GET", f"{BASE}/me", token=world.tokens["admin", token])
    other = world.ask("GET", f"{BASE}/me", token=world.tokens["reader", "unknown"])
    assert reply.status == 401
    assert reply.body == other.body
    assert reply.headers["www-authenticate"] == 'Bearer realm="llmartifacts", error="invalid_token"'
    assert world.ask("GET", f"{BASE}/me").headers["www-authenticate"] == 'Bearer realm="llmartifacts"'


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic YTpi", "Bearer a b", "bearer\tx", "Token {}", "{}", "Bearer {} x"]
)
def test_a_header_that_is_no_bearer_token_lets_nobody_in(world: World, header: str) -> None:
    given = header.format(world.tokens["operator", "good"])
    assert world.ask("GET", f"{BASE}/me", headers={"authorization": given}).status == 401
