"""The GitHub Action: its steps are run as a runner runs them, on a real registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

import llmartifacts as la
from llmartifacts.cli.demo.knowledge import CORE, SYSTEM, Passage, read_passages
from llmartifacts.integrations.hashing import HashingEmbeddings

ROOT = Path(__file__).resolve().parent.parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SUITE = str(ROOT / "eval_suites" / "stdlib_retrieval.yaml")
QUESTIONS = ROOT / "eval_suites" / "stdlib_questions.jsonl"
POLICY = """
name: production
aliases:
  prod:
    after: staging
    reason: true
    kinds:
      vector_index:
        - eval: {suite: stdlib-retrieval}
      "*": [compatibility]
"""
EMBEDDINGS = HashingEmbeddings(256)
Run = Callable[..., Any]
pytestmark = pytest.mark.slow


def write_index(folder: Path, passages: list[Passage]) -> None:
    """A folder as `log vector_index` reads it."""
    folder.mkdir()
    np.save(folder / "vectors.npy", EMBEDDINGS.embed_array([p.text for p in passages]))
    lines = (json.dumps({"id": p.id, "text": p.text, "metadata": {"module": p.module}}) for p in passages)
    (folder / "documents.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose `prod` and `staging` serve a first index; a better and a worse one as folders."""
    place = tmp_path_factory.mktemp("prepared")
    wanted = {name for line in QUESTIONS.read_text().splitlines() for name in json.loads(line)["expected_ids"]}
    every = read_passages([*CORE, *SYSTEM])
    passages = [p for i, p in enumerate(every) if p.id.split("#")[0] in wanted or i % 12 == 0]
    answers = [p for p in passages if p.id in wanted]
    write_index(place / "better", passages)
    write_index(place / "worse", [p for p in passages if p not in answers[::3]])
    write_index(place / "first", [p for p in passages if p not in answers[::8]])
    (place / "policy.yaml").write_text(POLICY)
    shutil.copy(QUESTIONS, place)
    with la.init(place / "registry", actor="founder") as registry:
        value = la.VectorIndex.from_vectors(
            np.load(place / "first" / "vectors.npy"),
            [json.loads(line) for line in (place / "first" / "documents.jsonl").read_text().splitlines()],
            embedding=la.EmbeddingSpec("llmartifacts/hashing-1", 256, normalized=True),
        )
        registry.log("python-kb", value, aliases=["staging", "prod"])
        registry.set_policy(place / "policy.yaml")
    return place


@pytest.fixture
def run(prepared: Path, tmp_path: Path, github: Any) -> Run:
    """Runs the action in a directory of its own, with inputs that make sense unless others are given."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    counted = iter(range(100))

    def one(*, before: dict[str, Callable[[], object]] | None = None, **given: str) -> Any:
        temp = tmp_path / f"runner-{next(counted)}"
        temp.mkdir()
        inputs = {
            "kind": "vector_index",
            "name": "python-kb",
            "source": "better",
            "options": "model=llmartifacts/hashing-1\nnormalized=true\n",
            "dataset": "stdlib-questions",
            "dataset-source": QUESTIONS.name,
            "suite": SUITE,
            "stage": "staging",
            "registry": "registry",
            "install": "false",
            "promote": "true",
            **{name.replace("_", "-"): value for name, value in given.items()},
        }
        return github.run_action(ACTION, inputs, folder=folder, path=ROOT, temp=temp, before=before)

    return one


def prod(tmp_path: Path) -> int:
    with la.connect(tmp_path / "work" / "registry") as registry:
        return registry.find("python-kb:prod").version.number


def results(tmp_path: Path) -> Path:
    return tmp_path / "work" / "llmartifacts-results"


# --- what it does


def test_a_better_candidate_is_logged_evaluated_and_promoted(run: Run, tmp_path: Path) -> None:
    job = run(policy="policy.yaml", ticket="CHG-7", message="all of the documentation")

    assert job.code == 0, job.log
    assert job.outputs == {
        "version": "python-kb:v2",
        "verdict": "PASS",
        "report": "stdlib-retrieval-report:v1",
        "promoted": "true",
        "results": "llmartifacts-results",
    }
    assert job.ran == [s["name"] for s in STEPS if s["name"] not in ("Set up Python", "Install")]
    with la.connect(tmp_path / "work" / "registry") as registry:
        served = registry.find("python-kb:prod").version
        move = registry.history("python-kb:prod")[0]
        (report,) = registry.evidence("python-kb:v2")[1]
    assert (served.number, served.message, served.author) == (2, "all of the documentation", "octo")
    assert (move.actor, move.ticket) == ("octo", "CHG-7")
    assert move.reason == "the suite passed: stdlib-retrieval-report:v1"
    assert report.facts.suite == "stdlib-retrieval"
    assert job.summary.startswith("## PASS: `python-kb:v2` was promoted\n")
    assert "| recall@5 |" in job.summary


def test_a_worse_candidate_is_refused_prod_does_not_move_and_the_summary_says_why(run: Run, tmp_path: Path) -> None:
    job = run(source="worse")

    assert job.code == 1, job.log
    assert (job.outputs["verdict"], job.outputs["promoted"]) == ("FAIL", "false")
    assert "Promote" not in job.ran
    assert prod(tmp_path) == 1
    assert job.summary.startswith("## FAIL: `python-kb:v2` was not promoted\n")
    assert "proven worse than the baseline" in job.summary
    assert "eval:stdlib-retrieval" in job.summary
    with la.connect(tmp_path / "work" / "registry") as registry:
        assert registry.find("python-kb:staging").version.number == 1


@pytest.mark.matrix
def test_every_result_is_a_file_for_other_actions_to_read(run: Run, tmp_path: Path) -> None:
    run(source="worse")

    for name, failing in (("evaluation.xml", 2), ("gate.xml", 1)):
        (suite,) = ElementTree.parse(results(tmp_path) / name).getroot()
        assert len(suite.findall("testcase/failure")) == failing
    assert (results(tmp_path) / "summary.md").read_text().startswith("## FAIL")
    assert json.loads((results(tmp_path) / "evaluation.json").read_text())["verdict"] == "FAIL"


def test_a_pull_request_asks_the_gates_and_moves_nothing(run: Run, tmp_path: Path) -> None:
    job = run(promote="false", gate="report")

    assert job.code == 0, job.log
    assert "Move the stage" not in job.ran
    assert "Promote" not in job.ran
    assert (job.outputs["verdict"], job.outputs["promoted"]) == ("PASS", "false")
    assert "INCONCLUSIVE" in job.summary  # it was in staging never, says the gate; only told here
    assert prod(tmp_path) == 1

    job = run(promote="false", gate="require")
    assert (job.code, job.outputs["verdict"]) == (7, "INCONCLUSIVE")


@pytest.mark.matrix
def test_the_same_candidate_once_more_is_no_mistake(run: Run, tmp_path: Path) -> None:
    assert run().code == 0
    job = run()

    assert job.code == 0, job.log
    assert job.outputs["version"] == "python-kb:v2"
    assert prod(tmp_path) == 2


@pytest.mark.matrix
def test_what_somebody_else_moves_in_between_is_not_promoted_over(run: Run, tmp_path: Path) -> None:
    def somebody() -> None:
        with la.connect(tmp_path / "work" / "registry") as registry:
            registry.remove_policy(message="an emergency")
            registry.log(
                "python-kb", registry.resolve("python-kb:v1").updated(remove=["shutil.copytree"]), aliases="prod"
            )
            registry.set_policy(tmp_path / "work" / "policy.yaml")

    job = run(before={"Promote": somebody})

    assert (job.code, job.outputs["verdict"], job.outputs["promoted"]) == (7, "INCONCLUSIVE", "false"), job.log
    assert prod(tmp_path) == 3
    assert job.summary.startswith("## INCONCLUSIVE: `python-kb:v2` was not promoted\n")
    assert "A gate refused the move when it was tried" in job.summary


@pytest.mark.matrix
def test_a_stage_that_wants_more_than_a_suite_stops_everything_behind_it(run: Run, tmp_path: Path) -> None:
    strict = POLICY.replace("aliases:\n", "aliases:\n  staging: {kinds: {vector_index: [{approvals: {count: 1}}]}}\n")
    (tmp_path / "work" / "strict.yaml").write_text(strict)
    with la.connect(tmp_path / "work" / "registry") as registry:
        registry.set_policy(tmp_path / "work" / "strict.yaml")

    job = run(policy="strict.yaml")

    assert (job.code, job.outputs["verdict"]) == (7, "INCONCLUSIVE"), job.log
    assert "Ask the gates" not in job.ran
    assert prod(tmp_path) == 1


@pytest.mark.matrix
def test_a_suite_that_asks_for_more_items_than_there_are_is_inconclusive(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work" / "strict.yaml").write_text(
        Path(SUITE).read_text().replace("min_samples: 60", "min_samples: 900")
    )
    job = run(suite="strict.yaml")

    assert (job.code, job.outputs["verdict"]) == (7, "INCONCLUSIVE"), job.log
    assert "Add 743 items" in job.summary
    assert prod(tmp_path) == 1


@pytest.mark.matrix
def test_a_suite_that_demands_nothing_lets_nothing_pass(run: Run, tmp_path: Path) -> None:
    text = Path(SUITE).read_text()
    (tmp_path / "work" / "lax.yaml").write_text(text[: text.index("thresholds:")])
    job = run(suite="lax.yaml")

    assert (job.code, job.outputs["verdict"], job.outputs["promoted"]) == (8, "ERROR", "false"), job.log
    assert prod(tmp_path) == 1


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"source": "nowhere"}, 3, "nowhere"),
        pytest.param({"source": "\n"}, 2, "no source is given", marks=pytest.mark.matrix),
        pytest.param({"kind": "vektor_index"}, 3, "vektor_index", marks=pytest.mark.matrix),
        ({"suite": "nowhere.yaml"}, 3, "nowhere.yaml"),
        pytest.param({"registry": "nowhere"}, 3, "nowhere", marks=pytest.mark.matrix),
        ({"policy": "better/documents.jsonl"}, 2, "documents.jsonl"),
        ({"alias": "Prod"}, 2, "Prod"),
        pytest.param({"baseline": "python-kb:v9"}, 3, "v9", marks=pytest.mark.matrix),
    ],
)
def test_a_mistake_ends_with_its_exit_code_and_is_told(
    given: dict[str, str], code: int, told: str, run: Run, tmp_path: Path
) -> None:
    job = run(**given)

    assert job.code == code, job.log
    assert told in job.log
    assert (job.outputs["verdict"], job.outputs["promoted"]) == ("ERROR", "false") or "alias" in given
    assert job.outputs["promoted"] == "false"
    assert prod(tmp_path) == 1


@pytest.mark.matrix
def test_files_of_an_earlier_run_are_not_taken_for_this_one(run: Run, tmp_path: Path) -> None:
    assert run().code == 0
    job = run(suite="nowhere.yaml")

    assert job.code == 3
    assert "PASS" not in job.summary


# --- hostile inputs

SHELL = """ "; touch pwned; '; touch pwned; # $(touch pwned) `touch pwned` ${{ github.token }} && touch pwned | * \\"""
LINES = "x\ntouch pwned\nversion=evil:v1\nverdict=PASS\n::error::forged"
OPTION = "--help"


@pytest.mark.matrix
@pytest.mark.parametrize("value", [SHELL, LINES, OPTION])
def test_a_hostile_message_and_reason_are_kept_as_they_are(value: str, run: Run, tmp_path: Path, github: Any) -> None:
    job = run(message=value, reason=value)

    assert job.code == 0, job.log
    with la.connect(tmp_path / "work" / "registry") as registry:
        assert registry.find("python-kb:prod").version.message == value
        assert registry.history("python-kb:prod")[0].reason == value
    nothing_happened(job, tmp_path, github)


PLACES = ("kind", "name", "source", "suite", "alias", "registry", "policy", "results", "working-directory")
MANY_LINES = ("name", "source", "options", "made-from", "dataset-source", "ticket")
HOSTILE = [
    *((field, SHELL) for field in sorted(ACTION["inputs"].keys() - {"install", "package", "python-version"})),
    *((field, LINES) for field in MANY_LINES),
    *((field, OPTION) for field in PLACES),
]


@pytest.mark.matrix
@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_a_hostile_input_stays_text_wherever_it_is_given(
    field: str, value: str, run: Run, tmp_path: Path, github: Any
) -> None:
    if field == "working-directory":
        value = value.strip()
        shutil.copytree(tmp_path / "work", tmp_path / value)
        job = run(**{field: f"../{value}"})
    else:
        job = run(**{field: value})
    nothing_happened(job, tmp_path, github)
    if field in ("kind", "name", "source", "options", "made-from", "suite", "alias", "policy", "registry", "project"):
        assert job.code in (2, 3), job.log
        assert job.outputs["promoted"] == "false"


def nothing_happened(job: Any, tmp_path: Path, github: Any) -> None:
    assert not [p for p in tmp_path.rglob("*") if p.name == "pwned"]
    assert job.outputs["version"] in ("", "python-kb:v2")
    assert job.outputs["verdict"] in ("PASS", "ERROR", "INCONCLUSIVE")
    assert all("forged" not in line for line in github.commands(job.log))


@pytest.mark.matrix
def test_what_a_step_prints_is_no_command_to_the_runner(run: Run, github: Any, tmp_path: Path) -> None:
    job = run(source="worse", message="::set-output name=x::y", name="python-kb")
    assert github.commands(job.log) == ["::error title=llmartifacts::FAIL. The summary of this job says why."]

    job = run(source="::error::forged")
    assert "::error::forged" in job.log
    assert all("forged" not in line for line in github.commands(job.log))
