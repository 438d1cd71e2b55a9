"""approve: only what holds now, only by trusted keys; what is stored is believed by nobody. On both databases."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import (
    Conflict,
    Damaged,
    InvalidInput,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    Refused,
    TooLarge,
    WrongKind,
    Yanked,
)
from llmartifacts.metadata import attestations
from llmartifacts.records.approval import Binding, Serving, Subject, mismatches
from llmartifacts.records.backend import Draft, PromotionRequest, Target
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import ApprovalStatement, EvaluationStatement
from llmartifacts.versioning import approve, evidence
from llmartifacts.versioning.embedded import EmbeddedBackend

KEYS = {name: PrivateKey.generate() for name in ("ada", "ada-2", "bob", "eve")}


class Desk:
    """A registry with two collections, and people who may approve."""

    def __init__(self, short: Any) -> None:
        self.short, self.backend = short, short.backend
        for content in "123":
            short.log("a", content)
            short.log("b", content)
        for name, person in (("ada", "ada"), ("ada-2", "ada"), ("bob", "bob")):
            roles = ("ml-lead",) if person == "ada" else ()
            self.backend.trust_key(KEYS[name].public.text, person=person, roles=roles, actor="root")

    def bound(self, *references: str, to: str = "prod") -> Binding:
        targets = tuple(Target(Reference.parse(r), to) for r in references)
        (one,) = self.backend.bindings("default", PromotionRequest(targets))
        return one

    def envelope(self, bound: Binding, key: str = "ada", **more: Any) -> bytes:
        said = ApprovalStatement(bound, key.partition("-")[0], "fine", datetime.now(UTC))
        return seal(replace(said, **more).to_bytes(), KEYS[key])

    def approve(self, *references: str, to: str = "prod", key: str = "ada", **more: Any) -> Any:
        return self.backend.approve("default", self.envelope(self.bound(*references, to=to), key, **more), actor=key)

    def stored(self, *references: str, to: str = "prod") -> list[Any]:
        """As a gate gets them."""
        digests = [s.digest for s in self.bound(*references, to=to).subjects]
        with self.backend._parts.metadata.reading() as s:
            (project_id,) = s.row("select id from project where name = 'default'")
            return approve.approvals(s, project_id, "default", to, digests)

    def holds(self, *references: str, to: str = "prod") -> list[str]:
        """What is wrong with the newest one, held against now."""
        newest = self.stored(*references, to=to)[-1]
        return [newest.problem] if newest.problem else mismatches(newest.binding, self.bound(*references, to=to))

    def alter(self, sql: str, **values: Any) -> None:
        with self.backend._parts.metadata.writing() as s:
            s.run(sql, values)

    def untouched(self) -> bool:
        return not any(e["verb"] == "approve" for e in self.backend.audit()) and not self.backend.approvals(
            "default", "prod"
        )


@pytest.fixture
def desk(short: Any) -> Desk:
    return Desk(short)


# --- what it is for


def test_a_binding_says_what_moves_what_is_served_and_by_which_move(desk: Desk) -> None:
    desk.short.promote("a:v1")
    desk.short.promote("a:v2")
    bound = desk.bound("b:v3", "a:v3")
    assert [str(s) for s in bound.subjects] == ["a:v3", "b:v3"]
    served = desk.short.backend.read("default", [Reference.parse("a:v2")]).items[0].version.digest
    assert bound.serving == {"a": Serving(served, 2), "b": Serving(None, 0)}
    assert (bound.project, bound.alias, bound.policy) == ("default", "prod", None)


def test_each_alias_has_a_binding_of_its_own(desk: Desk) -> None:
    targets = tuple(Target(Reference.parse("a:v1"), alias) for alias in ("prod", "canary"))
    made = desk.backend.bindings("default", PromotionRequest(targets))
    assert [b.alias for b in made] == ["prod", "canary"]


def test_an_approval_is_kept_with_its_person_and_is_on_record(desk: Desk) -> None:
    made = desk.approve("a:v1", "b:v1")
    assert made.id.startswith("default@a")
    assert (made.person, made.roles, made.reason, made.verdict, made.problem) == (
        *("ada", ("ml-lead",), "fine"),
        *(Verdict.PASS, ""),
    )
    assert desk.stored("a:v1") == desk.stored("b:v1") == [made]
    assert desk.stored("a:v2") == []
    assert desk.backend.approvals("default", "prod") == [made]
    assert desk.backend.approvals("default", "staging") == []
    (event,) = [e for e in desk.backend.audit() if e["verb"] == "approve"]
    assert (event["subject"], event["body"]["person"], event["body"]["alias"]) == (made.id, "ada", "prod")
    assert [s.partition("@")[0] for s in event["body"]["subjects"]] == ["a:v1", "b:v1"]


def test_handing_in_the_same_envelope_twice_is_one_approval(desk: Desk) -> None:
    envelope = desk.envelope(desk.bound("a:v1"))
    made = desk.backend.approve("default", envelope, actor="ada")
    spaced = json.dumps(json.loads(envelope), indent=2).encode()
    assert desk.backend.approve("default", spaced, actor="eve") == made
    assert len(desk.stored("a:v1")) == 1


# --- it lapses when a bound field changes, and only then


def test_it_lapses_when_the_alias_moves_and_stays_lapsed_when_it_moves_back(desk: Desk) -> None:
    desk.short.promote("a:v1")
    desk.approve("a:v3")
    assert desk.holds("a:v3") == []
    desk.short.promote("a:v2")
    assert desk.holds("a:v3") == ["prod of a has moved since (move 1, now 2)"]
    desk.short.rollback("a:prod")
    assert desk.short.at("a:prod") == "v1", "it serves again what it served then"
    assert desk.holds("a:v3") == ["prod of a has moved since (move 1, now 3)"]
    assert desk.backend.approvals("default", "prod")[0].problem == "prod of a has moved since (move 1, now 3)"


def test_an_old_envelope_cannot_be_replayed_after_the_alias_moved_away_and_back(desk: Desk) -> None:
    desk.short.promote("a:v1")
    envelope = desk.envelope(desk.bound("a:v3"))
    desk.short.promote("a:v2")
    desk.short.rollback("a:prod")
    with pytest.raises(Conflict, match=r"prod of a has moved since \(move 1, now 3\)"):
        desk.backend.approve("default", envelope, actor="ada")
    assert desk.untouched()


def test_moves_of_other_aliases_and_of_latest_void_nothing(desk: Desk) -> None:
    desk.short.promote("a:v1")
    desk.approve("a:v3")
    desk.short.promote("a:v2", to="staging")
    desk.short.promote("a:v3", to="canary")
    desk.short.promote("b:v1")
    desk.short.log("a", "4")
    desk.short.log("a", "1")
    assert desk.holds("a:v3") == []
    assert desk.backend.approvals("default", "prod")[0].problem == ""


def test_it_is_for_the_whole_set_and_for_nothing_less_or_more(desk: Desk) -> None:
    desk.approve("a:v1", "b:v1")
    assert desk.holds("a:v1", "b:v1") == []
    assert desk.holds("a:v1") == ["the approval covers b:v1 too, which does not move"]
    assert desk.holds("a:v1", "b:v2") == ["b is v2 now, the approval is for v1"]


def test_it_is_for_one_alias(desk: Desk) -> None:
    desk.approve("a:v1", to="staging")
    assert desk.stored("a:v1", to="prod") == []


def test_it_is_for_one_project(desk: Desk) -> None:
    desk.backend.create_project("acme", actor="root")
    desk.backend.commit("acme", [Draft("a", Manifest.build("unknown-kind", {"content": "1"}))], actor="ann")
    with pytest.raises(Refused, match="for the project default, not for acme"):
        desk.backend.approve("acme", desk.envelope(desk.bound("a:v1")), actor="ada")
    assert desk.backend.approvals("acme", "prod") == []


def test_it_lapses_when_a_policy_comes_or_changes(desk: Desk) -> None:
    desk.approve("a:v1")
    bound = desk.bound("a:v1")
    stricter = replace(bound, policy=digest_of(b"stricter"))
    assert mismatches(desk.stored("a:v1")[0].binding, stricter) == ["a policy is in force now, and there was none"]
    with pytest.raises(Conflict, match="no policy is in force any more"):
        desk.backend.approve("default", desk.envelope(stricter), actor="ada")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"subjects": (Subject("a", 1, digest_of(b"other")),)}, ""),
        ({"subjects": (Subject("a", 9, digest_of(b"other")),)}, ""),
        ({"serving": {"a": Serving(None, 7)}}, "prod of a has moved since (move 7, now 0)"),
        ({"serving": {"a": Serving(digest_of(b"x"), 0)}}, "serves something else"),
    ],
)
def test_what_is_not_so_now_cannot_be_approved(desk: Desk, change: dict[str, Any], told: str) -> None:
    wrong = replace(desk.bound("a:v1"), **change)
    with pytest.raises((Conflict, NotFound)) as caught:
        desk.backend.approve("default", desk.envelope(wrong), actor="ada")
    assert told in str(caught.value)
    assert desk.untouched()


def test_a_withdrawn_version_cannot_be_approved(desk: Desk) -> None:
    bound = desk.bound("a:v1")
    desk.backend.yank("default", Reference.parse("a:v1"), reason="leaks", actor="ann")
    with pytest.raises(Yanked):
        desk.backend.approve("default", desk.envelope(bound), actor="ada")


# --- by whom


def test_a_key_that_nobody_trusts_approves_nothing(desk: Desk) -> None:
    with pytest.raises(NotAllowed, match="does not trust the key"):
        desk.approve("a:v1", key="eve")
    assert desk.untouched()


def test_a_forged_signature_is_refused(desk: Desk) -> None:
    body = json.loads(desk.envelope(desk.bound("a:v1"), "eve"))
    body["signatures"][0]["keyid"] = KEYS["ada"].public.id
    with pytest.raises(Damaged, match="forged"):
        desk.backend.approve("default", json.dumps(body).encode(), actor="eve")
    assert desk.untouched()


def test_a_tampered_payload_is_refused(desk: Desk) -> None:
    body = json.loads(desk.envelope(desk.bound("a:v1")))
    payload = base64.b64decode(body["payload"]).replace(b'"fine"', b'"good"')
    body["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(Damaged):
        desk.backend.approve("default", json.dumps(body).encode(), actor="eve")
    assert desk.untouched()


def test_nobody_speaks_for_somebody_else(desk: Desk) -> None:
    with pytest.raises(Damaged, match=r"speaks for 'ada', and the key .* is bob's"):
        desk.approve("a:v1", key="bob", person="ada")
    assert desk.untouched()


def test_a_revoked_key_approves_nothing_more(desk: Desk) -> None:
    desk.backend.revoke_key(KEYS["ada"].public.id, reason="lost", actor="root")
    with pytest.raises(NotAllowed, match="was revoked"):
        desk.approve("a:v1")
    assert desk.untouched()


def test_what_a_key_signed_before_it_was_revoked_is_void_and_says_so(desk: Desk) -> None:
    desk.approve("a:v1")
    desk.approve("a:v1", key="bob")
    desk.backend.revoke_key(KEYS["ada"].public.id, reason="lost", actor="root")
    first, second = desk.stored("a:v1")
    assert (first.verdict, second.verdict) == (Verdict.INCONCLUSIVE, Verdict.PASS)
    assert "of ada was revoked on" in first.problem
    assert first.problem.endswith(": lost")


def test_roles_are_those_that_the_person_has_now(desk: Desk) -> None:
    desk.approve("a:v1")
    desk.backend.trust_key(KEYS["ada"].public.text, person="ada", roles=("safety",), actor="root")
    assert desk.stored("a:v1")[0].roles == ("safety",)


def test_two_keys_of_one_person_are_one_person(desk: Desk) -> None:
    desk.approve("a:v1", key="ada")
    desk.approve("a:v1", key="ada-2")
    assert [(a.person, a.key) for a in desk.stored("a:v1")] == [
        ("ada", KEYS["ada"].public.id),
        ("ada", KEYS["ada-2"].public.id),
    ]


# --- when


def test_an_approval_that_expired_already_is_refused(desk: Desk) -> None:
    with pytest.raises(Refused, match="expired on"):
        desk.approve("a:v1", expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(InvalidInput, match="it was signed at"):
        desk.approve("a:v1", at=datetime.now(UTC) + timedelta(hours=1))
    assert desk.untouched()


def test_the_time_it_expires_comes_back_with_it(desk: Desk) -> None:
    ends = datetime(2100, 1, 1, tzinfo=UTC)
    desk.approve("a:v1", expires=ends)
    assert desk.stored("a:v1")[0].expires == ends


# --- what is stored is not trusted


@pytest.mark.parametrize(
    "alter",
    [
        "update attestation set envelope = 'nonsense'",
        "update attestation set envelope = ''",
        "update attestation set envelope = replace(envelope, 'a', 'b')",
        "update trusted_key set person = 'bob' where person = 'ada'",
        "update trusted_key set public = (select k.public from trusted_key k where k.person = 'bob')",
        "update trusted_key set public = 'ed25519:' || public",
        "update trusted_key set roles = '{}'",
        'update trusted_key set roles = \'["ml-lead", "safety"]\'',
        "update trusted_key set revoked_at = null",
        "delete from trusted_key",
        "delete from audit where verb = 'key-trust'",
        "update audit set entry = 'x' where verb = 'key-trust'",
        "update audit set entry = '{}' where verb = 'key-trust'",
    ],
)
def test_whatever_is_altered_in_the_database_is_tampered(desk: Desk, alter: str) -> None:
    desk.approve("a:v1")
    if "revoked" in alter:
        desk.backend.revoke_key(KEYS["ada"].public.id, reason="lost", actor="root")
    desk.alter(alter)
    (found,) = desk.stored("a:v1")
    assert found.verdict is Verdict.TAMPERED
    assert found.problem
    assert not found.sound


def test_a_stored_envelope_of_a_forger_under_a_trusted_id_is_tampered(desk: Desk) -> None:
    """Whoever can write the database can put a row there; they cannot sign for Ada."""
    made = desk.approve("a:v1", key="bob")
    body = json.loads(desk.envelope(desk.bound("a:v1"), "eve", person="ada"))
    body["signatures"][0]["keyid"] = KEYS["ada"].public.id
    desk.alter("update attestation set envelope = :e", e=json.dumps(body))
    (found,) = desk.stored("a:v1")
    assert (found.id, found.person, found.verdict) == (made.id, "ada", Verdict.TAMPERED)


def test_a_key_that_was_slipped_into_the_database_approves_nothing(desk: Desk) -> None:
    """A row alone is no trust: the audit, which a checkpoint kept elsewhere guards, has to tell of it too."""
    desk.alter(
        "insert into trusted_key(id, person, roles, public, added_at, added_by)"
        " values (:id, 'eve', '[\"ml-lead\"]', :public, 1, 'root')",
        id=KEYS["eve"].public.id,
        public=KEYS["eve"].public.text,
    )
    with pytest.raises(Damaged, match="not what the audit tells"):
        desk.approve("a:v1", key="eve")
    with desk.backend._parts.metadata.reading() as s, pytest.raises(Damaged):
        approve.roles_of(s, "eve")
    assert desk.untouched()


def test_a_binding_is_what_the_gates_hold_approvals_against(desk: Desk) -> None:
    """Two places work it out, one from the request and one from what moves; they must never differ."""
    desk.short.promote("a:v1")
    desk.short.promote("a:v2")
    targets = tuple(Target(Reference.parse(r), alias) for r in ("b:v3", "a:v3") for alias in ("prod", "staging"))
    request, parts = PromotionRequest(targets), desk.backend._parts
    with parts.metadata.writing() as s:
        (project_id,) = s.row("select id from project where name = 'default'")
        steps = evidence.steps(s, parts, project_id, "default", request)
        held_against = evidence.bindings(s, "default", [step.moving for step in steps], None)
        signed = approve.binding(s, parts, "default", request, None)
    assert held_against == {bound.alias: bound for bound in signed}


def test_an_approval_of_one_registry_is_none_in_another_with_the_same_names_contents_moves_and_keys(
    desk: Desk, tmp_path: Path
) -> None:
    bound = desk.bound("a:v1", "b:v1")
    envelope = desk.envelope(bound)
    other = EmbeddedBackend.create(tmp_path / "other", actor="ann")
    twin = Desk(type(desk.short)(other))
    assert replace(twin.bound("a:v1", "b:v1"), registry=bound.registry) == bound
    with pytest.raises(Conflict, match=f"for the registry {bound.registry}, and this is llmartifacts/"):
        other.approve("default", envelope, actor="ada")
    assert twin.untouched()
    other.close()


def test_who_writes_it_into_the_database_by_hand_gains_nothing_by_it(desk: Desk, tmp_path: Path) -> None:
    envelope, other = desk.envelope(desk.bound("a:v1")), EmbeddedBackend.create(tmp_path / "other", actor="ann")
    twin = Desk(type(desk.short)(other))
    twin.approve("a:v1")
    twin.alter("update attestation set envelope = :e", e=envelope.decode())
    (told,) = twin.holds("a:v1")
    assert told.startswith("it is for the registry llmartifacts/")
    other.close()


def test_a_good_statement_filed_elsewhere_still_says_what_it_is_for(desk: Desk) -> None:
    """Rows that lie about alias, subjects or project change nothing: what counts is what was signed."""
    desk.approve("a:v1", to="staging")
    desk.alter("update attestation set alias = 'prod'")
    assert desk.holds("a:v1") == ["it is for staging, not for prod"]
    digest = desk.bound("a:v2").subjects[0].digest
    desk.alter("update attestation_subject set digest = :d", d=bytes.fromhex(digest[7:]))
    assert "it is for staging, not for prod" in desk.holds("a:v2")
    assert "a is v2 now, the approval is for v1" in desk.holds("a:v2")


def test_an_evaluation_filed_as_an_approval_is_tampered(desk: Desk) -> None:
    subject = desk.bound("a:v1").subjects[0]
    said = EvaluationStatement("default", subject, digest_of(b"{}"), "ada", "", datetime.now(UTC))
    desk.approve("a:v1")
    desk.alter("update attestation set envelope = :e", e=seal(said.to_bytes(), KEYS["ada"]).decode())
    assert desk.stored("a:v1")[0].verdict is Verdict.TAMPERED


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"payload":"", "payload":""}'])
def test_what_is_no_envelope_is_refused_and_leaves_nothing(desk: Desk, data: bytes) -> None:
    with pytest.raises(InvalidInput):
        desk.backend.approve("default", data, actor="eve")
    with pytest.raises(TooLarge):
        desk.backend.approve("default", b" " * (1 << 20) + b"x", actor="eve")
    assert desk.untouched()


# --- taking it back


def test_a_withdrawn_approval_stays_on_record_and_never_counts_again(desk: Desk) -> None:
    envelope = desk.envelope(desk.bound("a:v1"))
    made = desk.backend.approve("default", envelope, actor="ada")
    back = desk.backend.withdraw("default", made.id, reason="overlooked a failure", actor="ada")
    assert (back.id, back.problem) == (made.id, "ada withdrew it: overlooked a failure")
    assert desk.holds("a:v1") == ["ada withdrew it: overlooked a failure"]
    with pytest.raises(Conflict, match="ada withdrew it"):
        desk.backend.approve("default", envelope, actor="eve")
    desk.backend.withdraw("default", made.id, reason="again", actor="eve")
    assert [e["subject"] for e in desk.backend.audit() if e["verb"] == "withdraw"] == [made.id]
    fresh = desk.approve("a:v1")
    assert desk.holds("a:v1") == []
    assert fresh.id != made.id


def test_a_tampered_one_can_be_taken_out(desk: Desk) -> None:
    made = desk.approve("a:v1")
    desk.alter("update attestation set envelope = 'nonsense'")
    assert desk.stored("a:v1")[0].verdict is Verdict.TAMPERED
    desk.backend.withdraw("default", made.id, reason="forged", actor="root")
    assert desk.stored("a:v1")[0].verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("text", ["default@a999", "acme@a1", "default@r1", "", "x"])
def test_only_what_is_there_can_be_withdrawn(desk: Desk, text: str) -> None:
    with pytest.raises(LlmartifactsError) as caught:
        desk.backend.withdraw("default", text, reason="x", actor="ada")
    assert isinstance(caught.value, NotFound | InvalidInput)


# --- signed reports


def report(desk: Desk) -> Any:
    made = Manifest.build("report", {"suite": "support", "scores": {"recall": 0.75}})
    return desk.backend.commit("default", [Draft("report", made)], actor="ann")[0], made


def vouched(version: Any, manifest: Manifest, key: str = "ada", **more: Any) -> bytes:
    config = digest_of(canonical_bytes(dict(manifest.config)))
    subject = Subject(version.name, version.number, version.digest)
    said = EvaluationStatement("default", subject, config, key.partition("-")[0], "", datetime.now(UTC))
    return seal(replace(said, **more).to_bytes(), KEYS[key])


def test_who_signed_a_report_is_told_with_their_roles(desk: Desk) -> None:
    version, manifest = report(desk)
    assert desk.backend.signers("default", version.reference) == []
    envelope = vouched(version, manifest)
    for _ in range(2):
        desk.backend.attest("default", envelope, actor="ada")
    desk.backend.attest("default", vouched(version, manifest, "bob"), actor="bob")
    assert desk.backend.signers("default", version.reference) == [("ada", ("ml-lead",), ""), ("bob", (), "")]
    assert [e["body"]["person"] for e in desk.backend.audit() if e["verb"] == "attest"] == ["ada", "bob"]


def test_a_report_is_signed_with_its_config_and_as_a_report(desk: Desk) -> None:
    version, manifest = report(desk)
    with pytest.raises(Conflict, match="config"):
        desk.backend.attest("default", vouched(version, manifest, config=digest_of(b"else")), actor="ada")
    other = desk.short.log("a", "1")
    with pytest.raises(WrongKind):
        desk.backend.attest("default", vouched(other, manifest), actor="ada")
    for key, wrong in (("eve", NotAllowed), ("bob", Damaged)):
        with pytest.raises(wrong):
            desk.backend.attest("default", vouched(version, manifest, key, person="ada"), actor=key)
    assert desk.backend.signers("default", version.reference) == []


def test_a_forged_signature_under_a_report_is_told_as_tampered(desk: Desk) -> None:
    version, manifest = report(desk)
    desk.backend.attest("default", vouched(version, manifest), actor="ada")
    body = json.loads(vouched(version, manifest, "eve", person="ada"))
    body["signatures"][0]["keyid"] = KEYS["ada"].public.id
    desk.alter("update attestation set envelope = :e", e=json.dumps(body))
    ((_, _, problem),) = desk.backend.signers("default", version.reference)
    assert problem.startswith("tampered: ")


def test_a_signature_of_a_revoked_key_does_not_count_under_a_report(desk: Desk) -> None:
    version, manifest = report(desk)
    desk.backend.attest("default", vouched(version, manifest), actor="ada")
    desk.backend.revoke_key(KEYS["ada"].public.id, reason="lost", actor="root")
    ((person, _, problem),) = desk.backend.signers("default", version.reference)
    assert person == "ada"
    assert problem.endswith(": lost")


def test_the_roles_of_a_person_are_those_of_all_their_good_keys(desk: Desk) -> None:
    desk.backend.trust_key(KEYS["ada-2"].public.text, person="ada", roles=("safety",), actor="root")

    def roles(person: str) -> tuple[str, ...]:
        with desk.backend._parts.metadata.reading() as s:
            return approve.roles_of(s, person)

    assert roles("Ada ") == ("ml-lead", "safety")
    desk.backend.revoke_key(KEYS["ada"].public.id, reason="lost", actor="root")
    assert roles("ada") == ("safety",)
    assert roles("nobody") == ()


# --- very many of them


def test_one_that_was_taken_back_stays_so_however_many_are_taken_back_after_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of approvals the newest are looked at; of withdrawals every one, whatever order they came in."""
    monkeypatch.setattr(attestations.concerning, "__defaults__", (3,))
    made = [desk.approve("a:v1", reason=str(n)) for n in range(4)]
    for one in (made[3], *made[:3]):
        desk.backend.withdraw("default", one.id, reason="no", actor="ada")
    assert [a.id for a in desk.stored("a:v1")] == [one.id for one in made[1:]]
    assert all("withdrew it" in a.problem for a in desk.stored("a:v1"))


def test_one_that_was_taken_back_cannot_be_handed_in_again_after_many_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attestations.concerning, "__defaults__", (3,))
    envelope = desk.envelope(desk.bound("a:v1"))
    first = desk.backend.approve("default", envelope, actor="ada")
    desk.backend.withdraw("default", first.id, reason="no", actor="ada")
    for n in range(4):
        desk.approve("a:v1", reason=str(n))
    with pytest.raises(Conflict, match="recorded already"):
        desk.backend.approve("default", envelope, actor="ada")


def test_the_list_tells_of_a_version_that_was_withdrawn_after_it_was_approved(desk: Desk) -> None:
    desk.approve("a:v2")
    desk.backend.yank("default", Reference.parse("a:v2"), reason="leaks", actor="ann")
    (listed,) = desk.backend.approvals("default", "prod")
    assert listed.problem == "a:v2 was withdrawn: leaks"


# --- where who acts had to prove it


def test_nobody_hands_in_the_approval_of_another_where_names_are_proven(desk: Desk) -> None:
    envelope = desk.envelope(desk.bound("a:v1"))
    server = desk.backend.guarded()
    with pytest.raises(NotAllowed, match="is ada's, and bob hands it in") as caught:
        server.approve("default", envelope, actor="bob")
    assert "ada approves it" in caught.value.hint()
    assert desk.untouched()
    assert server.approve("default", envelope, actor="Ada").person == "ada"


def test_on_this_machine_anybody_may_hand_in_what_somebody_signed(desk: Desk) -> None:
    assert desk.backend.approve("default", desk.envelope(desk.bound("a:v1")), actor="ci").person == "ada"


def test_it_holds_again_when_the_very_policy_that_it_was_given_under_does(desk: Desk) -> None:
    rules = {"name": "p", "aliases": {"prod": {"kinds": {"*": ["compatibility"]}}}}
    other = {"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"*": ["compatibility"]}}}}
    for body in (rules, other, rules):
        desk.backend.set_policy("default", body, message="", actor="root")
        if body is rules and not desk.stored("a:v1"):
            desk.approve("a:v1")
        assert bool(desk.holds("a:v1")) is (body is other)
