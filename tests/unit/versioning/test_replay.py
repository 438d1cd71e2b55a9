"""The records held against the audit, over each database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.records.backend import Draft, PromotionRequest, Target
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import ApprovalStatement, EvaluationStatement, RotationStatement, config_digest
from llmartifacts.versioning.embedded import EmbeddedBackend


@pytest.fixture
def used(short: Any) -> Any:
    """Something of every change that moves or marks a version."""
    for content in "123":
        short.log("a", content)
    short.log("a", "1", message="again")
    short.promote("a:v1", reason="first", ticket="CHG-1")
    short.promote("a:v2", reason="second")
    short.rollback("a:prod")
    short.backend.remove_alias("default", Reference.parse("a:prod"), reason="gone", actor="ann")
    short.backend.yank("default", Reference.parse("a:v3"), reason="leaks", actor="ann")
    rules = {"kinds": {"*": ["ticket"]}, "break_glass": True}
    short.backend.set_policy("default", {"name": "p", "aliases": {"prod": rules}}, message="tickets", actor="ann")
    target = Target(Reference.parse("a:v2"), "prod")
    short.backend.promote("default", PromotionRequest((target,), "it burns", break_glass=True), actor="bob")
    short.backend.review("default", "default@r5", reason="it did", actor="ann")
    return short


def test_records_that_nobody_altered_say_what_the_audit_says(used: Any) -> None:
    assert used.backend.verify().problems == ()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update version set author = 'eve' where number = 1", "a:v1: the author is not what the audit says"),
        ("update version set yank_reason = 'none' where number = 3", "a:v3: the reason is not what the audit says"),
        (
            "update version set yanked_at = 1 where number = 1",
            "there are 2 withdrawn versions, and the audit tells of 1",
        ),
        ("update promotion set reason = 'x' where revision = 2", "default@r2: the reason is not what the audit says"),
        ("update promotion set undoes = null", "default@r3: the undone promotion is not what the audit says"),
        ("update move set new = 3 where alias = 'prod' and number = 2", "move 2 of a:prod: the goal is not what"),
        ("delete from move where alias = 'prod' and number = 1", "move 1 of a:prod is missing, and the audit tells"),
        ("update audit set entry = '{}' where verb = 'yank'", "cannot be read"),
        ("update project set revision = 9", "the project default is at revision 9, and has not as many promotions"),
        ("update collection set latest = 2", "a:latest is v2, but its last move went to v1"),
        ("update policy set body = '{}'", "policy default@p1: the content is not what the audit says"),
        ("update policy set author = 'eve'", "policy default@p1: the author is not what the audit says"),
        ("delete from policy", "there are 0 policies, and the audit tells of 1"),
        ("update promotion set break_glass = 0", "default@r5: the broken glass is not what the audit says"),
        ("update promotion set policy = null", "default@r5: the policy is not what the audit says"),
        ("update review set reviewer = 'bob'", "review of default@r5: the reviewer is not what the audit says"),
        ("delete from review", "review of default@r5 is missing, and the audit tells of it"),
        ("update move set stacked = 0 where alias = 'prod' and number = 1", "move 1 of a:prod: the place in the stack"),
        ("update move set undone_by = null", "what move 3 of a:prod undid: the rollback is not what the audit says"),
        ("update promotion set approvals = '[\"zoe\"]' where revision = 2", "default@r2: the list of approvers is not"),
        ("update promotion set verb = 'log' where verb = 'remove'", "default@r4: the verb is not what the audit says"),
        ("update promotion set results = '[]' where revision = 5", "default@r5: what the gates said is not what"),
        ("update alias set number = 1 where name = 'prod'", "a:prod points at v1, but its last move went to v2"),
        (
            "update alias set move = 3 where name = 'prod'",
            "a:prod says that its last move was 3, and it has not as many",
        ),
        ("delete from alias", "a:prod is gone, and it moved once"),
        ("delete from alias_holder", "a:prod is missing in the list of those who have the alias"),
        ("update project set collections = 7", "should have 7 collections and has not"),
        (
            "update move set new = 3 where alias = 'latest' and number = (select max(number) from move where"
            " alias = 'latest');update collection set latest = 3",
            "a:latest is not v1, and the audit tells that it was logged last",
        ),
        ("insert into project(name, name_key, created_at) values ('evil', 'evil', 1)", "there are 2 projects, and the"),
        ("update move set undone_by = 1 where alias = 'prod' and number = 1", "move 1 of a:prod does not belong to"),
    ],
)
def test_what_was_altered_by_hand_is_named(used: Any, sql: str, told: str) -> None:
    alter(used, sql)
    seen(used, told)


def alter(short: Any, sql: str) -> None:
    with short.backend._parts.metadata.writing() as s:
        for one in sql.split(";"):
            s.run(one)


def seen(short: Any, told: str) -> None:
    """Both checks find it: that of the registry, and that of the audit."""
    for problems in (short.backend.verify().problems, short.backend.verify_audit().problems):
        assert any(told in str(problem) for problem in problems), problems


# --- keys and statements


AT = datetime(2026, 3, 3, tzinfo=UTC)
ADA, BOB, NEW = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()


@pytest.fixture
def signed(short: Any) -> Any:
    """Something of every change that keys and statements make, and a run with inputs."""
    backend = short.backend
    short.log("a", "1")
    run = backend.start_run("default", "build", parameters={}, actor="ann").id
    backend.use_in_run("default", run, Reference.parse("a:v1"), actor="ann")
    short.log("b", "1", ("a:v1",))
    backend.end_run("default", run, status="done", actor="ann")
    report = Draft("r", Manifest.build("report", {"config": 1}))
    (version,) = backend.commit("default", [report], actor="ann")
    for person, key in (("ada", ADA), ("bob", BOB)):
        backend.trust_key(key.public.text, person=person, roles=("lead",), actor="root")
    backend.trust_key(BOB.public.text, person="bob", roles=("lead", "safety"), actor="root")
    targets = (Target(Reference.parse("a:v1"), "prod"),)
    for reason in ("fine", "better"):
        (bound,) = backend.bindings("default", PromotionRequest(targets))
        said = ApprovalStatement(bound, "ada", reason, AT)
        backend.approve("default", seal(said.to_bytes(), ADA), actor="ada")
    backend.withdraw("default", "default@a2", reason="no", actor="bob")
    subject = type(bound.subjects[0])("r", 1, version.digest)
    vouched = EvaluationStatement("default", subject, config_digest({"config": 1}), "bob", "", AT)
    backend.attest("default", seal(vouched.to_bytes(), BOB), actor="bob")
    turned = RotationStatement("ada", ADA.public.id, NEW.public, AT)
    backend.rotate_key(seal(turned.to_bytes(), ADA), actor="ada")
    backend.revoke_key(NEW.public.id, reason="lost", actor="root")
    return short


def test_keys_and_statements_that_nobody_altered_say_what_the_audit_says(signed: Any) -> None:
    assert signed.backend.verify_audit().problems == ()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("update trusted_key set revoked_at = null, revoked_by = '', revoke_reason = ''", "of ada is not what the"),
        ("update trusted_key set roles = '[\"admin\"]' where person = 'bob'", "of bob is not what the audit tells"),
        ("update trusted_key set person = 'eve' where person = 'bob'", "of eve is not what the audit tells of it"),
        ("update trusted_key set added_by = 'ada' where person = 'bob'", "of bob is not what the audit tells of it"),
        ("update trusted_key set replaces = ''", "of ada is not what the audit tells of it"),
        ("update trusted_key set revoke_reason = 'none' where replaces <> ''", "of ada is not what the audit tells"),
        ("update trusted_key set roles = '7'", "was altered in the database"),
        ("delete from trusted_key where person = 'bob'", "is missing, and the audit tells of it"),
        (
            "insert into trusted_key(id, person, roles, public, added_at, added_by) values ('0', 'e', '[]', '', 1, '')",
            "the trusted key 0 of e is not what the audit tells of it",
        ),
        (
            "update attestation set envelope = (select x.envelope from attestation x where x.id = 2) where id = 1",
            "default@a1: the statement is not what the audit says",
        ),
        ("update attestation set envelope = '{}' where id = 1", "default@a1: the statement is not what the audit says"),
        ("update attestation set recorded_by = 'eve' where id = 1", "default@a1: the recorder is not what the audit"),
        ("update attestation set alias = 'dev' where id = 1", "default@a1: the alias is not what the audit says"),
        ("update attestation set at = 1 where id = 1", "default@a1: the time is not what the audit says"),
        ("update attestation set purpose = 'evaluation' where id = 1", "default@a1 is missing, and the audit tells"),
        ("delete from attestation_subject where attestation_id = 1", "default@a1: what it is filed under is not what"),
        ("update attestation set envelope = '{}' where purpose = 'evaluation'", "the signature of bob under r:v1 is"),
        (
            "delete from attestation_subject where attestation_id = 4;delete from attestation where id = 4",
            "there are 3 signed statements and withdrawals, and the audit tells of 4",
        ),
        (
            "update attestation set envelope = replace(envelope, ':2', ':1') where purpose = 'withdrawal'",
            "the withdrawal of default@a2 is missing, and the audit tells of it",
        ),
        (
            "update attestation set envelope = 'x' where purpose = 'withdrawal'",
            "the withdrawal of default@a2 is missing",
        ),
        ("delete from edge", "b:v1: its input a:v1@sha256:"),
        ("delete from run_version where relation = 'used'", "used a:v1@sha256:"),
        ("update run set author = 'eve'", "the author is not what the audit says"),
        ("update run set status = 'failed'", "the status is not what the audit says"),
    ],
)
def test_what_was_altered_of_keys_statements_and_runs_is_named(signed: Any, sql: str, told: str) -> None:
    alter(signed, sql)
    seen(signed, told)


def test_a_project_that_the_first_log_made_is_told_of_by_that_log(backend: EmbeddedBackend) -> None:
    draft = Draft("a", Manifest.build("unknown-kind", {"content": "1"}))
    backend.commit("made-by-it", [draft], actor="ann")
    assert backend.verify_audit().ok
