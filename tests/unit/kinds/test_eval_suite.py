"""A suite is read with all its faults told, kept by its content, and compared by scorers and thresholds."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError

import jsonschema
import pytest

import llmartifacts as la
from llmartifacts.errors import InvalidValue, NotFound, TooLarge
from llmartifacts.evals.scorers import scorer_digest
from llmartifacts.formats.yaml import parse_yaml
from llmartifacts.kinds.eval_suite import EvalSuite, EvalSuiteKind, Threshold
from llmartifacts.kinds.eval_suite.schema import schema_text, suite_schema
from llmartifacts.testing.kinds import pack

WHOLE = """\
name: support
description: What customers ask.
dataset: support-questions:v3
split: test
target: support-kb:staging
baseline: other-kb:prod
outputs:
  retrieve: {embeddings: "my.app:embeddings", k: 20}
repeats: 3
seed: 7
timeout: 30
cluster: document_id
on_error: worst
concurrency: 8
scorers:
  - recall@5
  - {type: equals, metric: exact, ignore_case: true}
  - type: latency
    cap: 2
thresholds:
  recall@5: {margin: 0.02, min_samples: 200, at_least: 0.7}
  latency: {at_most: 1.5, estimate: point}
"""
SMALL = "name: a\ndataset: b\nscorers: [recall@5]\n"


def suite(**more):
    return EvalSuite("support", "questions", ["recall@5", "latency"], **more)


def refusal(text):
    with pytest.raises(InvalidValue) as caught:
        EvalSuite.from_yaml(text, origin="suite.yaml")
    return caught.value


def test_a_whole_suite_is_read(tmp_path):
    (tmp_path / "suite.yaml").write_text(WHOLE)
    made = EvalSuite.from_file(tmp_path / "suite.yaml")

    assert (made.name, made.dataset, made.split) == ("support", "support-questions:v3", "test")
    assert (made.target, made.baseline) == ("support-kb:staging", "other-kb:prod")
    assert made.outputs == {"retrieve": {"embeddings": "my.app:embeddings", "k": 20}}
    assert (made.repeats, made.seed, made.timeout, made.cluster) == (3, 7, 30.0, "document_id")
    assert (made.on_error, made.concurrency, made.description) == ("worst", 8, "What customers ask.")
    assert made.metrics == ("recall@5", "exact", "latency")
    assert made.scorer("latency")["hi"] == 2.0
    assert made.thresholds["recall@5"] == Threshold(0.02, 0.7, min_samples=200)
    assert made.thresholds["latency"] == Threshold(at_most=1.5, estimate="point")
    assert made.origin == str(tmp_path / "suite.yaml")


def test_what_is_not_said_has_its_default():
    made = EvalSuite.from_yaml(SMALL)
    assert (made.dataset, made.baseline, made.target, made.outputs) == ("b:latest", "prod", None, None)
    assert (made.repeats, made.seed, made.timeout, made.on_error, made.concurrency) == (1, 0, 60.0, "error", 4)
    assert made.thresholds == {}


def test_a_suite_made_in_python_is_the_same_as_one_that_was_read():
    made = EvalSuite(
        "support",
        "support-questions:v3",
        ["recall@5", {"type": "equals", "metric": "exact", "ignore_case": True}, {"type": "latency", "cap": 2}],
        thresholds={
            "recall@5": Threshold(0.02, 0.7, min_samples=200),
            "latency": {"at_most": 1.5, "estimate": "point"},
        },
        split="test",
        target="support-kb:staging",
        baseline="other-kb:prod",
        outputs={"retrieve": {"embeddings": "my.app:embeddings", "k": 20}},
        repeats=3,
        seed=7,
        timeout=30,
        cluster="document_id",
        on_error="worst",
    )
    assert made == EvalSuite.from_yaml(WHOLE)
    assert hash(made) == hash(EvalSuite.from_yaml(WHOLE))
    assert made.to_config() == EvalSuite.from_yaml(WHOLE).to_config()


@pytest.mark.parametrize("baseline", ["none", None])
def test_a_suite_may_compare_with_nothing(baseline):
    assert suite(baseline=baseline).to_config()["baseline"] is None


@pytest.mark.parametrize(
    ("changed", "field", "line", "message", "hint"),
    [
        ("scorer: [a]", "scorer", 4, "there is no field 'scorer'", "Did you mean scorers?"),
        ("outputs:\n  runable: a:b", "outputs.runable", 5, "there is no field", "Did you mean runnable?"),
        ("outputs: {}", "outputs", 4, "exactly one of runnable, recorded and retrieve", ""),
        ("outputs: {runnable: a:b, recorded: c}", "outputs", 4, "exactly one", ""),
        ("outputs: {runnable: a.b}", "outputs.runnable", 4, "is not package.module:name", ""),
        ("outputs: {retrieve: {}}", "outputs.retrieve", 4, "embeddings, or the column", ""),
        ("outputs:\n  retrieve: {column: v,\n    k: 3}", "outputs.retrieve.k", 6, "a scorer looks at 5", "Write k: 5"),
        ("repeats: 0", "repeats", 4, "greater than or equal to 1", ""),
        ("repeats: true", "repeats", 4, "valid integer", ""),
        ("timeout: soon", "timeout", 4, "is not a number", ""),
        ("timeout: true", "timeout", 4, "is not a number", ""),
        ("split: ''", "split", 4, "at least 1 character", ""),
        ("target: 'a b'", "target", 4, "is not a name", ""),
        ("target: kb:Prod", "target", 4, "neither an alias nor a version", ""),
        ("baseline: Prod!", "baseline", 4, "neither an alias, nor a reference", ""),
        ("on_error: skip", "on_error", 4, "'error' or 'worst'", ""),
        ("thresholds:\n  recal@5: {margin: 0.1}", "thresholds.recal@5", 5, "no scorer gives", "Did you mean recall@5?"),
        ("thresholds:\n  recall@5: {}", "thresholds.recall@5", 5, "has a margin, at_least or at_most", ""),
        (
            "thresholds:\n  recall@5:\n    min: 0.1",
            "thresholds.recall@5.min",
            6,
            "no field 'min'",
            "Did you mean margin?",
        ),
        ("thresholds:\n  recall@5:\n    margin: 5", "thresholds.recall@5.margin", 6, "less than 1", ""),
        ("thresholds:\n  recall@5:\n    margin: 0", "thresholds.recall@5.margin", 6, "greater than 0", ""),
        ("thresholds:\n  recall@5:\n    at_most: 0.1", "thresholds.recall@5.at_most", 6, "more is better", "at_least"),
        ("thresholds:\n  recall@5:\n    at_least: 70", "thresholds.recall@5.at_least", 6, "scale from 0.0 to 1.0", ""),
        (
            "thresholds:\n  recall@5:\n    at_least: 0",
            "thresholds.recall@5.at_least",
            6,
            "every score holds",
            "Demand more",
        ),
        ("thresholds:\n  recall@5:\n    margin: 1", "thresholds.recall@5.margin", 6, "less than 1", ""),
        (
            "baseline: none\nthresholds:\n  recall@5: {margin: 0.1}",
            "thresholds.recall@5.margin",
            6,
            "the suite has none",
            "Name a baseline",
        ),
    ],
)
def test_a_fault_is_told_with_its_field_and_line(changed, field, line, message, hint):
    error = refusal(SMALL + changed)
    assert error.field == field
    assert error.origin == f"suite.yaml, line {line}"
    assert message in error.message
    assert hint in error.hint()


@pytest.mark.parametrize(
    ("scorers", "field", "line", "message", "hint"),
    [
        ("\n  - recall@5\n  - equls", "scorers[1].type", 5, "no scorer is called 'equls'", "Did you mean equals?"),
        ("\n  - recall", "scorers[0].k", 4, "k is missing", "Write recall@5."),
        ("\n  - recall@0", "scorers[0].k", 4, "greater than or equal to 1", ""),
        ("\n  - recall@x", "scorers[0].type", 4, "no name of a scorer", ""),
        ("\n  - equals@5", "scorers[0].k", 4, "there is no field 'k'", ""),
        ("\n  - type: recall@5\n    k: 4", "scorers[0].k", 5, "k is said twice", ""),
        ("\n  - metric: a", "scorers[0].type", 4, "type is missing", "One of: contains, equals"),
        ("\n  - type: equals\n    metric: 3", "scorers[0].metric", 5, "metric is not text", ""),
        (
            "\n  - type: equals\n    ignorecase: true",
            "scorers[0].ignorecase",
            5,
            "no field",
            "Did you mean ignore_case?",
        ),
        ("\n  - type: regex\n    pattern: '('", "scorers[0].pattern", 5, "cannot be read", ""),
        ("\n  - type: json-schema\n    schema:\n      type: objekt", "scorers[0].schema.type", 6, "no JSON Schema", ""),
        (
            "\n  - {type: function, function: no_such_module:f}",
            "scorers[0].function",
            4,
            "no module",
            "application runs",
        ),
        ("\n  - 3", "scorers[0]", 4, "an int is no scorer".replace("an", "a"), "recall@5"),
        ("\n  - recall@5\n  - recall@5", "scorers[1]", 5, "two scorers give the metric 'recall@5'", "metric:"),
        (" []", "scorers", 3, "at least 1 item", ""),
        (" recall@5", "scorers", 3, "valid list", ""),
    ],
)
def test_a_fault_of_a_scorer_is_told_with_its_field_and_line(scorers, field, line, message, hint):
    error = refusal(f"name: a\ndataset: b\nscorers:{scorers}\n")
    assert error.field == field
    assert error.origin == f"suite.yaml, line {line}"
    assert message in error.message
    assert hint in error.hint()


def test_all_faults_are_told_at_once():
    error = refusal("name: a\ndatset: b\nscorers:\n- equls\n- regex\nrepeats: 0\n")
    assert error.field == "dataset"
    for told in (
        "datset, line 2: there is no field 'datset' (Did you mean dataset?)",
        "scorers[0].type, line 4: no scorer is called 'equls'",
        "scorers[1].pattern, line 5: pattern is missing",
        "repeats, line 6: ",
    ):
        assert told in error.message


def test_an_unusable_file_is_refused_as_a_whole(tmp_path):
    with pytest.raises(NotFound):
        EvalSuite.from_file(tmp_path / "none.yaml")
    with pytest.raises(TooLarge):
        EvalSuite.from_yaml(b"#" * 300_000)
    for text in ("", "a", "- a", "a: &x [*x]", "a: !!python/name:os.system", "\x00"):
        assert refusal(text).origin.startswith("suite.yaml")


def test_retrieval_goes_as_deep_as_the_scorers_look():
    for scorers, depth in ((["recall@5"], 10), (["recall@5", "ndcg@40"], 40)):
        made = EvalSuite("a", "b", scorers, outputs={"retrieve": {"column": "vector"}})
        assert made.outputs == {"retrieve": {"column": "vector", "k": depth}}


def test_a_suite_is_frozen_to_the_bottom():
    made = EvalSuite("a", "b", [{"type": "contains", "any_of": ["x"]}], thresholds={"contains": {"margin": 0.1}})
    with pytest.raises(FrozenInstanceError):
        made.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.scorers[0]["options"]["trim"] = False  # type: ignore[index]
    with pytest.raises(AttributeError):
        made.scorers[0]["options"]["any_of"].append("y")
    with pytest.raises(TypeError):
        made.thresholds["contains"] = Threshold(0.2)  # type: ignore[index]
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_scorer_is_found_by_its_metric_and_has_the_digest_of_its_entry():
    made = suite()
    assert made.scorer_digest("recall@5") == scorer_digest(made.scorer("recall@5"))
    with pytest.raises(NotFound) as caught:
        made.scorer("recal@5")
    assert caught.value.near == ("recall@5",)


def test_the_order_of_scorers_and_thresholds_is_not_content():
    a = EvalSuite(
        "a", "b", ["latency", "recall@5"], thresholds={"latency": {"at_most": 1}, "recall@5": {"margin": 0.1}}
    )
    b = EvalSuite(
        "a", "b", ["recall@5", "latency"], thresholds={"recall@5": {"margin": 0.1}, "latency": {"at_most": 1}}
    )
    assert a == b
    assert pack(EvalSuiteKind(), a)[0].digest == pack(EvalSuiteKind(), b)[0].digest
    assert a.metrics == ("latency", "recall@5")


def test_the_difference_of_two_suites_is_told_by_metric():
    kind = EvalSuiteKind()
    old, old_files = pack(kind, EvalSuite("a", "b", ["equals", "latency"], thresholds={"equals": {"margin": 0.05}}))
    new, new_files = pack(
        kind,
        EvalSuite(
            "a",
            "b:v2",
            ["contains", {"type": "equals", "ignore_case": True}, "latency"],
            thresholds={"equals": {"margin": 0.02, "at_least": 0.9}},
        ),
    )
    told = str(kind.diff(old, new, (old_files, new_files))).splitlines()
    assert told[0].startswith("+ scorers.contains: ")
    assert told[1:] == [
        "~ scorers.equals.options.ignore_case: False -> True",
        "+ thresholds.equals.at_least: 0.9",
        "~ thresholds.equals.margin: 0.05 -> 0.02",
        "~ dataset: b:latest -> b:v2",
    ]


def test_a_suite_is_told_in_a_line_and_in_full():
    config = EvalSuite.from_yaml(WHOLE).to_config()
    kind = EvalSuiteKind()
    assert kind.summary(config) == (
        "support-questions:v3 against other-kb:prod; exact, latency (at most 1.5, by its point estimate, 60 samples), "
        "recall@5 (margin 0.02, at least 0.7, 200 samples)"
    )
    for line in (
        "dataset: support-questions:v3, split test",
        '  exact: equals from 0 to 1, more is better; {"expected": "expected_output", "ignore_case": true, ',
        "  latency (at most 1.5, by its point estimate, 60 samples)",
        "cluster: document_id",
    ):
        assert line in kind.text(config)


def test_a_scorer_that_is_not_installed_here_stays_as_it_is(monkeypatch):
    config = suite().to_config()
    config["scorers"][1] |= {"type": "of_another_package", "options": {"depth": [1, {"a": None}]}}
    kind = EvalSuiteKind()
    assert kind.check(config) == []
    made = kind.unpack(config, pack(kind, suite())[1])
    assert made.to_config() == config


def test_a_config_whose_parts_do_not_fit_is_refused():
    kind = EvalSuiteKind()
    good = suite(thresholds={"recall@5": {"margin": 0.1}}).to_config()
    for change in (
        {"scorers": good["scorers"][:1]},
        {"scorers": good["scorers"] * 2},
        {"baseline": None},
        {"dataset": "a b"},
        {"thresholds": {"recall@5": {"margin": 0.1, "at_most": 0.5}}},
        {"scorers": [{**good["scorers"][0], "lo": 1.0, "hi": 1.0}, good["scorers"][1]]},
        {"scorers": [{**good["scorers"][0], "source": "sha256:x"}, good["scorers"][1]]},
    ):
        assert kind.check({**good, **change}), change


def test_a_suite_goes_into_a_registry_and_comes_back(tmp_path):
    (tmp_path / "suite.yaml").write_text(WHOLE)
    with la.init(tmp_path / "registry") as registry:
        kind = EvalSuiteKind()
        version = registry.log("support", kind.read_source([tmp_path / "suite.yaml"], {}))
        assert version.kind == "eval_suite"
        assert not registry.log("support", EvalSuite.from_yaml(WHOLE)).created
        assert registry.resolve("support:v1", EvalSuite) == EvalSuite.from_yaml(WHOLE)
        registry.log("support", EvalSuite.from_yaml(WHOLE.replace("cap: 2", "cap: 3")))
        assert "scorers.latency.options.cap" in str(registry.diff("support:v1", "support:v2"))
    with pytest.raises(InvalidValue, match="2 sources"):
        kind.read_source([tmp_path / "suite.yaml"] * 2, {})
    with pytest.raises(InvalidValue, match="unknown option"):
        kind.read_source([tmp_path / "suite.yaml"], {"a": "b"})


# --- the published schema


def test_the_published_schema_is_what_the_models_say(repository):
    published = (repository / "schemas" / "eval_suite.schema.json").read_text()
    assert published == schema_text(), (
        "run: python -m llmartifacts.kinds.eval_suite.schema > schemas/eval_suite.schema.json"
    )


def test_a_margin_on_a_metric_that_compares_by_itself_is_refused():
    with pytest.raises(InvalidValue, match=r"overlap@5 compares with the baseline itself"):
        EvalSuite("a", "b", ["overlap@5"], thresholds={"overlap@5": {"margin": 0.1}})
    made = EvalSuite("a", "b", [{"type": "latency", "cap": 2}], thresholds={"latency": {"at_most": 1.9}})
    assert made.thresholds["latency"].at_most == 1.9
    with pytest.raises(InvalidValue, match=r"every score holds at_most: 2\.0"):
        EvalSuite("a", "b", [{"type": "latency", "cap": 2}], thresholds={"latency": {"at_most": 2}})


@pytest.fixture(scope="module")
def validator():
    schema = suite_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("text", [WHOLE, SMALL, SMALL.replace("recall@5", "{type: of_another_package, depth: 3}")])
def test_the_schema_takes_what_is_right(validator, text):
    assert not list(validator.iter_errors(parse_yaml(text.encode())))


@pytest.mark.parametrize(
    "text",
    [
        SMALL + "splitt: test",
        SMALL + "repeats: 0",
        SMALL + "on_error: skip",
        SMALL + "outputs: {runnable: a:b, recorded: c}",
        SMALL + "thresholds: {recall@5: {margn: 0.1}}",
        SMALL + "thresholds: {recall@5: {margin: 5}}",
        SMALL + "timeout: 0",
        "name: a\nscorers: [recall@5]",
        "name: a\ndataset: b\nscorers: []",
        "name: a\ndataset: b\nscorers: [{type: equals, ignorecase: true}]",
        "name: a\ndataset: b\nscorers: [{type: regex}]",
        "name: a\ndataset: b\nscorers: [{type: recall@5, whole: 3}]",
        "name: a\ndataset: b\nscorers: [3]",
    ],
)
def test_the_schema_finds_what_is_wrong(validator, text):
    assert list(validator.iter_errors(parse_yaml(text.encode())))


def test_the_schema_says_what_each_field_is(validator):
    definitions = validator.schema["$defs"]
    fields = validator.schema["properties"].values()
    assert all(field.get("description") for field in fields)
    for name, part in definitions.items():
        if name.startswith("scorer."):
            missing = [n for n, field in part["properties"].items() if n != "type" and not field.get("description")]
            assert not missing, (name, missing)
    assert len(json.dumps(validator.schema)) < 100_000
