from __future__ import annotations

from pathlib import Path

import pytest

from llmartifacts.cli.arguments import bare_name, existing, expectations, pairs
from llmartifacts.errors import InvalidInput, InvalidReference, NotFound


def test_a_value_may_hold_equals_signs() -> None:
    assert pairs(["a=b=c", "d="], "--tag") == {"a": "b=c", "d": ""}


@pytest.mark.parametrize("wrong", ["a", "=b", ""])
def test_what_is_not_key_and_value_names_its_option(wrong: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        pairs([wrong], "--tag")
    assert caught.value.field == "--tag"
    assert "--tag key=value" in caught.value.hint()


def test_a_key_given_twice_is_refused_and_not_silently_the_last() -> None:
    with pytest.raises(InvalidInput, match="'a' is given twice"):
        pairs(["a=1", "a=2"], "--tag")


def test_expect_none_means_that_the_alias_must_not_exist() -> None:
    assert expectations(["kb=v1", "agent=none"]) == {"kb": "v1", "agent": None}
    assert expectations([]) is None


def test_a_name_with_a_selector_is_refused_with_what_to_do() -> None:
    assert bare_name("acme/kb", field="NAME", next_step="…") == "acme/kb"
    with pytest.raises(InvalidReference) as caught:
        bare_name("kb:prod", field="NAME", next_step="Write kb.")
    assert caught.value.hint() == "Write kb."


def test_a_mistyped_file_offers_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "agent.j2").touch()
    assert existing([tmp_path / "agent.j2"], field="SOURCE") == [tmp_path / "agent.j2"]
    with pytest.raises(NotFound) as caught:
        existing([tmp_path / "agnet.j2"], field="SOURCE")
    assert caught.value.near == (str(tmp_path / "agent.j2"),)
    with pytest.raises(NotFound) as caught:
        existing([tmp_path / "no" / "such" / "folder"], field="SOURCE")
    assert caught.value.near == ()
