"""Wrong calls, and what a registry says to each: two backends keep one contract only if they say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.bundle import Bundle
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.records.backend import Reading
from llmartifacts.records.digest import digest_of
from llmartifacts.records.reference import Reference
from llmartifacts.signing import key_files
from llmartifacts.testing.backends import ANN, Opened, make_prompt, own_keys


def refusals(opened: Opened) -> dict[str, tuple[str, str, dict[str, Any], str]]:
    """What a registry says to calls that cannot be: name of the call -> class, text, fields and hint of the error.

    Two backends keep one contract only if they give the same. What differs by nature is the same for all: nothing
    here names a place.

    Args:
        opened: As for `check_registry`; the project `refusals` must not be there.
    """
    with opened(ANN, "refusals") as registry, own_keys():
        registry.create_project("refusals")
        for n in (1, 2):
            registry.log("agent", make_prompt(n))
        registry.log("data", Files({"a": b"b"}))
        registry.promote("agent:v1", "prod")
        registry.yank("agent:v2", reason="leaks")
        registry.tag("agent:v1", set={f"k{i}": "v" for i in range(256)})
        key_files.create("stranger", "eve")
        backend, ref = registry.backend, Reference.parse
        digest = digest_of(b"nothing")
        calls: dict[str, Callable[[], Any]] = {
            "no such collection": lambda: registry.get("agant:v1"),
            "another case": lambda: registry.get("Agent:v1"),
            "no such version": lambda: registry.get("agent:v9"),
            "no such alias": lambda: registry.get("agent:prd"),
            "no such digest": lambda: registry.get(f"agent@{digest}"),
            "a digest that disagrees": lambda: registry.get(f"agent:v1@{digest}"),
            "no such project": lambda: registry.read(["nowhere/agent:v1"]),
            "another kind": lambda: registry.log("agent", Files({"a": b"c"})),
            "an input that is not there": lambda: registry.log("agent", make_prompt(5), inputs=["data:v7"]),
            "a reserved project": lambda: backend.create_project("refusals", actor=ANN),
            "a project in another case": lambda: backend.create_project("Refusals", actor=ANN),
            "withdrawn": lambda: registry.promote("agent:v2", "prod"),
            "an alias that moved": lambda: registry.promote("agent:v1", "prod", expect={"agent": "v2"}),
            "an alias that was expected": lambda: registry.promote("data:v1", "prod", expect={"data": "v1"}),
            "no version is expected": lambda: registry.promote("data:v1", "prod", expect={"data": "prod"}),
            "two projects": lambda: registry.promote(["agent:v1", "other/x:v1"], "prod"),
            "nothing to undo": lambda: registry.rollback("data:prod", reason="x"),
            "no promotion": lambda: registry.rollback("refusals@r99", reason="x"),
            "a bare alias": lambda: registry.rollback("prod", reason="x"),
            "no goal": lambda: registry.rollback("agent:prod", to="v8", reason="x"),
            "an alias to remove": lambda: registry.remove_alias("agent:canary", reason="x"),
            "yank what serves": lambda: registry.yank("agent:v1", reason="x"),
            "no history": lambda: registry.history("agent:canary"),
            "no lineage": lambda: registry.lineage("nothing:v1"),
            "no run": lambda: registry.get_run("0123456789abcdef"),
            "a run to use": lambda: backend.use_in_run("refusals", "0" * 16, ref("agent:v1"), actor=ANN),
            "no policy": lambda: registry.set_policy(
                {"name": "x", "aliases": {"prod": {"kinds": {"*": ["nonsense"]}}}}
            ),
            "no policy to remove": lambda: registry.remove_policy(message="x"),
            "a key that nobody trusts": lambda: registry.approve("agent:v1", "prod", key="stranger"),
            "no envelope": lambda: backend.approve("refusals", b"{}", actor=ANN),
            "bytes for an envelope": lambda: backend.attest("refusals", b"\xff\x00", actor=ANN),
            "no key": lambda: backend.trust_key("nonsense", person=ANN, roles=None, actor=ANN),
            "no key to revoke": lambda: backend.revoke_key("0" * 64, reason="x", actor=ANN),
            "no approval": lambda: registry.withdraw("refusals@a99", reason="x"),
            "nothing to review": lambda: registry.review("refusals@r1", reason="x"),
            "no report": lambda: backend.signers("refusals", ref("nothing:v1")),
            "a proof beyond the end": lambda: backend.audit_inclusion(10**6, 10**6 + 1),
            "a proof backwards": lambda: backend.audit_consistency(3, 2),
            "statistics of nothing": lambda: registry.stats("nothing"),
            "too many tags": lambda: registry.tag("agent:v1", set={f"j{i}": "v" for i in range(10)}),
            "parts that do not fit": lambda: registry.log("stack", _misfit()),
            "a run with much to say": lambda: registry.run("x", parameters={"a": "b" * 300_000}).__enter__(),
        }
        return {name: _told(call) for name, call in calls.items()}


def _told(call: Callable[[], Any]) -> tuple[str, str, dict[str, Any], str]:
    try:
        found = call()
    except LlmartifactsError as error:
        return _said(error)
    if isinstance(found, Reading):
        return next(_said(item) for item in found.items if isinstance(item, LlmartifactsError))
    return "nothing", "", {}, ""


def _said(error: LlmartifactsError) -> tuple[str, str, dict[str, Any], str]:
    fields = {name: _plain(value) if isinstance(value, str) else value for name, value in error.details().items()}
    return type(error).__name__, _plain(str(error)), fields, _plain(error.hint())


def _plain(text: str) -> str:
    """Without what no two registries have alike: new keys, and how many entries there are."""
    return re.sub(
        r"the audit has [0-9,]+ entr(y|ies)", "the audit has some entries", re.sub(r"ed25519:\S+", "KEY", text)
    )


def _misfit() -> Bundle:
    return Bundle(components={"prompt": "agent:v1", "data": "data:v1"}, models={"prompt": ModelSpec("a", "b")})
