"""Conformance suite for backends of a registry: stories that end the same way, whatever a `Registry` stands on.

A backend's whole test:

    @pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
    def test_my_backend_keeps_the_contract(story, tmp_path: Path) -> None:
        story(lambda person, project: my_registry(tmp_path, person, project))

A story is given a function that opens the registry as a person who may do everything there. Each works in a project of
its own, so one registry is enough for all.
"""

# ruff: noqa: S101 - these are tests, run by pytest

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from llmartifacts.errors import (
    AliasMoved,
    Conflict,
    GateRefused,
    LlmartifactsError,
    NotFound,
    Yanked,
)
from llmartifacts.kinds.bundle import Bundle
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.kinds.report import ItemScore, Metric, Report
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.digest import digest_of
from llmartifacts.records.policy import Verdict
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.registry import Registry, YankedWarning
from llmartifacts.run import Run
from llmartifacts.signing import approving, key_files

Opened = Callable[[str, str], Registry]
"""Opens a registry as a person, with a home project."""
Story = Callable[[Opened], None]
_E = TypeVar("_E", bound=LlmartifactsError)

ANN, BOB = "ann", "bob"
LARGE = 3 * 1024 * 1024
"""Bytes of a file that is cut into chunks."""


# --- the stories


def every_kind_comes_out_as_it_went_in(opened: Opened) -> None:
    """Every kind is logged, found, loaded and pulled; the same content again is the same version."""
    with opened(ANN, "kinds") as registry:
        registry.create_project("kinds")
        prompt = Prompt("Answer {{ question }}", template_format="jinja2", model=ModelSpec("openai", "gpt-4-turbo"))
        first = registry.log("agent", prompt, message="first", tags={"ticket": "T-1"}, aliases=["staging"])
        assert first.created
        assert (first.number, first.author, first.message, first.tags) == (1, ANN, "first", {"ticket": "T-1"})
        again = registry.log("agent", prompt, message="again")
        assert not again.created
        assert (again.number, again.digest, again.message) == (1, first.digest, "first")
        assert registry.resolve("agent:staging", Prompt).format(question="why?") == "Answer why?"

        dataset = EvalDataset([{"id": f"q{i}", "input": f"question {i}", "expected_output": str(i)} for i in range(40)])
        registry.log("questions", dataset)
        assert [i.id for i in registry.resolve("questions:v1", EvalDataset)] == [i.id for i in dataset]

        index = _index()
        registry.log("kb", index, inputs=["questions:latest"])
        loaded = registry.resolve("kb:latest", VectorIndex)
        assert loaded.search(_vectors()[:3], k=1).ids[:, 0].tolist() == ["d0", "d1", "d2"]

        stack = Bundle(
            components={"prompt": "agent:v1", "data": "questions:v1"},
            models={"llm": ModelSpec("openai", "gpt-4-turbo")},
        )
        version = registry.log("stack", stack)
        assert registry.resolve("stack:v1", Bundle).component("prompt", Prompt).format(question="x") == "Answer x"
        assert version.kind == "bundle"

        report = _report(registry.get("agent:v1").digest, registry.get("questions:v1").digest)
        registry.log("scores", report)
        assert registry.resolve("scores:v1", Report).metrics[0].value == 0.75
        kinds = {c.name: (c.kind, c.versions) for c in registry.collections()}
        assert kinds == {
            "agent": ("prompt", 1),
            "kb": ("vector_index", 1),
            "questions": ("eval_dataset", 1),
            "scores": ("report", 1),
            "stack": ("bundle", 1),
        }


def files_of_any_size_travel_and_are_verified(opened: Opened) -> None:
    """Small and large files are logged, changed a little, pulled; how they are stored is told."""
    with opened(ANN, "files") as registry, tempfile.TemporaryDirectory() as place:
        registry.create_project("files")
        folder = Path(place) / "in"
        folder.mkdir()
        content = b"".join(b"line %d of a file that is cut into chunks\n" % i for i in range(LARGE // 42))
        (folder / "large.txt").write_bytes(content)
        (folder / "small.txt").write_bytes(b"small")
        (folder / "empty").write_bytes(b"")
        first = registry.log("data", Files.from_path(folder))
        (folder / "large.txt").write_bytes(content[: LARGE // 2] + b"a new line\n" + content[LARGE // 2 :])
        second = registry.log("data", Files.from_path(folder), inputs=["data:v1"])
        assert (first.number, second.number) == (1, 2)
        assert second.size == first.size + len(b"a new line\n")
        out = Path(place) / "out"
        pulled = registry.pull("data:v1", out)
        assert {p.name for p in pulled} >= {"large.txt", "small.txt", "empty"}
        assert (out / "large.txt").read_bytes() == content
        with registry.resolve("data:v2", Files).open("large.txt") as file:
            assert file.read() == (folder / "large.txt").read_bytes()
        large = next(f for f in registry.find("data:v2").manifest.files if f.path == "large.txt")
        (stored,) = registry.backend.storage([large.blob])
        assert (stored.digest, stored.size) == (large.digest, large.size)
        assert stored.chunks > 1
        stats = registry.stats("data")
        assert [v.number for v in stats.collections[0].by_version] == [1, 2]
        assert stats.collections[0].by_version[1].added < LARGE / 4, "only what changed is stored again"
        _raises(Conflict, lambda: registry.pull("data:v1", out))


def references_are_read_at_one_revision(opened: Opened) -> None:
    """By alias, number, digest; what is missing is said in its place, with near names."""
    with opened(ANN, "reads") as registry:
        registry.create_project("reads")
        made = [registry.log("agent", make_prompt(n)) for n in (1, 2)]
        registry.promote("agent:v1", "prod")
        reading = registry.read(
            ["agent:prod", "agent:v2", "agent", f"agent@{made[0].digest}", "agnet:v1", "agent:v3", "agent:nope"]
        )
        assert (reading.project, reading.revision) == ("reads", 1)
        numbers = [i.version.number if isinstance(i, Found) else type(i) for i in reading.items]
        assert numbers == [1, 2, 2, 1, NotFound, NotFound, NotFound]
        found = reading.items[0]
        assert isinstance(found, Found)
        assert (found.move, found.manifest.digest, found.version.aliases) == (1, made[0].digest, ("prod",))
        missing = reading.items[4]
        assert isinstance(missing, NotFound)
        assert missing.near == ("agent",)
        again = registry.read(["agent:prod"])
        assert again == registry.read(["agent:prod"])
        registry.promote("agent:v2", "prod")
        moved = registry.read(["agent:prod"])
        assert moved.revision == 2
        assert [i.version.number for i in moved.items if isinstance(i, Found)] == [2]
        registry.tag("agent:v2", set={"seen": "yes"})
        assert registry.get("agent:prod").tags == {"seen": "yes"}, "a change of labels shows at once"
        assert registry.backend.revision("reads") == 2
        manifests = registry.backend.manifests([made[0].digest, made[1].digest, digest_of(b"nothing")])
        assert list(manifests) == [made[0].digest, made[1].digest]
        _raises(NotFound, lambda: registry.resolve("reads2/agent:prod"))


def a_large_manifest_is_as_good_as_a_small_one(opened: Opened) -> None:
    """Manifests over 64 KiB are kept and sent in another way, and come out the same."""
    with opened(ANN, "large") as registry:
        registry.create_project("large")
        text = "Answer {{ question }}. " + "Think. " * 20_000
        small = registry.log("agent", make_prompt(1))
        large = registry.log("agent", Prompt(text, template_format="jinja2"))
        assert registry.resolve("agent:v2", Prompt).format(question="x").startswith("Answer x")
        both = registry.backend.manifests([small.digest, large.digest])
        assert [m.digest for m in both.values()] == [small.digest, large.digest]
        stack = registry.log("stack", Bundle(components={"prompt": "agent:v2"}))
        assert registry.lineage(stack.reference, "up").edges[0].role == "prompt"


def many_are_logged_together_or_not_at_all(opened: Opened) -> None:
    """One transaction for all, and every page of a long list."""
    with opened(ANN, "many") as registry:
        registry.create_project("many")
        count = 1_050
        made = registry.log_many([(f"p{i:04}", make_prompt(i)) for i in range(count)], message="at once")
        assert len(made) == count
        names = [c.name for c in registry.collections()]
        assert names == [f"p{i:04}" for i in range(count)]
        assert [c.name for c in registry.backend.collections("many", limit=2, after="p0007")] == ["p0008", "p0009"]
        _raises(
            LlmartifactsError, lambda: registry.log_many([("fresh", make_prompt(1)), ("p0001", Files({"a": b"b"}))])
        )
        _raises(NotFound, lambda: registry.get("fresh"))
        for n in range(5):
            registry.log("p0000", make_prompt(10_000 + n), tags={"parity": "even" if n % 2 == 0 else "odd"})
        assert [v.number for v in registry.versions("p0000")] == [6, 5, 4, 3, 2, 1]
        assert [v.number for v in registry.versions("p0000", limit=2, before=5)] == [4, 3]
        assert [v.number for v in registry.versions("p0000", tags={"parity": "odd"})] == [5, 3]


def aliases_move_together_and_back(opened: Opened) -> None:
    """Promote a set, compare and swap, roll one back, roll all back, remove an alias."""
    with opened(ANN, "moves") as registry:
        registry.create_project("moves")
        for name in ("agent", "judge"):
            for n in (1, 2, 3):
                registry.log(name, make_prompt(f"{name} {n}"))
        first = registry.promote(["agent:v1", "judge:v1"], "prod", reason="go", ticket="CHG-1", expect={"agent": None})
        assert (first.id, first.verb, first.actor, len(first.moves)) == ("moves@r1", "promote", ANN, 2)
        again = registry.promote("agent:v1", "prod")
        assert (again.id, again.moves) == ("", ())
        error = _raises(AliasMoved, lambda: registry.promote("agent:v3", "prod", expect={"agent": "v2"}))
        assert (error.alias, error.expected, error.actual) == ("agent:prod", "v2", "v1")
        second = registry.promote(["agent:v2", "judge:v2"], "prod", expect={"agent": "v1"})
        third = registry.promote(["agent:v3", "judge:v3"], ["prod", "staging"])
        assert len(third.moves) == 4
        one = registry.rollback("agent:prod", reason="worse")
        assert (one.verb, len(one.moves)) == ("rollback", 1)
        assert registry.get("agent:prod").number == 2
        assert registry.get("judge:prod").number == 3
        _raises(Conflict, lambda: registry.rollback(third.id, reason="all of it"))
        registry.rollback("judge:prod", to="v1", reason="far back")
        assert registry.get("judge:prod").number == 1
        history = registry.history("agent:prod")
        assert [(h.verb, h.old, h.new) for h in history] == [
            ("rollback", 3, 2),
            ("promote", 2, 3),
            ("promote", 1, 2),
            ("promote", None, 1),
        ]
        assert [h.move for h in registry.history("agent:prod", limit=2, before=4)] == [3, 2]
        assert history[-1].ticket == "CHG-1"
        registry.promote(["agent:v1", "judge:v2"], "canary")
        whole = registry.rollback("agent:canary", whole=True, reason="both")
        assert {str(m) for m in whole.moves} == {"agent:canary v1 -> nothing", "judge:canary v2 -> nothing"}
        registry.promote("agent:v1", "canary")
        gone = registry.remove_alias("agent:canary", reason="done")
        assert gone.verb == "remove"
        _raises(NotFound, lambda: registry.get("agent:canary"))
        recent = registry.promotions(limit=3)
        assert [p.revision for p in recent] == sorted((p.revision for p in recent), reverse=True)
        assert [p.id for p in registry.promotions(limit=1, before=second.revision)] == [first.id]


def the_past_can_be_asked_for(opened: Opened) -> None:
    """What an alias meant, now and at a time, in all collections and page by page."""
    with opened(ANN, "past") as registry:
        registry.create_project("past")
        for name in ("a", "b", "c"):
            registry.log(name, make_prompt(f"{name} 1"))
            registry.log(name, make_prompt(f"{name} 2"))
        moved = registry.promote(["a:v1", "b:v1", "c:v1"], "prod")
        registry.promote(["a:v2", "b:v2"], "prod")
        now = registry.state("prod")
        assert {name: entry.version.number for name, entry in now.items()} == {"a": 2, "b": 2, "c": 1}
        assert now["a"].move.actor == ANN
        then = registry.state("prod", at=moved.at)
        assert {name: entry.version.number for name, entry in then.items()} == {"a": 1, "b": 1, "c": 1}
        assert (then.revision, then.at) == (moved.revision, moved.at)
        assert list(registry.state("prod", limit=1, after="a")) == ["b"]
        assert {n: e.version.number for n, e in registry.state("latest").items()} == {"a": 2, "b": 2, "c": 2}
        assert dict(registry.state("nothing")) == {}


def gates_refuse_until_people_say_yes(opened: Opened) -> None:
    """A policy holds, a dry run says so, another person approves with a key, and then it moves."""
    with opened(ANN, "gates") as ann, opened(BOB, "gates") as bob, own_keys():
        ann.create_project("gates")
        for n in (1, 2, 3):
            ann.log("agent", make_prompt(n))
        policy = {
            "name": "production",
            "aliases": {"prod": {"kinds": {"*": [{"approvals": {"count": 1}}]}, "break_glass": {"people": [ANN]}}},
        }
        record = ann.set_policy(policy, message="from now on")
        assert (record.number, record.author, record.message) == (1, ANN, "from now on")
        assert ann.policy() == record
        error = _raises(GateRefused, lambda: ann.promote("agent:v2", "prod"))
        assert error.verdict == "INCONCLUSIVE"
        assert error.problems
        decision = ann.gate("agent:v2", "prod")
        assert (decision.verdict, decision.protected, decision.policy) == (
            Verdict.INCONCLUSIVE,
            ("prod",),
            record.digest,
        )
        assert decision.denied[0].next_step
        _raises(GateRefused, lambda: ann.log("agent", make_prompt(4), aliases="prod"))
        assert ann.get("agent").number == 3, "what a gate refuses is not logged either"

        key_files.create("bobs", BOB)
        trusted = ann.trust_key("bobs", person=BOB, roles="ml-lead")
        assert (trusted.person, trusted.roles, trusted.added_by) == (BOB, ("ml-lead",), ANN)
        assert trusted.id in [k.id for k in bob.backend.trusted_keys()]
        (given,) = bob.approve("agent:v2", to="prod", key="bobs", reason="read it")
        assert (given.person, given.sound, given.reason) == (BOB, True, "read it")
        assert given.binding is not None
        assert [s.number for s in given.binding.subjects] == [2]
        assert [a.id for a in ann.approvals("prod")] == [given.id]
        moved = ann.promote("agent:v2", "prod")
        assert moved.approvals == (BOB,)
        assert {r.verdict for r in moved.results} == {Verdict.PASS}

        (other,) = bob.approve("agent:v3", to="prod", key="bobs")
        withdrawn = bob.withdraw(other.id, reason="overlooked something")
        assert withdrawn.id == other.id
        assert not ann.approvals("prod")[0].sound
        _raises(GateRefused, lambda: ann.promote("agent:v3", "prod"))
        broken = ann.promote("agent:v3", "prod", reason="the house burns", break_glass=True)
        assert broken.break_glass
        assert bob.review(broken.id, reason="it did").reviewed_by == BOB
        back = ann.rollback("agent:prod", reason="put out")
        assert back.moves[0].new == 2, "a rollback needs no new evidence"

        revoked = ann.revoke_key(trusted.id, reason="lost")
        assert (revoked.revoked_by, revoked.revoke_reason) == (ANN, "lost")
        ann.remove_policy(message="free again")
        assert ann.policy() is None
        assert [p.number for p in ann.policies()] == [2, 1]
        assert [p.number for p in ann.policies(limit=1)] == [2]


def keys_hand_over(opened: Opened) -> None:
    """A key is rotated by an envelope that the old one signs."""
    with opened(ANN, "keys") as registry, own_keys():
        registry.create_project("keys")
        key_files.create("anns", ANN)
        old = registry.trust_key("anns", person=ANN, roles=["ml-lead", "safety"])
        rotated = approving.rotate(registry.backend, "anns", actor=registry.actor)
        keys = {k.id: k for k in registry.backend.trusted_keys()}
        assert keys[old.id].revoked_at is not None
        new = next(k for k in keys.values() if k.replaces == old.id)
        assert (new.person, new.roles) == (ANN, ("ml-lead", "safety"))
        assert rotated is not None


def evidence_is_recorded_and_signed(opened: Opened) -> None:
    """Reports on a version are found, counted, and say who signed them."""
    with opened(ANN, "evidence") as registry, own_keys():
        registry.create_project("evidence")
        agent = registry.log("agent", make_prompt(1))
        data = registry.log("questions", EvalDataset([{"id": "q1", "input": "a", "expected_output": "b"}]))
        registry.log("scores", _report(agent.digest, data.digest), inputs=["agent:v1", "questions:v1"])
        version, reports = registry.evidence("agent:v1")
        assert version.digest == agent.digest
        (report,) = reports
        assert (report.version.name, report.facts.suite, report.vouched) == ("scores", "suite", True)
        assert report.facts.targets == {"agent:v1": agent.digest}
        measured = report.facts.metrics["accuracy"]
        assert (measured.value, measured.n, measured.comparison) == (0.75, 4, None)
        key_files.create("anns", ANN)
        registry.trust_key("anns", person=ANN, roles="auditor")
        registry.sign_report("scores:v1", key="anns", reason="ran it myself")
        ((person, roles, problem),) = registry.backend.signers("evidence", Reference.parse("scores:v1"))
        assert (person, roles, problem) == (ANN, ("auditor",), "")
        assert registry.evidence("agent:v1")[1][0].signers[0].person == ANN


def everything_hangs_together(opened: Opened) -> None:
    """Lineage, runs, diffs, labels, withdrawn versions."""
    with opened(ANN, "graph") as registry:
        registry.create_project("graph")
        registry.log("docs", Files({"a.txt": b"one"}))
        with registry.run("build", parameters={"chunk": 64}) as run:
            _uses(run)
        (record,) = registry.runs()
        assert (record.name, record.status, record.parameters, record.author) == ("build", "done", {"chunk": 64}, ANN)
        assert [str(r) for r in record.used] == [str(registry.get("docs:v1").pinned)]
        assert [r.name for r in record.produced] == ["agent"]
        assert registry.get_run(record.id) == record
        try:
            with registry.run("fails"):
                raise ValueError("no luck")
        except ValueError:
            pass
        newest = registry.runs(limit=1)[0]
        assert (newest.status, newest.error) == ("failed", "ValueError: no luck")
        assert [r.id for r in registry.runs(before=newest.id)] == [record.id]
        assert registry.get("agent").run == record.id

        registry.log("agent", make_prompt("another text"), inputs=["agent:v1"])
        up = registry.lineage("agent:v2", "up")
        assert {n.split("/")[-1] for n in up.nodes} >= {"agent:v2", "agent:v1", "docs:v1"}
        assert {e.relation for e in up.edges} == {"derived_from", "produced_by"}
        down = registry.lineage("docs:v1", "down")
        assert any(n.endswith("agent:v2") for n in down.nodes)
        diff = registry.diff("agent:v1", "agent:v2")
        assert "another text" in diff.text + str(diff.changes)

        tagged = registry.tag("agent:v1", set={"a": "1", "b": "2"})
        assert tagged.tags == {"a": "1", "b": "2"}
        assert registry.tag("agent:v1", remove=["a"]).tags == {"b": "2"}

        registry.promote("agent:v1", "prod")
        _raises(Conflict, lambda: registry.yank("agent:v1", reason="leaks"))
        registry.promote("agent:v2", "prod")
        yanked = registry.yank("agent:v1", reason="leaks")
        assert yanked.yanked_at is not None
        assert yanked.yank_reason == "leaks"
        _raises(Yanked, lambda: registry.promote("agent:v1", "prod"))
        _raises(Yanked, lambda: registry.resolve("agent:v1"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            registry.resolve(str(yanked.pinned), Prompt)
        assert [w.category for w in told] == [YankedWarning]


def the_audit_is_proved(opened: Opened) -> None:
    """Every change is an entry; checkpoints, proofs and a whole check agree."""
    with opened(ANN, "audits") as registry:
        registry.create_project("audits")
        before = registry.audit_checkpoint()
        registry.log("agent", make_prompt(1))
        registry.promote("agent:v1", "prod")
        after = registry.audit_checkpoint()
        assert (after.origin, after.size) == (before.origin, before.size + 2)
        backend = registry.backend
        assert backend.audit_inclusion(after.size - 1, after.size).holds(after)
        assert backend.audit_consistency(before.size, after.size).holds(before, after)
        checked = registry.verify_audit([("kept", before), ("now", after)])
        assert checked.ok, checked.problems
        assert (checked.size, [f.ok for f in checked.checkpoints]) == (after.size, [True, True])
        entries = registry.audit_log(limit=3)
        assert [e.event.verb for e in entries if e.event] == ["project", "log", "promote"]
        assert [e.number for e in entries] == [after.size - 2, after.size - 1, after.size]
        assert [e.event.verb for e in registry.audit_log(verb="promote", limit=1) if e.event] == ["promote"]
        own = list(backend.audit("audits"))
        assert [e["verb"] for e in own] == ["project", "log", "promote"]
        assert [e["actor"] for e in own] == [ANN] * 3
        assert [e["verb"] for e in backend.audit("audits", limit=1)] == ["project"]
        assert len(list(backend.audit())) == after.size
        exported = list(registry.export_audit())
        assert len(exported) == after.size
        assert b'"verb":"promote"' in exported[-1]


def the_registry_is_kept_in_order(opened: Opened) -> None:
    """It is checked, measured, cleaned."""
    with opened(ANN, "upkeep") as registry:
        registry.create_project("upkeep")
        _raises(Conflict, lambda: registry.create_project("upkeep"))
        assert "upkeep" in [p.name for p in registry.projects()]
        registry.log("data", Files({"a.txt": b"one"}))
        found = registry.verify(read_data=True)
        assert found.ok, found.problems
        assert found.versions >= 1
        stats = registry.stats()
        assert stats.logical > 0
        assert any(c.name.endswith("data") for c in stats.collections)
        freed = registry.gc(dry_run=True)
        assert freed.dry_run
        told: list[tuple[int, int]] = []
        moved = registry.migrate(dry_run=True, progress=lambda done, of: told.append((done, of)))
        assert moved.dry_run
        assert moved.problems == ()
        assert not registry.gc().dry_run
        assert registry.resolve("data:v1", Files).read("a.txt") == b"one"


STORIES: tuple[Story, ...] = (
    every_kind_comes_out_as_it_went_in,
    files_of_any_size_travel_and_are_verified,
    references_are_read_at_one_revision,
    a_large_manifest_is_as_good_as_a_small_one,
    many_are_logged_together_or_not_at_all,
    aliases_move_together_and_back,
    the_past_can_be_asked_for,
    gates_refuse_until_people_say_yes,
    keys_hand_over,
    evidence_is_recorded_and_signed,
    everything_hangs_together,
    the_audit_is_proved,
    the_registry_is_kept_in_order,
)
"""Every story; each raises `AssertionError` where the contract is not kept."""


def check_registry(opened: Opened) -> None:
    """Run every story.

    Args:
        opened: Opens a new, empty registry as a person who may do everything, with a home project.

    Raises:
        AssertionError: The contract is not kept; the message says where.
    """
    for story in STORIES:
        story(opened)


# --- what the stories are made of


def _raises(expected: type[_E], call: Callable[[], Any]) -> _E:
    try:
        call()
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was to be raised, and nothing was")


@contextmanager
def own_keys() -> Iterator[None]:
    """A folder of keys of this story's own."""
    before = os.environ.get("LLMARTIFACTS_KEYS")
    with tempfile.TemporaryDirectory() as place:
        os.environ["LLMARTIFACTS_KEYS"] = place
        try:
            yield
        finally:
            if before is None:
                del os.environ["LLMARTIFACTS_KEYS"]
            else:
                os.environ["LLMARTIFACTS_KEYS"] = before


def make_prompt(what: object) -> Prompt:
    """A prompt that differs from others in what is named."""
    return Prompt(f"Answer {{{{ question }}}} in the way of {what}", template_format="jinja2")


def _uses(run: Run) -> None:
    docs = run.use("docs:v1", Files)
    run.log("agent", make_prompt(docs.read("a.txt").decode()))


def _vectors() -> Any:
    import numpy as np

    made = np.random.default_rng(0).standard_normal((60, 8)).astype("f4")
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def _index() -> VectorIndex:
    documents = [{"id": f"d{i}", "text": f"passage {i}", "metadata": {"page": i}} for i in range(60)]
    return VectorIndex.from_vectors(_vectors(), documents, embedding=EmbeddingSpec("toy", 8, normalized=True))


def _report(target: str, dataset: str) -> Report:
    items = [ItemScore(f"q{i}", {"accuracy": float(i > 0)}) for i in range(4)]
    return Report(
        "suite",
        {"agent:v1": target},
        dataset,
        [Metric("accuracy", 0.75, 0.2, 0.99, 4)],
        items,
        environment={"python": "3"},
    )
