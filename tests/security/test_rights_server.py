"""What somebody tries who has a token and not the right: a digest, another door, being quick, asking twice."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.kinds.report import Metric
from llmartifacts.records.backend import PromotionRequest, Target
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.records.rights import Protection, Role, TokenScope, operator
from llmartifacts.server import auth
from llmartifacts.server.app import create_app
from llmartifacts.server.config import Settings
from llmartifacts.server.logs import Log
from llmartifacts.signing import key_files
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.statement import ApprovalStatement
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.team import open_team

sys.path.insert(0, str(Path(__file__).parent))
from asgi import Asked, Reply

API = "/api/v1"
P = f"{API}/projects/acme"
SECRET = "the secret of beta"
ABSENT = digest_of(b"nobody has this")


class Clock:
    """The time of the cache of identities."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class World:
    """A registry with two projects, and two servers over it."""

    def __init__(self, place: Path) -> None:
        self.backend = EmbeddedBackend.create(place, actor="root")
        self.root = EmbeddedAccounts(self.backend.parts, operator("root"))
        for project in ("acme", "beta"):
            self.backend.create_project(project, actor="root")
        with la.connect(place, actor="bob") as there:
            own = there.log("acme/prompt", la.Prompt("one", template_format="jinja2"), aliases=["staging", "prod"])
            there.log("acme/prompt", la.Prompt("two", template_format="jinja2"))
            hidden = there.log("beta/hidden", la.Files({"x": (SECRET * 99).encode()}), aliases="prod")
            self.manifest = there.get("beta/hidden:v1").digest
            self.blob = there.find("beta/hidden:v1").manifest.files[0].digest
            self.own = own.digest
            self.plain = json.loads(there.find("acme/prompt:v1").manifest.to_bytes())
            self.files = json.loads(there.find("beta/hidden:v1").manifest.to_bytes())
            assert hidden.digest == self.manifest
        settings = Settings(registry=str(place), rate=0, rate_address=0, rate_failures=0)
        self.here, self.there = (
            Asked(create_app(settings, self.backend, log=Log("text", io.StringIO()))) for _ in "ab"
        )

    def close(self) -> None:
        self.here.close()
        self.there.close()
        self.backend.close()

    def person(self, name: str, *roles: str, aliases: tuple[str, ...] = ("*",), project: str = "acme") -> str:
        self.root.create_account(name)
        for role in roles:
            self.root.grant(name, role, project=project, aliases=aliases if role == "promoter" else ("*",))
        return self.root.create_token(account=name).text

    def serving(self, alias: str = "prod") -> int | None:
        found = next(c for c in self.backend.collections("acme") if c.name == "prompt")
        return found.aliases.get(alias)

    def draft(self, text: str = "new", **more: Any) -> dict[str, Any]:
        manifest = {**self.plain, "config": {**self.plain["config"], "template": text}}
        return {"drafts": [{"name": "prompt", "manifest": manifest, **more}]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "registry")
    yield made
    made.close()


def refused(reply: Reply) -> bool:
    return reply.status == 403 and reply.error["code"] == "not_allowed"


def alike(one: Reply, other: Reply, *names: tuple[str, str]) -> bool:
    body = one.body
    for mine, theirs in names:
        body = body.replace(mine.encode(), theirs.encode())
    kept = [
        {k: v for k, v in r.headers.items() if k not in ("x-request-id", "date", "content-length")}
        for r in (one, other)
    ]
    return (one.status, body, kept[0]) == (other.status, other.body, kept[1])


# --- knowing a digest grants nothing


@pytest.mark.parametrize("path", ["/blobs/{}", "/blobs/{}/recipe", "/blobs/{}/chunks", "/manifests/{}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bytes_of_an_unseen_project_are_not_there(world: World, path: str, method: str) -> None:
    ann = world.person("ann", "writer")
    for digest in (world.blob, world.manifest):
        hidden = world.here(method, API + path.format(digest), token=ann)
        absent = world.here(method, API + path.format(ABSENT), token=ann)
        assert hidden.status == 404
        assert alike(hidden, absent, (digest, ABSENT))
        assert world.here(method, API + path.format(digest), token=ann, headers={"range": "bytes=0-3"}).status == 404
        known = {"if-none-match": f'"{digest}"'}
        assert world.here(method, API + path.format(digest), token=ann, headers=known).status == 404


def test_sums_of_what_lies_in_an_unseen_project_are_not_there(world: World) -> None:
    ann = world.person("ann", "writer")
    body = {"chunks": ["0" * 64], "row": 64}
    hidden = world.here("POST", f"{API}/blobs/{world.blob}/sums", token=ann, body=body)
    absent = world.here("POST", f"{API}/blobs/{ABSENT}/sums", token=ann, body=body)
    assert hidden.status == 404
    assert alike(hidden, absent, (world.blob, ABSENT))


def test_who_sees_the_project_has_them(world: World) -> None:
    bob = world.person("bo", "reader", project="beta")
    assert SECRET.encode() in world.here("GET", f"{API}/blobs/{world.blob}", token=bob).body
    assert world.here("GET", f"{API}/manifests/{world.manifest}", token=bob).json["kind"] == "files"


def test_many_digests_at_once_tell_of_none(world: World) -> None:
    ann = world.person("ann", "writer")
    body = {"digests": [world.manifest, ABSENT]}
    assert world.manifest.encode() not in world.here("POST", f"{API}/manifests", token=ann, body=body).body
    sizes = [{"digest": d, "size": len(SECRET) * 99} for d in (world.blob, ABSENT)]
    hidden = world.here("POST", f"{API}/storage", token=ann, body={"blobs": sizes[:1]})
    absent = world.here("POST", f"{API}/storage", token=ann, body={"blobs": sizes[1:]})
    assert alike(hidden, absent, (world.blob, ABSENT))
    begun = world.here("POST", f"{P}/uploads", token=ann, body={"blobs": [world.blob, ABSENT]}).json
    assert sorted(begun["absent"]) == sorted([world.blob, ABSENT]), "bytes that are stored for others have to be sent"


def test_a_log_that_names_what_others_store_is_as_one_that_names_nothing(world: World) -> None:
    ann = world.person("ann", "writer")

    def log(digest: str, upload: str | None = None) -> Reply:
        manifest = {**world.files, "files": [{**world.files["files"][0], "digest": digest}]}
        body = {"drafts": [{"name": "mine", "manifest": manifest}], "upload": upload}
        return world.here("POST", f"{P}/commit", token=ann, body=body)

    hidden, absent = log(world.blob), log(ABSENT)
    assert hidden.status >= 400
    assert alike(hidden, absent, (world.blob, ABSENT))
    begun = world.here("POST", f"{P}/uploads", token=ann, body={"blobs": [world.blob]}).json["id"]
    assert log(world.blob, begun).status >= 400
    parents = world.here("POST", f"{P}/uploads/{begun}/finish", token=ann, body={"pieces": [], "parents": [world.blob]})
    nothing = world.here("POST", f"{P}/uploads/{begun}/finish", token=ann, body={"pieces": [], "parents": [ABSENT]})
    assert parents.status == 404
    assert alike(parents, nothing, (world.blob, ABSENT))
    assert world.backend.versions("beta", "hidden")[0].number == 1
    assert [c.name for c in world.backend.collections("acme")] == ["prompt"]


def test_a_bundle_or_an_input_of_an_unseen_project_is_as_one_that_is_not_there(world: World) -> None:
    ann = world.person("ann", "writer")

    def bundle(digest: str) -> Reply:
        part = {"role": "p", "kind": "files", "digest": digest}
        manifest = {**world.plain, "kind": "bundle", "config": {"models": {}}, "files": [], "components": [part]}
        return world.here("POST", f"{P}/commit", token=ann, body={"drafts": [{"name": "set", "manifest": manifest}]})

    assert bundle(world.manifest).status >= 400
    assert alike(bundle(world.manifest), bundle(ABSENT), (world.manifest, ABSENT))

    def using(reference: str) -> Reply:
        body = world.draft(inputs=[{"reference": reference}])
        return world.here("POST", f"{P}/commit", token=ann, body=body)

    assert using("beta/hidden:v1").status == 404
    assert alike(using("beta/hidden:v1"), using("nope/hidden:v1"), ("beta", "nope"))
    assert alike(using(f"beta/hidden@{world.manifest}"), using(f"nope/hidden@{world.manifest}"), ("beta", "nope"))
    assert using(f"hidden@{world.manifest}").status == 404
    assert len(world.backend.versions("acme", "prompt")) == 2


@pytest.mark.parametrize("reference", ["beta/hidden:v1", "beta/hidden:prod"])
def test_no_door_of_ones_own_project_leads_into_another(world: World, reference: str) -> None:
    ann = world.person("ann", "admin")
    target = {"targets": [{"reference": reference, "alias": "prod"}]}
    asked: list[tuple[str, str, dict[str, Any] | None, dict[str, Any] | None]] = [
        ("GET", "read", None, {"ref": [reference]}),
        ("POST", "read", {"references": [reference]}, None),
        ("POST", "bindings", target, None),
        ("POST", "gate", target, None),
        ("POST", "promotions", target, None),
        ("GET", "evidence", None, {"reference": reference}),
        ("GET", "lineage", None, {"reference": reference}),
        ("GET", "signers", None, {"reference": reference}),
        ("GET", "history", None, {"reference": "beta/hidden:prod"}),
        ("POST", "rollback", {"target": "beta/hidden:prod", "reason": "r"}, None),
        ("POST", "rollback", {"target": "beta@r1", "reason": "r"}, None),
        ("POST", "aliases/remove", {"reference": "beta/hidden:prod", "reason": "r"}, None),
        ("POST", "yank", {"reference": reference, "reason": "r"}, None),
        ("POST", "tag", {"reference": reference, "set": {"k": "v"}}, None),
        ("POST", "preview", {"reference": reference, "variables": {}}, None),
        ("POST", "review", {"promotion": "beta@r1", "reason": "r"}, None),
        ("POST", "approvals/withdraw", {"approval": "beta@a1", "reason": "r"}, None),
    ]
    for method, path, body, query in asked:
        reply = world.here(method, f"{P}/{path}", token=ann, body=body, query=query)
        told = [e for item in (reply.json or {}).get("items", ()) for e in item.get("errors", [item.get("error")])]
        assert reply.status in (400, 404, 409) or told, (path, reply.status, reply.body)
        for hint in (SECRET, world.blob, world.manifest, "files"):
            assert hint.encode() not in reply.body, (path, reply.body)
    assert world.backend.versions("beta", "hidden")[0].yanked_at is None
    assert world.backend.collections("beta")[0].aliases == {"prod": 1}


def test_lineage_runs_and_evidence_leave_out_what_lies_in_unseen_projects(world: World) -> None:
    with la.connect(world.backend.location, actor="bob") as there:
        there.log("acme/child", la.Prompt("child", template_format="jinja2"), inputs=["beta/hidden:v1"])
        there.log("beta/grandchild", la.Prompt("gc", template_format="jinja2"), inputs=["acme/child:v1"])
    with la.connect(world.backend.location, actor="bob", project="acme") as there, there.run("job") as run:
        run.use("beta/hidden:v1")
    ann, both = world.person("ann", "admin"), world.person("both", "reader")
    world.root.grant("both", "reader", project="beta")
    job = world.backend.runs("acme")[0].id
    for path, query in (
        ("lineage", {"reference": "child:v1", "direction": "up"}),
        ("lineage", {"reference": "child:v1", "direction": "down"}),
        ("runs", {}),
        (f"runs/{job}", {}),
    ):
        found = world.here("GET", f"{P}/{path}", token=ann, query=query)
        assert found.status == 200, found.body
        assert b"beta" not in found.body
        assert b"beta" in world.here("GET", f"{P}/{path}", token=both, query=query).body
    listed = world.here("GET", f"{API}/projects", token=ann).json
    assert [p["name"] for p in listed["items"]] == ["acme"]


# --- aliases


def test_a_promoter_moves_any_alias_but_prod_by_no_door(world: World) -> None:
    ann = world.person("ann", "promoter", "writer", aliases=("*", "!prod"))

    def post(path: str, body: Any) -> Reply:
        return world.here("POST", f"{P}/{path}", token=ann, body=body)

    to = lambda alias: {"targets": [{"reference": "prompt:v2", "alias": alias}]}  # noqa: E731
    assert post("promotions", to("staging")).status == 200
    both = {"targets": [*to("dev")["targets"], *to("prod")["targets"]]}
    assert refused(post("promotions", to("prod")))
    assert refused(post("promotions", both))
    assert refused(post("commit", world.draft(aliases=["prod"])))
    assert refused(post("commit", world.draft(aliases=["dev", "prod"])))
    assert refused(post("aliases/remove", {"reference": "prompt:prod", "reason": "r"}))
    assert refused(post("rollback", {"target": "prompt:prod", "reason": "r"}))
    assert refused(post("rollback", {"target": "prompt:prod", "to": "prompt:v2", "reason": "r"}))
    assert world.serving() == 1
    assert world.serving("dev") is None
    assert len(world.backend.versions("acme", "prompt")) == 2
    assert post("commit", world.draft(aliases=["dev"])).status == 200


def test_a_rollback_by_id_needs_the_right_to_every_alias_that_it_moves(world: World) -> None:
    with la.connect(world.backend.location, actor="bob", project="acme") as there:
        made = there.promote("prompt:v2", to=["prod", "dev"], reason="both")
    ann = world.person("ann", "promoter", aliases=("*", "!prod"))
    for body in (
        {"target": made.id, "reason": "r"},
        {"target": "prompt:dev", "whole": True, "reason": "r"},
    ):
        before = len(list(world.backend.audit()))
        assert refused(world.here("POST", f"{P}/rollback", token=ann, body=body))
        assert (world.serving(), world.serving("dev")) == (2, 2)
        assert len(list(world.backend.audit())) == before, "nothing of it happened"


def test_a_writer_moves_no_alias_by_logging(world: World) -> None:
    ann = world.person("ann", "writer")
    reply = world.here("POST", f"{P}/commit", token=ann, body=world.draft(aliases=["dev"]))
    assert refused(reply)
    assert world.here("POST", f"{P}/commit", token=ann, body=world.draft()).status == 200


def test_a_protected_alias_is_moved_by_its_role_alone(world: World) -> None:
    ann, ada = world.person("ann", "promoter", "writer"), world.person("ada", "admin")
    body = {"protected": [{"pattern": "prod*", "role": "admin"}]}
    assert refused(world.here("PUT", f"{P}/protected-aliases", token=ann, body=body))
    assert world.here("PUT", f"{P}/protected-aliases", token=ada, body=body).json == body
    move = {"targets": [{"reference": "prompt:v2", "alias": "prod"}]}
    assert "protected" in world.here("POST", f"{P}/promotions", token=ann, body=move).error["message"]
    assert refused(world.here("POST", f"{P}/rollback", token=ann, body={"target": "prompt:prod", "reason": "r"}))
    assert refused(world.here("POST", f"{P}/commit", token=ann, body=world.draft(aliases=["prod-eu"])))
    assert world.serving() == 1
    assert world.here("POST", f"{P}/promotions", token=ada, body=move).status == 200
    narrow = world.root.create_token(account="ada", scope=TokenScope(roles=(Role.PROMOTER, Role.READER))).text
    back = {"targets": [{"reference": "prompt:v1", "alias": "prod"}]}
    assert refused(world.here("POST", f"{P}/promotions", token=narrow, body=back))
    assert world.root.protections("acme") == (Protection("prod*", Role.ADMIN),)


# --- evidence


def test_an_evaluator_logs_reports_and_nothing_else(world: World) -> None:
    eve = world.person("eve", "evaluator")
    assert refused(world.here("POST", f"{P}/commit", token=eve, body=world.draft()))
    with la.connect(world.backend.location, actor="bob") as there:
        report = la.Report("s", {"prompt:v1": world.own}, digest_of(b"q"), [Metric("m", 1.0, 0.9, 1.0, 9)])
        there.log("beta/r", report)
        plain = json.loads(there.find("beta/r:v1").manifest.to_bytes())
    body = {"drafts": [{"name": "r", "manifest": plain, "inputs": [{"reference": "prompt:v1"}]}]}
    wes = world.person("wes", "writer")

    def counts() -> list[bool]:
        query = {"reference": "prompt:v1"}
        found = world.here("GET", f"{P}/evidence", token=eve, query=query).json
        return [one["vouched"] for one in found["reports"]]

    assert world.here("POST", f"{P}/commit", token=wes, body=body).status == 200
    assert counts() == [False]
    assert world.here("POST", f"{P}/commit", token=eve, body=body).status == 200
    assert counts() == [True]
    assert world.here("POST", f"{P}/commit", token=wes, body=body).status == 200
    assert counts() == [True], "logged again by somebody else, it counts as before"


# --- approvals


def test_a_person_is_one_however_many_tokens_they_have_and_never_approves_their_own(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    tokens = {name: world.person(name, "promoter", "writer") for name in ("ann", "pat", "kim")}
    second = {name: world.root.create_token("second", account=name).text for name in tokens}
    with la.connect(world.backend.location, actor="root", project="acme") as there:
        for name in tokens:
            key_files.create(name, name)
            there.trust_key(name)
        gate = {"approvals": {"count": 2}}
        there.set_policy({"name": "p", "aliases": {"prod": {"kinds": {"*": [gate]}}}})
    made = world.here("POST", f"{P}/commit", token=tokens["ann"], body=world.draft())
    assert made.status == 200, made.body
    number = made.json["versions"][0]["number"]
    move = {"targets": [{"reference": f"prompt:v{number}", "alias": "prod"}]}

    def approve(person: str, token: str, reason: str) -> Reply:
        target = Target(Reference.parse(f"prompt:v{number}"), "prod")
        bound = world.backend.bindings("acme", PromotionRequest((target,)))[0]
        said = ApprovalStatement(bound, person, reason, datetime.now(UTC), None)
        envelope = base64.b64encode(seal(said.to_bytes(), key_files.load(person).private)).decode()
        return world.here("POST", f"{P}/approvals", token=token, body={"envelope": envelope})

    def moved() -> int:
        return world.here("POST", f"{P}/promotions", token=tokens["kim"], body=move).status

    assert approve("pat", tokens["pat"], "fine").status == 200
    assert approve("pat", second["pat"], "fine again").status == 200
    assert moved() == 409, "one person with two tokens is one person"
    for token in (tokens["ann"], second["ann"]):
        approve("ann", token, "mine")
    assert moved() == 409, "the author approves nothing of their own, with whatever token"
    assert approve("kim", tokens["ann"], "in kim's name").status == 403, "a key speaks for its person alone"
    assert moved() == 409
    assert approve("kim", second["kim"], "fine").status == 200
    assert moved() == 200


def test_who_may_not_promote_an_alias_approves_nothing_for_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    pat = world.person("pat", "promoter", aliases=("*", "!prod"))
    key_files.create("pat", "pat")
    with la.connect(world.backend.location, actor="root", project="acme") as there:
        there.trust_key("pat")

    def approve(alias: str) -> Reply:
        target = Target(Reference.parse("prompt:v2"), alias)
        bound = world.backend.bindings("acme", PromotionRequest((target,)))[0]
        said = ApprovalStatement(bound, "pat", "r", datetime.now(UTC), None)
        envelope = base64.b64encode(seal(said.to_bytes(), key_files.load("pat").private)).decode()
        return world.here("POST", f"{P}/approvals", token=pat, body={"envelope": envelope})

    assert approve("staging").status == 200
    assert refused(approve("prod"))
    assert world.backend.approvals("acme", "prod") == []


# --- rights that went meanwhile


def test_rights_that_went_while_an_upload_was_under_way_do_not_reach_its_log(world: World) -> None:
    ann = world.person("ann", "writer")
    upload = world.here("POST", f"{P}/uploads", token=ann, body={"blobs": [ABSENT]}).json["id"]
    assert world.here("GET", f"{API}/me", token=ann).status == 200
    world.root.revoke_grant(world.root.grants(subject="ann")[0].id)
    finish = {"pieces": [], "parents": []}
    assert world.here("POST", f"{P}/uploads/{upload}/finish", token=ann, body=finish).status == 404
    assert world.here("POST", f"{P}/commit", token=ann, body={**world.draft(), "upload": upload}).status == 404
    assert len(world.backend.versions("acme", "prompt")) == 2


def test_a_change_reads_anew_who_asks_and_a_look_within_three_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=clock.monotonic))
    assert auth.CACHED <= 3
    ann = world.person("ann", "promoter")
    move = {"targets": [{"reference": "prompt:v2", "alias": "prod"}]}
    for one in (world.here, world.there):
        assert one("GET", f"{P}/revision", token=ann).status == 200
    identifier = ann.split("_")[1]
    assert world.here("POST", f"{API}/tokens/{identifier}/revoke", token=ann).status == 200
    assert world.there("POST", f"{P}/promotions", token=ann, body=move).status == 401
    assert world.here("POST", f"{P}/promotions", token=ann, body=move).status == 401
    clock.now += auth.CACHED
    assert world.there("GET", f"{P}/revision", token=ann).status == 401
    assert world.here("GET", f"{P}/revision", token=ann).status == 401
    assert world.serving() == 1


@pytest.mark.parametrize("gone", ["disabled", "grant", "team"])
def test_a_change_is_refused_at_once_when_its_right_went_on_another_server(world: World, gone: str) -> None:
    ann = world.person("ann")
    world.root.create_account("crew", "team")
    grant = world.root.grant("crew", "writer", project="acme")
    world.root.add_member("crew", "ann")
    assert world.there("GET", f"{P}/revision", token=ann).status == 200
    if gone == "disabled":
        world.root.disable_account("ann")
    elif gone == "grant":
        world.root.revoke_grant(grant.id)
    else:
        world.root.remove_member("crew", "ann")
    reply = world.there("POST", f"{P}/commit", token=ann, body=world.draft())
    assert reply.status == (401 if gone == "disabled" else 404)
    assert len(world.backend.versions("acme", "prompt")) == 2


# --- the same request, sent again

KEY = {"idempotency-key": "0123456789abcdef"}


def test_the_same_request_sent_again_has_one_effect_and_the_same_answer(world: World) -> None:
    ann = world.person("ann", "writer")
    first = world.here("POST", f"{P}/commit", token=ann, body=world.draft(), headers=KEY)
    again = world.there("POST", f"{P}/commit", token=ann, body=world.draft(), headers=KEY)
    assert (first.status, first.body) == (again.status, again.body)
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert [e["verb"] for e in world.backend.audit("acme")].count("log") == 3
    other = world.here("POST", f"{P}/commit", token=ann, body=world.draft("more"), headers=KEY)
    assert other.status == 409
    elsewhere = world.here(
        "POST", f"{P}/tag", token=ann, body={"reference": "prompt:v1", "set": {"a": "b"}}, headers=KEY
    )
    assert elsewhere.status == 409


def test_a_key_is_its_accounts_own(world: World) -> None:
    ann, wes = world.person("ann", "writer"), world.person("wes", "writer")
    run = {"name": "job"}
    one = world.here("POST", f"{P}/runs", token=ann, body=run, headers=KEY)
    other = world.here("POST", f"{P}/runs", token=wes, body=run, headers=KEY)
    assert (one.status, other.status) == (201, 201)
    assert one.json["id"] != other.json["id"]
    assert (one.json["author"], other.json["author"]) == ("ann", "wes")


def test_many_at_once_with_one_key_have_one_effect(world: World) -> None:
    ann = world.person("ann", "writer")

    async def all_at_once() -> list[Reply]:
        asked = [world.here.ask("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY) for _ in range(12)]
        return list(await asyncio.gather(*asked))

    replies = world.here.loop.run_until_complete(all_at_once())
    assert {r.status for r in replies} == {201}
    assert len({r.json["id"] for r in replies}) == 1
    assert len([r for r in replies if "idempotent-replay" not in r.headers]) == 1
    assert len(world.backend.runs("acme")) == 1


def test_a_kept_answer_is_nobodys_whose_rights_went(world: World) -> None:
    ann = world.person("ann", "writer")
    assert world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY).status == 201
    world.root.revoke_grant(world.root.grants(subject="ann")[0].id)
    assert world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY).status == 404
    world.root.disable_account("ann")
    assert world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY).status == 401


def test_what_failed_is_not_kept_and_what_is_old_goes(world: World) -> None:
    ann = world.person("ann", "writer")
    missing = {"reference": "gone:v1", "set": {"a": "b"}}
    assert world.here("POST", f"{P}/tag", token=ann, body=missing, headers=KEY).status == 404
    assert world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY).status == 201
    with world.backend.parts.metadata.writing() as s:
        s.run("update idempotency set at = at - 24 * 3600 * cast(1000000 as bigint)")
    late = world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=KEY)
    assert "idempotent-replay" not in late.headers
    assert len(world.backend.runs("acme")) == 2
    with world.backend.parts.metadata.writing() as s:
        s.run("update idempotency set at = at - 24 * 3600 * cast(1000000 as bigint)")
    world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers={"idempotency-key": "another-0123456789"})
    with world.backend.parts.metadata.reading() as s:
        assert s.rows("select name from idempotency") == [("another-0123456789",)]


@pytest.mark.parametrize("key", ["short", "a" * 129, "with space in it.", "semi;colon;semi;colon", "ümlaut-ümlaut-ü"])
def test_a_malformed_key_is_refused(world: World, key: str) -> None:
    ann = world.person("ann", "writer")
    headers = {"idempotency-key": key.encode().decode("latin-1")}
    reply = world.here("POST", f"{P}/runs", token=ann, body={"name": "job"}, headers=headers)
    assert reply.status == 400
    assert world.backend.runs("acme") == []


def test_a_token_made_twice_is_one_and_its_text_is_kept_by_nobody_else(world: World, tmp_path: Path) -> None:
    ann = world.person("ann", "writer")
    first = world.here("POST", f"{API}/tokens", token=ann, body={"days": 1}, headers=KEY)
    again = world.here("POST", f"{API}/tokens", token=ann, body={"days": 1}, headers=KEY)
    assert first.status == 201
    assert again.json == first.json
    assert again.headers["idempotent-replay"] == "true"
    other = world.here("POST", f"{API}/tokens", token=first.json["text"], body={"days": 1}, headers=KEY)
    assert other.status == 409
    assert b"lla_" not in other.body
    secret = first.json["text"].split("_")[2].encode()
    for file in (tmp_path / "registry").rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()
    assert len(world.root.tokens("ann")) == 2


# --- tokens over HTTP


def test_nobody_makes_more_of_themselves(world: World) -> None:
    ann, ada = world.person("ann", "reader"), world.person("ada", "admin")
    for body in (
        {"account": "ada"},
        {"account": "ann", "scope": {"roles": ["writer"]}},
        {"scope": {"roles": ["admin"]}},
        {"days": 91},
    ):
        assert refused(world.here("POST", f"{API}/tokens", token=ann, body=body)), body
    assert world.here("POST", f"{API}/tokens", token=ann, body={"scope": {"projects": ["beta"]}}).status == 404
    assert refused(world.here("POST", f"{API}/grants", token=ada, body={"subject": "ada", "role": "admin"}))
    beta = world.here("POST", f"{API}/projects/beta/grants", token=ada, body={"subject": "ada", "role": "reader"})
    assert beta.status == 404
    assert refused(world.here("PUT", f"{API}/teams/ann/members/ada", token=ada))
    mine = world.here("GET", f"{API}/tokens", token=ann).json["items"]
    assert [t["account"] for t in mine] == ["ann"]
    assert refused(world.here("GET", f"{API}/tokens", token=ann, query={"account": "ada"}))
    theirs = ada.split("_")[1]
    assert world.here("POST", f"{API}/tokens/{theirs}/revoke", token=ann).status == 404


def test_a_token_is_in_no_log_and_no_error(tmp_path: Path) -> None:
    backend = EmbeddedBackend.create(tmp_path / "registry", actor="root")
    root = EmbeddedAccounts(backend.parts, operator("root"))
    root.create_account("ann")
    token = root.create_token(account="ann").text
    out = io.StringIO()
    settings = Settings(registry=str(tmp_path / "registry"), rate=0, rate_address=0, rate_failures=0)
    ask = Asked(create_app(settings, backend, log=Log("json", out)))
    replies = [
        ask("GET", f"{API}/me", token=token),
        ask("POST", f"{API}/tokens", token=token, body={"days": 1}),
        ask("POST", f"{API}/tokens/{token}/revoke", token=token),
        ask("GET", f"{API}/me", token=token[:-1] + "!"),
        ask("GET", f"{API}/me", query={"token": token}, token=token),
    ]
    ask.close()
    backend.close()
    secret = token.split("_")[2]
    assert out.getvalue()
    assert secret not in out.getvalue()
    assert not any(secret.encode() in reply.body for reply in replies)


def test_an_entry_of_the_audit_is_shown_only_to_who_may_see_what_it_is_about(world: World) -> None:
    ann, ada = world.person("ann", "reader"), world.person("ada")
    world.root.grant("ada", "admin")
    size = len(list(world.backend.audit()))
    for index, entry in enumerate(list(world.backend.audit())):
        query = {"index": index, "size": size}
        seen = world.here("GET", f"{API}/audit/inclusion", token=ann, query=query)
        assert seen.status == (200 if entry["project"] == "acme" else 404), entry
        assert world.here("GET", f"{API}/audit/inclusion", token=ada, query=query).status == 200


def test_wrong_tokens_of_an_address_run_into_a_limit_and_good_ones_known_do_not(tmp_path: Path) -> None:
    from llmartifacts.records.rights import make_token

    backend = EmbeddedBackend.create(tmp_path / "registry", actor="root")
    root = EmbeddedAccounts(backend.parts, operator("root"))
    root.create_account("ann")
    token = root.create_token(account="ann").text
    settings = Settings(registry=str(tmp_path / "registry"), rate=0, rate_address=0, rate_failures=6)
    ask = Asked(create_app(settings, backend, log=Log("text", io.StringIO())))
    assert ask("GET", f"{API}/me", token=token).status == 200
    statuses = [ask("GET", f"{API}/me", token=make_token()[1]).status for _ in range(8)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert "retry-after" in ask("GET", f"{API}/me", token=make_token()[1]).headers
    assert ask("GET", f"{API}/me", token=token).status == 200
    ask.close()
    backend.close()


# --- two servers over one database


def test_two_servers_over_one_database_do_one_request_once_and_know_at_once_who_went(
    postgres_url: str, tmp_path: Path
) -> None:
    backends = [open_team(postgres_url, str(tmp_path / "blobs"), actor="root") for _ in "ab"]
    backends[0].create_project("acme", actor="root")
    root = EmbeddedAccounts(backends[0].parts, operator("root"))
    root.create_account("ann")
    grant = root.grant("ann", "writer", project="acme")
    token = root.create_token(account="ann").text
    settings = Settings(registry="unused", rate=0, rate_address=0, rate_failures=0)
    servers = [Asked(create_app(settings, one, log=Log("text", io.StringIO()))) for one in backends]
    found: list[Reply] = []
    barrier = threading.Barrier(2)

    def ask(server: Asked) -> None:
        for number in range(10):
            barrier.wait()
            key = {"idempotency-key": f"key-{number:016d}"}
            found.append(server("POST", f"{P}/runs", token=token, body={"name": "job"}, headers=key))

    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status for reply in found} == {201}
    assert len({reply.json["id"] for reply in found}) == len(backends[0].runs("acme")) == 10
    assert len([reply for reply in found if "idempotent-replay" in reply.headers]) == 10
    assert servers[1]("GET", f"{P}/revision", token=token).status == 200
    root.revoke_grant(grant.id)
    assert servers[1]("POST", f"{P}/runs", token=token, body={"name": "job"}).status == 404
    root.revoke_token(token.split("_")[1])
    assert servers[1]("POST", f"{P}/runs", token=token, body={"name": "job"}).status == 401
    assert backends[1].verify_audit().ok
    for server in servers:
        server.close()
    for one in backends:
        one.close()
