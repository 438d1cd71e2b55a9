"""The file of login providers: what would let too much in is refused, with its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmartifacts import errors
from llmartifacts.server.oidc_config import Providers, Rule, load

sys.path.insert(0, str(Path(__file__).parent))
from login_providers import CONFIG


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"issuer": "http://login.example.com"}, "issuer"),
        ({"issuer": "ftp://x"}, "issuer"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"rules": []}, "rules"),
        ({"rules": [{"account": "a"}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}, "account": "a", "user": "b"}]}, "rules"),
        ({"rules": [{"claims": {"a": ""}, "account": "a"}]}, "rules"),
        ({"rules": [{"claims": {"a": []}, "account": "a"}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}, "account": "a", "life": "13h"}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}, "account": "a", "life": "1s"}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}, "account": "a", "scope": {"roles": ["king"]}}]}, "rules"),
        ({"rules": [{"claims": {"a": "b"}, "account": "../a"}]}, "rules"),
        ({"client_id": ""}, "providers"),
        ({"audience": "other"}, "providers"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_file_that_would_let_too_much_in_is_refused(change: dict[str, Any], place: str, tmp_path: Path) -> None:
    path = tmp_path / "oidc.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    assert len(load(str(path)).providers) == 2
    path.write_text(yaml.safe_dump({"providers": [{**CONFIG["providers"][0], **change}]}))
    with pytest.raises(errors.InvalidValue) as raised:
        load(str(path))
    assert place in raised.value.field
    assert raised.value.origin == str(path)


def test_a_workload_may_not_have_what_is_for_people(tmp_path: Path) -> None:
    ci = CONFIG["providers"][1]
    for rule in (
        {"claims": {"a": "b"}, "user": "sub"},
        {"claims": {"a": "b"}, "account": "ci-agent", "life": "2h"},
    ):
        with pytest.raises(ValueError, match=r"people|1h"):
            Providers.model_validate({"providers": [{**ci, "rules": [rule]}]})
    with pytest.raises(ValueError, match="twice"):
        Providers.model_validate({"providers": [ci, {**ci, "name": "other"}]})


def test_a_pattern_means_itself_but_for_stars_and_question_marks() -> None:
    rule = Rule(claims={"r": "acme/[a-z].+*"}, account="a")
    assert rule.matches({"r": "acme/[a-z].+x"})
    assert not rule.matches({"r": "acme/bb"})
    long = Rule(claims={"r": "*a" * 20 + "b"}, account="a")
    assert not long.matches({"r": "a" * 200})  # and says so while this world stands
