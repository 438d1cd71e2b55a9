"""Trusted keys: whose they are, how they change, and that each change is on record. On SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmartifacts.errors import Conflict, Damaged, InvalidInput, NotAllowed, NotFound, Refused
from llmartifacts.signing.envelope import seal
from llmartifacts.signing.keys import PrivateKey
from llmartifacts.signing.statement import RotationStatement

AT = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def ada() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture(scope="module")
def new() -> PrivateKey:
    return PrivateKey.generate()


def trust(backend: Any, key: PrivateKey, person: str = "ada", roles: tuple[str, ...] = ("ml-lead",)) -> Any:
    return backend.trust_key(key.public.text, person=person, roles=roles, actor="root")


def handed_over(old: PrivateKey, new: PrivateKey, person: str = "ada", replaces: str = "") -> bytes:
    said = RotationStatement(person, replaces or old.public.id, new.public, AT)
    return seal(said.to_bytes(), old)


def recorded(backend: Any, verb: str) -> list[Any]:
    return [e for e in backend.audit() if e["verb"] == verb]


def test_a_trusted_key_is_listed_with_its_person_and_roles(backend: Any, ada: PrivateKey) -> None:
    made = trust(backend, ada, roles=("safety", "ml-lead"))
    assert (made.id, made.person, made.roles) == (ada.public.id, "ada", ("ml-lead", "safety"))
    assert (made.added_by, made.public, made.revoked_at) == ("root", ada.public.text, None)
    assert backend.trusted_keys() == [made]
    (event,) = recorded(backend, "key-trust")
    assert (event["project"], event["actor"], event["subject"]) == ("", "root", f"key:{ada.public.id}")
    assert (event["body"]["person"], event["body"]["roles"]) == ("ada", ["ml-lead", "safety"])


def test_a_person_may_have_several_keys(backend: Any, ada: PrivateKey, new: PrivateKey) -> None:
    trust(backend, ada)
    trust(backend, new)
    assert [k.person for k in backend.trusted_keys()] == ["ada", "ada"]


def test_one_key_cannot_be_two_persons(backend: Any, ada: PrivateKey) -> None:
    trust(backend, ada)
    with pytest.raises(Conflict, match="is trusted as ada's, and cannot be eve's too"):
        trust(backend, ada, person="eve")
    assert [k.person for k in backend.trusted_keys()] == ["ada"]
    assert len(recorded(backend, "key-trust")) == 1


def test_trusting_it_again_sets_the_roles_and_says_so_once(backend: Any, ada: PrivateKey) -> None:
    trust(backend, ada)
    made = trust(backend, ada, person="Ada", roles=("safety",))
    assert (made.person, made.roles) == ("ada", ("safety",))
    trust(backend, ada, roles=("safety",))
    events = recorded(backend, "key-trust")
    assert [(e["body"]["had"], e["body"]["roles"]) for e in events] == [([], ["ml-lead"]), (["ml-lead"], ["safety"])]


def test_without_roles_they_stay_as_they_are(backend: Any, ada: PrivateKey) -> None:
    assert backend.trust_key(ada.public.text, person="ada", roles=None, actor="root").roles == ()
    trust(backend, ada)
    assert backend.trust_key(ada.public.text, person="ada", roles=None, actor="root").roles == ("ml-lead",)


@pytest.mark.parametrize(("text", "person", "roles"), [("nothing", "ada", ()), (None, "", ()), (None, "ada", ("A B",))])
def test_what_cannot_be_trusted_leaves_nothing_behind(
    backend: Any, ada: PrivateKey, text: str | None, person: str, roles: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput):
        backend.trust_key(text or ada.public.text, person=person, roles=roles, actor="root")
    assert backend.trusted_keys() == []
    assert recorded(backend, "key-trust") == []


def test_a_revoked_key_stays_revoked(backend: Any, ada: PrivateKey) -> None:
    trust(backend, ada)
    made = backend.revoke_key(ada.public.id[:12], reason="lost", actor="root")
    assert (made.revoked_by, made.revoke_reason) == ("root", "lost")
    assert made.revoked_at is not None
    again = backend.revoke_key(ada.public.id, reason="another", actor="eve")
    assert again == made, "the first time counts"
    assert len(recorded(backend, "key-revoke")) == 1
    with pytest.raises(Refused, match="was revoked: lost"):
        trust(backend, ada)


def test_a_key_is_named_by_8_digits_or_more(backend: Any, ada: PrivateKey) -> None:
    trust(backend, ada)
    for text in (ada.public.id[:7], "zz" * 6, "", "%" * 12):
        with pytest.raises(InvalidInput):
            backend.revoke_key(text, reason="x", actor="root")
    with pytest.raises(NotFound):
        backend.revoke_key("0" * 64, reason="x", actor="root")
    assert backend.trusted_keys()[0].revoked_at is None


def test_a_key_hands_over_to_another_of_the_same_person_and_roles(
    backend: Any, ada: PrivateKey, new: PrivateKey
) -> None:
    trust(backend, ada)
    made = backend.rotate_key(handed_over(ada, new), actor="ada")
    assert (made.id, made.person, made.roles, made.replaces) == (new.public.id, "ada", ("ml-lead",), ada.public.id)
    old = next(k for k in backend.trusted_keys() if k.id == ada.public.id)
    assert (old.revoke_reason, old.revoked_by) == ("rotated", "ada")
    assert [e["subject"] for e in recorded(backend, "key-revoke")] == [f"key:{ada.public.id}"]
    (event,) = recorded(backend, "key-rotate")
    assert event["body"]["replaces"] == ada.public.id
    assert event["body"]["envelope"]["signatures"][0]["keyid"] == ada.public.id, "the proof is on record"


def test_handing_over_twice_is_handing_over_once(backend: Any, ada: PrivateKey, new: PrivateKey) -> None:
    trust(backend, ada)
    made = backend.rotate_key(handed_over(ada, new), actor="ada")
    assert backend.rotate_key(handed_over(ada, new), actor="ada") == made
    assert len(recorded(backend, "key-rotate")) == 1


def test_a_revoked_key_hands_over_to_nobody(backend: Any, ada: PrivateKey, new: PrivateKey) -> None:
    trust(backend, ada)
    backend.revoke_key(ada.public.id, reason="stolen", actor="root")
    with pytest.raises(NotAllowed, match="was revoked"):
        backend.rotate_key(handed_over(ada, new), actor="thief")
    assert len(backend.trusted_keys()) == 1


def test_an_unknown_key_hands_over_to_nobody(backend: Any, ada: PrivateKey, new: PrivateKey) -> None:
    with pytest.raises(NotAllowed, match="does not trust"):
        backend.rotate_key(handed_over(ada, new), actor="eve")
    assert backend.trusted_keys() == []


def test_a_key_hands_over_itself_only_and_to_its_own_person(backend: Any, ada: PrivateKey, new: PrivateKey) -> None:
    third = PrivateKey.generate()
    trust(backend, ada)
    trust(backend, third, person="bob", roles=("safety",))
    for envelope in (handed_over(ada, new, replaces=third.public.id), handed_over(ada, new, person="bob")):
        with pytest.raises(Damaged):
            backend.rotate_key(envelope, actor="ada")
    with pytest.raises(Conflict, match="bob"):
        backend.rotate_key(handed_over(ada, third), actor="ada")
    assert all(k.revoked_at is None for k in backend.trusted_keys())


def test_a_new_key_that_was_revoked_meanwhile_takes_no_place_of_another(
    backend: Any, ada: PrivateKey, new: PrivateKey
) -> None:
    trust(backend, ada)
    envelope = handed_over(ada, new)
    backend.rotate_key(envelope, actor="ada")
    backend.revoke_key(new.public.id, reason="lost", actor="root")
    with pytest.raises(NotAllowed, match="was revoked"):
        backend.rotate_key(envelope, actor="ada")
