"""The starter content: templates that load, render and say what their README says; suites whose parts exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import llmartifacts as la
from llmartifacts import plugins
from llmartifacts.formats.yaml import parse_yaml
from llmartifacts.kinds.eval_suite import EvalSuite

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "templates"
SUITES = ROOT / "eval_suites"
PASSAGES = [{"id": "shutil.copytree", "text": "Recursively copy a directory tree.\n"}, {"id": "copy", "text": "Copy."}]

VALUES: dict[str, dict[str, Any]] = {
    "support_agent.yaml": {
        "company": "Acme",
        "product": "Boards",
        "question": "Where?",
        "facts": ["It is in Settings."],
    },
    "rag_answer.j2": {"question": "How do I copy a tree?", "passages": PASSAGES},
    "summary.j2": {"document": "The meeting moved to May."},
    "classification.yaml": {"message": "I was charged twice."},
    "judge.yaml": {"question": "How?", "passages": PASSAGES, "answer": "With copytree."},
}


def names() -> list[str]:
    return sorted(p.name for p in TEMPLATES.iterdir() if p.suffix in (".j2", ".yaml"))


def load(name: str) -> la.Prompt:
    return la.Prompt.from_file(TEMPLATES / name)


def rendered(name: str, **more: Any) -> str:
    return "\n".join(str(m["content"]) for m in load(name).format_messages(**VALUES[name], **more))


def test_there_is_a_template_for_each_job() -> None:
    assert names() == sorted(VALUES)


@pytest.mark.parametrize("name", names())
def test_the_readme_names_exactly_the_variables_of_the_template(name: str) -> None:
    row = next(line for line in (TEMPLATES / "README.md").read_text().splitlines() if line.startswith(f"| `{name}`"))
    required, _, optional = row.split("|")[3].partition("(")
    variables = load(name).variables

    assert set(re.findall("`(.+?)`", required)) == {n for n, v in variables.items() if v["required"]}
    assert set(re.findall("`(.+?)`", optional)) == {n for n, v in variables.items() if not v["required"]}


@pytest.mark.parametrize("name", names())
def test_the_template_renders_whole_and_refuses_what_it_does_not_know(name: str) -> None:
    text = rendered(name)

    assert text.strip()
    assert not re.search(r"\{\{|\{%|Undefined|\n\n\n\n", text)
    with pytest.raises(la.errors.UnexpectedVariable):
        load(name).format_messages(**VALUES[name], colour="blue")
    for variable in VALUES[name]:
        with pytest.raises(la.errors.MissingVariable):
            load(name).format_messages(**{k: v for k, v in VALUES[name].items() if k != variable})


@pytest.mark.parametrize("name", names())
def test_the_template_comes_back_from_a_registry_as_it_went_in(name: str, tmp_path: Path) -> None:
    with la.init(tmp_path / "registry") as registry:
        registry.log("prompt", load(name))

        assert registry.resolve("prompt:v1", la.Prompt).format_messages(**VALUES[name]) == load(name).format_messages(
            **VALUES[name]
        )


def test_the_rag_answer_shows_every_passage_under_its_id_and_says_so_if_there_is_none() -> None:
    text = rendered("rag_answer.j2")
    nothing = load("rag_answer.j2").format(question="How?", passages=[])

    assert '<passage id="shutil.copytree">\nRecursively copy a directory tree.\n</passage>' in text
    assert text.endswith("Question: How do I copy a tree?\nAnswer:")
    assert "(no passage was found)" in nothing
    assert "6. Write for this reader: a child." in rendered("rag_answer.j2", audience="a child")


def test_the_support_agent_takes_earlier_turns_and_opening_hours_where_there_are_some() -> None:
    history = [("user", "Hello"), ("assistant", "Hello, what can I do?")]
    messages = load("support_agent.yaml").format_messages(
        **VALUES["support_agent.yaml"], history=history, opening_hours="from 9 to 5"
    )

    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert "People can be reached from 9 to 5." in messages[0]["content"]
    assert "- It is in Settings." in messages[-1]["content"]
    assert "People can be reached" not in rendered("support_agent.yaml")


@pytest.mark.parametrize("name", ["classification.yaml", "judge.yaml"])
def test_the_response_format_is_a_json_schema_that_takes_no_more_than_it_names(name: str) -> None:
    response = load(name).response_format
    assert response is not None
    schema = response["json_schema"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)

    assert schema["additionalProperties"] is False
    assert sorted(schema["required"]) == sorted(schema["properties"])


def test_the_few_shot_examples_of_the_classifier_are_answers_that_its_schema_takes() -> None:
    prompt = load("classification.yaml")
    assert prompt.response_format is not None
    schema = prompt.response_format["json_schema"]["schema"]
    messages = prompt.format_messages(**VALUES["classification.yaml"])
    answers = [json.loads(m["content"]) for m in messages if m["role"] == "assistant"]

    assert len(answers) == 3
    for answer in answers:
        jsonschema.validate(answer, schema)
    labels = set(schema["properties"]["label"]["enum"])
    assert labels == set(re.findall(r"^- (\w+):", messages[0]["content"], re.MULTILINE))
    assert labels == {item.expected_output for item in la.EvalDataset.from_jsonl(SUITES / "support_messages.jsonl")}


def test_every_label_of_the_messages_has_as_many_items_as_any_other() -> None:
    items = list(la.EvalDataset.from_jsonl(SUITES / "support_messages.jsonl"))
    by_label: dict[str, int] = {}
    for item in items:
        by_label[item.expected_output] = by_label.get(item.expected_output, 0) + 1

    assert set(by_label.values()) == {12}
    assert len({item.input for item in items}) == len(items) >= 60


@pytest.fixture
def my_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application that the suites name; it is found beside, and never run."""
    (tmp_path / "my_app").mkdir()
    for module in ("chains", "models"):
        (tmp_path / "my_app" / f"{module}.py").write_text("raise SystemExit('it is run')")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("my_app")
@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_suite_names_what_it_needs_and_what_it_names_is_there(path: Path) -> None:
    suite = EvalSuite.from_file(path)
    schema = json.loads((ROOT / "schemas" / "eval_suite.schema.json").read_text())

    assert suite.description
    assert suite.target
    assert suite.outputs
    assert suite.thresholds
    assert f"`{path.name}`" in (SUITES / "README.md").read_text()
    for name in re.findall(r"(?:eval_suites|templates)/\w+\.\w+", path.read_text()):
        assert (ROOT / name).is_file()
    jsonschema.Draft202012Validator(schema).validate(parse_yaml(path.read_bytes()))


@pytest.mark.usefixtures("my_app")
def test_what_the_suites_ask_of_the_templates_is_in_them() -> None:
    judge = EvalSuite.from_file(SUITES / "rag_answer.yaml").scorer("correctness")["options"]
    schema = EvalSuite.from_file(SUITES / "message_classification.yaml").scorer("json-schema")["options"]["schema"]
    response = load("classification.yaml").response_format
    asked = load("judge.yaml").response_format

    assert judge["variables"].keys() <= load("judge.yaml").variables.keys()
    assert set(load("judge.yaml").required) <= judge["variables"].keys()
    assert response is not None
    assert (
        schema
        == EvalSuite("a", "b", [{"type": "json-schema", "schema": response["json_schema"]["schema"]}]).scorer(
            "json-schema"
        )["options"]["schema"]
    )
    assert asked is not None
    assert asked["json_schema"]["schema"]["properties"][judge["grade"]]["maximum"] == judge["hi"]


def test_the_readme_names_every_scorer_and_no_other() -> None:
    rows = [
        line.split("|")[1]
        for line in (SUITES / "README.md").read_text().partition("## Scorers")[2].partition("\n## ")[0].splitlines()[5:]
        if line.startswith("|")
    ]
    named = {
        re.sub(r"\W.*", "", name) if name != "json-schema" else name
        for row in rows
        for name in re.findall("`(.+?)`", row)
    }
    assert named - {""} == set(plugins.BUILT_IN["scorers"])


def test_the_questions_are_a_dataset_with_stable_ids() -> None:
    questions = la.EvalDataset.from_jsonl(SUITES / "stdlib_questions.jsonl")

    assert dict(questions.fields) == {"input": "input", "metadata": "metadata"}
    assert "unpack-archive" in {item.id for item in questions}  # the ids of the file, not made of the content
    assert all(item.columns["expected_ids"] for item in questions)
