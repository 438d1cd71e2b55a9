import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import Incompatible
from llmartifacts.records.compatibility import RULES, Member, check_set, refuse_misfits, same_model
from llmartifacts.records.manifest import Component, Manifest

SPACE = {"model": "BAAI/bge-small-en-v1.5", "dimension": 384, "metric": "inner_product", "normalized": True}
EMBEDDER = {
    "provider": "huggingface",
    "name": SPACE["model"],
    "parameters": {"dimension": 384, "metric": "inner_product", "normalized": True},
}
LLM = {"provider": "openai", "name": "gpt-4-turbo"}


def index(**space):
    config = {"embedding": {**SPACE, **space}, "index": {"factory": "Flat", "count": 3}, "documents": {"count": 3}}
    return Manifest.build("vector_index", config)


def prompt(*required, optional=(), **rest):
    variables = {n: {"required": True} for n in required} | {n: {"required": False} for n in optional}
    return Manifest.build("prompt", {"type": "text", "variables": variables, "partials": {}, **rest})


def dataset(schema, key="schema", **rest):
    return Manifest.build("eval_dataset", {"count": 3, key: schema, **rest})


def embedder(name=SPACE["model"], **parameters):
    return {"provider": "huggingface", "name": name, "parameters": parameters}


def bundle(parts=None, models=None, inputs=()):
    """A bundle and what `check_set` needs to unfold it."""
    parts = parts or {}
    manifest = Manifest.build(
        "bundle",
        {"models": models or {}, "inputs": list(inputs), "parameters": {}},
        (),
        [Component(role, p.kind, p.digest) for role, p in parts.items()],
    )
    return manifest, {p.digest: p for p in parts.values()}


def judge(parts=None, models=None, inputs=()):
    manifest, found = bundle(parts, models, inputs)
    return check_set([Member("stack", manifest)], found)


def rules(problems):
    return {(p.rule, p.severity) for p in problems}


# --- an index and its embedder


def test_an_index_that_fits_its_embedder_breaks_no_rule():
    assert judge({"index": index()}, {"embedder": EMBEDDER}) == []


@pytest.mark.parametrize(
    ("space", "rule", "severity"),
    [
        ({"dimension": 768}, "index-dimension", "error"),
        ({"metric": "l2"}, "index-metric", "error"),
        ({"normalized": False}, "index-normalisation", "error"),
        ({"model": "intfloat/e5-small"}, "index-embedder", "error"),
    ],
)
def test_each_way_in_which_an_index_does_not_fit_is_a_rule_of_its_own(space, rule, severity):
    part = index(**space)
    problems = judge({"index": part}, {"embedder": EMBEDDER})
    assert rules(problems) == {(rule, severity)}
    assert problems[0].digests == (bundle({"index": part}, {"embedder": EMBEDDER})[0].digest, part.digest)
    assert "'index'" in problems[0].message
    assert problems[0].mend


def test_an_index_of_unit_vectors_scales_its_queries_so_that_the_embedder_need_not():
    problems = judge({"index": index()}, {"embedder": embedder(dimension=384, normalized=False)})
    assert rules(problems) == {("index-normalisation", "warning")}


def test_what_an_embedder_does_not_state_is_not_judged():
    assert judge({"index": index(metric="l2", dimension=7)}, {"embedder": embedder()}) == []


@pytest.mark.parametrize(
    ("stated", "space", "fits"),
    [
        ("cosine", {"normalized": True}, True),
        ("cosine", {"normalized": True, "metric": "l2"}, True),
        ("cosine", {"normalized": False}, False),
        ("dot", {}, True),
        ("L2", {}, False),
        ("of its own", {}, True),
    ],
)
def test_the_usual_names_of_metrics_are_understood(stated, space, fits):
    problems = judge({"index": index(**space)}, {"embedder": embedder(metric=stated)})
    assert rules(problems) == (set() if fits else {("index-metric", "error")})


@pytest.mark.parametrize("value", ["384", 384.0, True, None, [], {}])
def test_a_dimension_that_is_no_whole_number_is_not_stated(value):
    assert judge({"index": index(dimension=7)}, {"embedder": embedder(dimension=value)}) == []


def test_without_an_embedder_an_index_is_not_judged():
    assert judge({"index": index()}, {"llm": LLM}) == []
    assert judge({"index": index()}) == []


def test_the_only_model_with_a_dimension_is_the_embedder_whatever_its_role():
    problems = judge({"index": index(dimension=7)}, {"llm": LLM, "vectors": EMBEDDER})
    assert rules(problems) == {("index-dimension", "error")}


def test_an_index_is_judged_by_the_embedder_it_was_built_with_where_there_are_two():
    models = {"embedder": embedder("intfloat/e5-small", dimension=512), "other-embedder": EMBEDDER}
    assert judge({"index": index()}, models) == []


def test_an_embedder_named_after_the_role_of_the_index_is_its_own():
    models = {
        "embedder": embedder("a/one", dimension=1),
        "archive-embedder": embedder("a/two", dimension=2),
        "docs_embedder": embedder("a/three", dimension=3),
    }
    parts = {
        "index": index(model="a/one", dimension=1),
        "archive": index(model="x/y", dimension=2),
        "docs": index(model="x/y", dimension=3),
    }
    assert rules(judge(parts, models)) == {("index-embedder", "error")}


def test_two_embedders_of_which_none_is_known_to_be_meant_judge_nothing():
    models = {"a-embedder": embedder("a/one", dimension=1), "b-embedder": embedder("a/two", dimension=2)}
    assert judge({"index": index()}, models) == []


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("BAAI/bge-small", "baai/bge-small", True),
        ("BAAI/bge-small", "bge-small", True),
        ("bge-small", "BAAI/bge-small", True),
        ("BAAI/bge-small", "acme/bge-small", False),
        ("bge-small", "bge-base", False),
        ("openai/text-embedding-3-small", "text-embedding-3-small", True),
    ],
)
def test_a_model_is_one_model_with_or_without_its_organisation(a, b, same):
    assert same_model(a, b) is same


# --- the variables of a prompt


def test_variables_come_from_the_caller_the_index_and_the_dataset():
    parts = {"prompt": prompt("question", "context", "documents", optional=("tone",)), "index": index()}
    assert judge(parts, {"embedder": EMBEDDER}, ["question"]) == []
    parts["eval"] = dataset({"columns": ["question", "answer"]})
    assert judge(parts, {"embedder": EMBEDDER}) == []


def test_a_variable_that_nothing_gives_is_an_error_and_named():
    problems = judge({"prompt": prompt("question", "tone")}, {"llm": LLM}, ["question"])
    assert rules(problems) == {("prompt-variables", "error")}
    assert "'tone'" in problems[0].message
    assert "'question'" not in problems[0].message
    assert "inputs=['question', 'tone']" in problems[0].mend


def test_without_an_index_nothing_gives_the_context():
    problems = judge({"prompt": prompt("question", "context")}, {}, ["question"])
    assert rules(problems) == {("prompt-variables", "error")}


def test_where_nobody_says_what_the_caller_gives_it_is_a_warning_at_most():
    assert rules(judge({"prompt": prompt("question")}, {"llm": LLM})) == {("prompt-variables", "warning")}


def test_a_variable_fixed_when_logged_is_not_needed():
    assert judge({"prompt": prompt("question", "company", partials={"company": "acme"})}, {}, ["question"]) == []


def test_a_prompt_without_variables_is_never_judged_by_them():
    assert judge({"prompt": prompt()}, {"llm": LLM}) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"columns": {"question": {"type": "string"}}},
        {"columns": [{"name": "question"}, {"name": "answer"}]},
        {"fields": ["question"]},
        {"question": {"types": {"string": 3}}, "answer": {"types": {"string": 3}}},
        {"properties": {"input": {"properties": {"question": {}}}}},
        {"input": {"types": {"object": 3}}},
        {"input": {"type": "string"}},
    ],
)
def test_a_datasets_columns_are_understood_in_every_usual_form(schema):
    for key in ("schema", "columns"):
        assert judge({"prompt": prompt("question"), "eval": dataset(schema, key)}) == []


def test_one_plain_input_gives_one_variable_and_not_two():
    schema = {"input": {"types": {"string": 3}}, "expected_output": {"types": {"string": 3}}}
    assert judge({"prompt": prompt("text"), "eval": dataset(schema)}) == []
    problems = judge({"prompt": prompt("text", "tone"), "eval": dataset(schema)})
    assert rules(problems) == {("prompt-variables", "error")}


def test_the_column_that_is_the_input_goes_by_both_names():
    schema = {"question": {"types": {"string": 3}}}
    data = dataset(schema, "columns", fields={"input": "question"})
    for name in ("question", "input", "text"):
        assert judge({"prompt": prompt(name), "eval": data}) == []
    assert rules(judge({"prompt": prompt("question", "tone"), "eval": data})) == {("prompt-variables", "error")}


def test_a_dataset_that_cannot_feed_a_prompt_is_a_warning_where_the_caller_can():
    schema = {"question": {"types": {"string": 3}}}
    problems = judge({"prompt": prompt("question", "tone"), "eval": dataset(schema)}, {}, ["question", "tone"])
    assert rules(problems) == {("dataset-fields", "warning")}
    assert "'tone'" in problems[0].message


# --- the model of a prompt


def test_a_prompt_made_for_a_model_that_the_bundle_has_not_is_an_error():
    part = prompt(model={"provider": "openai", "name": "gpt-3.5"})
    problems = judge({"prompt": part}, {"llm": LLM, "embedder": EMBEDDER})
    assert rules(problems) == {("prompt-model", "error")}
    assert "openai/gpt-3.5" in problems[0].message
    assert "openai/gpt-4-turbo" in problems[0].message


def test_a_prompt_fits_one_model_of_several():
    models = {"llm": LLM, "judge": {"provider": "openai", "name": "gpt-3.5"}}
    assert judge({"prompt": prompt(model={"provider": "openai", "name": "gpt-3.5"})}, models) == []


@pytest.mark.parametrize(
    ("a", "b", "fits"), [("r1", "r1", True), ("r1", None, True), (None, "r1", True), ("r1", "r2", False)]
)
def test_revisions_are_compared_where_both_state_one(a, b, fits):
    part = prompt(model={**LLM, **({"revision": a} if a else {})})
    problems = judge({"prompt": part}, {"llm": {**LLM, **({"revision": b} if b else {})}})
    assert rules(problems) == (set() if fits else {("prompt-model", "error")})


def test_parameters_that_differ_are_a_warning_that_names_them():
    part = prompt(model={**LLM, "parameters": {"temperature": 0.2, "top_p": 1}})
    problems = judge({"prompt": part}, {"llm": {**LLM, "parameters": {"temperature": 0.9, "top_p": 1}}})
    assert rules(problems) == {("prompt-model", "warning")}
    assert "'temperature'" in problems[0].message
    assert "top_p" not in problems[0].message


def test_without_models_or_with_embedders_only_a_prompts_model_is_not_judged():
    assert judge({"prompt": prompt(model=LLM), "x": prompt()}) == []
    assert judge({"prompt": prompt(model=LLM)}, {"embedder": EMBEDDER}) == []


# --- the format of a response


def test_a_dataset_that_expects_a_field_no_response_has_is_a_warning():
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    data = dataset({"columns": {"expected_output": {"properties": {"label": {}, "score": {}}}, "text": {}}})
    for response in (schema, {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}):
        problems = judge({"prompt": prompt("text", response_format=response), "eval": data})
        assert rules(problems) == {("response-format", "warning")}
        assert "'score'" in problems[0].message
    open_schema = {**schema, "additionalProperties": True}
    assert judge({"prompt": prompt("text", response_format=open_schema), "eval": data}) == []


# --- parts


def test_a_missing_part_is_an_error_that_names_its_role():
    manifest, _ = bundle({"prompt": prompt()}, {"llm": LLM})
    for parts in ({}, {prompt().digest: None}):
        problems = check_set([Member("stack", manifest)], parts)
        assert rules(problems) == {("part-missing", "error")}
        assert "'prompt'" in problems[0].message


def test_a_bundle_in_a_bundle_is_an_error():
    inner, _ = bundle(models={"llm": LLM})
    assert rules(judge({"inner": inner})) == {("bundle-nested", "error")}


def test_a_part_of_another_kind_than_the_bundle_says_is_an_error():
    part = prompt()
    manifest = Manifest.build("bundle", {"models": {}}, (), [Component("index", "vector_index", part.digest)])
    assert ("part-kind", "error") in rules(check_set([Member("stack", manifest)], {part.digest: part}))


def test_a_kind_that_is_not_installed_cannot_be_told():
    part = Manifest.build("knowledge_graph", {"nodes": 3})
    assert rules(judge({"graph": part}, {"llm": LLM})) == {("kind-unknown", "inconclusive")}
    manifest, parts = bundle({"graph": part}, {"llm": LLM})
    assert check_set([Member("stack", manifest)], parts, installed="knowledge_graph".__eq__) == []
    assert check_set([Member("graph", part)], {}) == []


@pytest.mark.parametrize("kind", ["prompt", "vector_index", "eval_dataset"])
def test_a_config_that_is_not_what_its_kind_writes_cannot_be_told(kind):
    problems = judge({"part": Manifest.build(kind, {"x": 1})}, {"llm": LLM})
    assert rules(problems) == {("config-unreadable", "inconclusive")}


# --- the set


def member(name, manifest, **contains):
    return Member(f"{name}:v1", manifest, name, contains)


def test_a_bundle_and_a_part_that_move_together_agree():
    old, new = prompt("a"), prompt("a", "b")
    stack, parts = bundle({"prompt": old, "other": prompt()}, {"llm": LLM}, ["a"])
    held = member("stack", stack, prompt="agent", other="x")
    assert check_set([held, member("agent", old)], parts) == []
    problems = check_set([held, member("agent", new)], parts)
    assert rules(problems) == {("bundle-in-step", "error")}
    assert problems[0].digests == (stack.digest, old.digest, new.digest)
    assert check_set([held, member("unrelated", new)], parts) == []


def test_two_indexes_that_move_together_may_have_two_embedders():
    one, two = index(), index(model="intfloat/e5-small", dimension=768)
    assert check_set([member("kb", one), member("archive", two)], {}) == []
    models, _ = bundle(models={"embedder": EMBEDDER})
    assert check_set([member("models", models), member("kb", one), member("archive", two)], {}) == []


def test_an_index_that_moves_with_a_bundle_of_models_fits_its_embedder():
    models, _ = bundle(models={"embedder": EMBEDDER})
    problems = check_set([member("models", models), member("kb", index(dimension=768))], {})
    assert rules(problems) == {("index-dimension", "error")}
    assert problems[0].digests[0] == models.digest


def test_what_moves_beside_a_bundle_is_not_judged_by_the_bundles_own_models():
    stack, parts = bundle({"index": index()}, {"embedder": EMBEDDER})
    assert check_set([member("stack", stack), member("archive", index(dimension=768))], parts) == []


def test_prompts_that_move_with_a_bundle_of_models_are_warned_of_at_most():
    models, _ = bundle(models={"llm": LLM}, inputs=["question"])
    agent = prompt("question", "tone", model={"provider": "openai", "name": "gpt-3.5"})
    problems = check_set([member("models", models), member("agent", agent)], {})
    assert rules(problems) == {("prompt-variables", "warning"), ("prompt-model", "warning")}


def test_a_prompt_and_an_index_alone_break_no_rule():
    assert check_set([member("agent", prompt("question")), member("kb", index())], {}) == []
    assert check_set([member("agent", prompt("question"))], {}) == []
    assert check_set([], {}) == []


def test_one_version_under_two_aliases_is_one_member():
    stack, parts = bundle({"index": index(dimension=7)}, {"embedder": EMBEDDER})
    assert len(check_set([member("stack", stack), member("stack", stack)], parts)) == 1


# --- refusing


def test_errors_refuse_and_every_one_of_them_is_told():
    stack, parts = bundle({"index": index(dimension=7, metric="l2")}, {"embedder": EMBEDDER})
    with pytest.raises(Incompatible) as caught:
        refuse_misfits([Member("stack", stack)], parts)
    assert [p.partition(":")[0] for p in caught.value.problems] == ["index-dimension", "index-metric"]
    assert caught.value.hint()


def test_warnings_and_what_cannot_be_told_do_not_refuse_and_are_given_back():
    parts = {"prompt": prompt("q"), "graph": Manifest.build("graph", {})}
    manifest, found = bundle(parts, {"llm": LLM})
    problems = refuse_misfits([Member("stack", manifest)], found)
    assert [p.severity for p in problems] == ["inconclusive", "warning"]


KEYS = [
    "models",
    "inputs",
    "embedding",
    "variables",
    "partials",
    "schema",
    "columns",
    "fields",
    "model",
    "response_format",
]
WORDS = [
    *("provider", "name", "parameters", "dimension", "metric", "normalized", "required", "input"),
    *("type", "types", "properties", "json_schema", "llm", "embedder"),
    *KEYS,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 500) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
CONFIG = st.dictionaries(st.sampled_from(KEYS), JSON)


@given(
    st.lists(st.tuples(st.sampled_from(["prompt", "vector_index", "eval_dataset", "report", "x"]), CONFIG), max_size=3),
    CONFIG,
)
def test_no_config_whatever_it_holds_makes_the_rules_crash(parts, config):
    manifests = [Manifest.build(kind, body) for kind, body in parts]
    stack = Manifest.build(
        "bundle", config, (), [Component(f"r{i}", m.kind, m.digest) for i, m in enumerate(manifests)]
    )
    members = [member("stack", stack), *(member(f"m{i}", m) for i, m in enumerate(manifests))]
    problems = check_set(members, {m.digest: m for m in manifests})
    assert all(p.rule in RULES for p in problems)
    assert all("\n" not in str(p) for p in problems)
    assert len(set(problems)) == len(problems)
