"""What counts as older, and who may say that it is followed all the same."""

from __future__ import annotations

import pytest

from llmartifacts.errors import Refused
from llmartifacts.records.digest import Digest
from llmartifacts.records.lock import Locked, Lockfile
from llmartifacts.runtime.revisions import Floor, WentBack, follow

ONE, OTHER = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def lock(revision: int, move: int | None = 3, digest: Digest = ONE, reference: str = "kb:prod") -> Lockfile:
    return Lockfile("default", revision, {"kb": Locked(reference, "files", 1, digest, 10, move)})


def followed(made: Lockfile, floor: Floor | None, identity: str = "here") -> str:
    notice = follow(made, floor, lambda: identity)
    return "" if notice is None else notice.code


def test_where_nothing_is_known_everything_is_followed():
    assert followed(lock(0), None) == ""


@pytest.mark.parametrize("newer", [lock(7), lock(8), lock(7, move=4), lock(9, move=4, digest=OTHER)])
def test_what_went_on_is_followed_without_asking_who_it_is(newer: Lockfile):
    def nobody() -> str:
        raise AssertionError("it was asked")

    assert follow(newer, Floor.of(lock(7), "here"), nobody) is None


@pytest.mark.parametrize(
    ("older", "told"),
    [
        (lock(6), "revision 6, and was at 7"),
        (lock(8, move=2), "kb:prod is at its move 2 in the registry, and was at 3"),
        (lock(8, digest=OTHER), "kb:prod is another version in the registry, and has not moved since"),
    ],
)
def test_what_is_older_in_any_respect_is_not(older: Lockfile, told: str):
    with pytest.raises(WentBack, match=told) as caught:
        followed(older, Floor.of(lock(7), "here"))
    assert isinstance(caught.value, Refused)
    assert "LLMARTIFACTS_ACCEPT_REVISION=default@r" in caught.value.hint()


def test_another_reference_and_one_without_moves_are_not_compared():
    floor = Floor.of(lock(7), "here")
    assert followed(lock(7, move=1, reference="kb:staging"), floor) == ""
    assert followed(lock(7, move=None, digest=OTHER, reference="kb:v5"), floor) == ""


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [("here", "elsewhere", "registry-replaced"), ("here", "here", None), ("", "elsewhere", None), ("here", "", None)],
)
def test_another_registry_is_followed_if_both_say_who_they_are(before: str, now: str, code: str | None):
    floor = Floor.of(lock(7), before)
    if code is None:
        with pytest.raises(WentBack):
            followed(lock(6), floor, now)
    else:
        assert followed(lock(6), floor, now) == code


@pytest.mark.parametrize("written", ["default@r", "default@6", "r6", "default@r06", "default@r6 ", "@r6", "x" * 10_000])
def test_a_variable_that_is_not_understood_takes_nothing_and_says_so(written: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMARTIFACTS_ACCEPT_REVISION", written)
    with pytest.raises(WentBack, match="is not PROJECT@rN"):
        followed(lock(6), Floor.of(lock(7), "here"))
