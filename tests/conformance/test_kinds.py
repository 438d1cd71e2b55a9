"""Every built-in kind keeps the contract of kinds."""

import pytest

from llmartifacts import plugins
from llmartifacts.errors import InvalidManifest
from llmartifacts.kinds.bundle import Bundle, BundleKind
from llmartifacts.kinds.eval_dataset.kind import EvalDatasetKind
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.kinds.eval_suite import EvalSuite, EvalSuiteKind
from llmartifacts.kinds.files import External, Files, FilesKind
from llmartifacts.kinds.model import ModelSpec
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.kinds.prompt.value import Prompt
from llmartifacts.kinds.report.kind import ReportKind
from llmartifacts.kinds.report.value import ItemScore, Metric, Report
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import check_kind

DIGEST = "sha256:" + "0" * 64
SUITE = """\
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
LLM = ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2})


def test_files_keep_the_contract(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_bytes(b"1")
    (tmp_path / "b" / ".hidden").write_bytes(b"\x00\xff")
    content = {"b/.hidden": b"\x00\xff", "a.txt": b"1"}
    elsewhere = {"w.bin": External("s3://models/w.bin", DIGEST, 7)}
    moved = {"w.bin": External("s3://other/w.bin", DIGEST, 7)}
    check_kind(
        FilesKind(),
        [Files(content), Files.from_path(tmp_path), Files(dict(reversed(content.items())))],
        [
            Files({**content, "a.txt": b"2"}),
            Files({**content, "c": b""}),
            Files(content, external=elsewhere),
            Files(content, external=moved),
        ],
    )


def test_a_bundle_keeps_the_contract(tmp_path):
    (tmp_path / "adapter.bin").write_bytes(b"weights")
    llm = LLM
    tuned = ModelSpec("huggingface", "llama", "main", files={"adapter.bin": tmp_path / "adapter.bin"})
    parts = {"prompt": "support-agent:v2", "index": "support-kb:v5"}
    check_kind(
        BundleKind(),
        [
            Bundle(parts, {"llm": llm, "tuned": tuned}, inputs=["question", "name"]),
            Bundle(dict(reversed(parts.items())), {"tuned": tuned, "llm": llm}, inputs=["name", "question"]),
        ],
        [
            Bundle(parts, {"llm": llm}, inputs=["question", "name"]),
            Bundle(parts, {"llm": llm, "tuned": tuned}, inputs=["question"]),
            Bundle({"prompt": "support-agent:v2"}, {"llm": llm, "tuned": tuned}, inputs=["question", "name"]),
            Bundle(parts, {"llm": llm, "tuned": tuned}, inputs=["question", "name"], parameters={"top_k": 5}),
        ],
    )


def test_a_prompt_keeps_the_contract():
    text = "Hello {{ name }}, {% if tone is defined %}{{ tone }}{% endif %}"
    chat = [("system", "Be brief, {company}."), ("user", "{question}")]

    def prompt(template=text, **changes):
        return Prompt(template, **{"template_format": "jinja2", "model": LLM, **changes})

    check_kind(
        PromptKind(),
        [prompt(), prompt(variables={"name": {"required": True}})],
        [
            prompt(text + "!"),
            prompt(model=None),
            prompt(model=ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.3})),
            prompt(partials={"tone": "kindly"}),
            prompt(variables={"name": {"schema": {"type": "string"}}}),
            prompt(response_format={"type": "json_object"}),
            prompt("Hello {name}", template_format="f-string"),
            prompt("Hello {{name}}", template_format="mustache"),
            prompt(chat, template_format="f-string", tools=[{"type": "function", "function": {"name": "look_up"}}]),
            prompt(chat, template_format="f-string"),
        ],
    )


def test_a_vector_index_keeps_the_contract():
    space = EmbeddingSpec("a/embedder", 4, metric="l2")
    rows = [[float(i), float(i * i), 1.0, 0.0] for i in range(8)]
    documents = [{"id": f"d{i}", "text": f"passage {i}", "metadata": {"page": i}} for i in range(8)]

    def index(rows=rows, documents=documents, **changes):
        return VectorIndex.from_vectors(rows, documents, **{"embedding": space, **changes})

    renamed = [{**documents[0], "text": "another"}, *documents[1:]]
    check_kind(
        VectorIndexKind(),
        [index(), index(documents=[dict(reversed(d.items())) for d in documents])],
        [
            index(documents=renamed),
            index(rows=[[9.0, 9.0, 9.0, 9.0], *rows[1:]]),
            index(index="HNSW8"),
            index(embedding=EmbeddingSpec("another/embedder", 4, metric="l2")),
            index(chunking={"size": 800}),
            index(corpus=DIGEST),
            index(probes="documents"),
        ],
    )


def test_an_eval_dataset_keeps_the_contract():
    items = [{"id": f"q{i}", "question": f"What is {i}?", "answer": str(i), "level": i % 2} for i in range(6)]
    changed = [{**items[0], "answer": "none"}, *items[1:]]
    check_kind(
        EvalDatasetKind(),
        [EvalDataset(items), EvalDataset([dict(reversed(item.items())) for item in items])],
        [
            EvalDataset(changed),
            EvalDataset(items[:-1]),
            EvalDataset(items, columns={"expected_output": None}),
            EvalDataset([{**item, "split": "test"} for item in items]),
        ],
    )


def test_a_report_keeps_the_contract():
    def report(score=0.5, **changes):
        metric = Metric("recall@5", (1 + score) / 2, 0.2, 0.9, 2)
        items = [ItemScore("q1", {"recall@5": 1.0}, output="yes"), ItemScore("q2", {"recall@5": score})]
        fields = {"suite": "rag", "targets": {"kb:v1": DIGEST}, "dataset": DIGEST, "metrics": [metric], "items": items}
        return Report(**{**fields, **changes})

    check_kind(
        ReportKind(),
        [report(), report()],
        [report(0.25), report(suite="other"), report(baseline=DIGEST), report(items=[]), report(seed=7)],
    )


def test_a_suite_keeps_the_contract():
    check_kind(
        EvalSuiteKind(),
        [
            EvalSuite.from_yaml(SUITE),
            EvalSuite.from_yaml(
                SUITE.replace("What customers ask.", "else").replace("concurrency: 8", "concurrency: 1")
            ),
        ],
        [
            EvalSuite.from_yaml(SUITE.replace(before, after))
            for before, after in (
                ("name: support", "name: other"),
                ("questions:v3", "questions:v4"),
                ("split: test", "split: dev"),
                ("kb:staging", "kb:v2"),
                ("other-kb:prod", "prod"),
                ("k: 20", "k: 30"),
                ("repeats: 3", "repeats: 4"),
                ("seed: 7", "seed: 8"),
                ("timeout: 30", "timeout: 31"),
                ("document_id", "chapter"),
                ("worst", "error"),
                ("ignore_case: true", "ignore_case: false"),
                ("cap: 2", "cap: 3"),
                ("margin: 0.02", "margin: 0.05"),
                ("estimate: point", "estimate: bound"),
            )
        ],
    )


def test_every_built_in_kind_is_here(request):
    source = request.path.read_text()
    for name in plugins.BUILT_IN["kinds"]:
        assert f"{type(plugins.load('kinds', name)()).__name__}()," in source


class Forgetful(FilesKind):
    """Breaks one promise at a time; the suite must notice each."""

    def __init__(self, fault):
        self.fault = fault
        self.packed = 0

    def pack(self, value, files):
        config = super().pack(value, files)
        self.packed += 1
        if self.fault == "deterministic":
            config = {**config, "suffixes": {f".{self.packed}": 1}}
        if self.fault == "identity":
            files.content.clear()
            files.descriptors.clear()
            files.add("x", b"")
            config = {"count": 1, "bytes": 0, "suffixes": {"x": 1}}
        if self.fault == "json":
            config = {**config, "bytes": float("nan")}
        return config

    def unpack(self, config, files):
        if self.fault == "type":
            return "files"
        if self.fault == "raw error":
            return super().unpack({**config, "count": config["count"]}, files)
        if self.fault == "loses":
            return Files({files.paths()[0]: files.read(files.paths()[0])})
        return super().unpack(config, files)

    def check(self, config):
        if self.fault == "refuses its own":
            return ["count: no"]
        return [] if self.fault == "takes all" else super().check(config)

    def diff(self, before, after, files):
        told = super().diff(before, before if self.fault == "blind" else after, files)
        if self.fault == "restless":
            return super().diff(before, type(before).build("files", {}), files)
        return told

    def summary(self, config):
        line = super().summary(config)
        return {"two lines": line + "\nmore", "no summary": "", "escapes": "\x1b[2J"}.get(self.fault, line)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("", None),
        ("deterministic", "gives two manifests"),
        ("identity", "one identity"),
        ("json", "not a JSON number"),
        ("type", "unpack gives a str"),
        ("raw error", "raises KeyError"),
        ("loses", "changes the manifest"),
        ("refuses its own", "refuses the kind's own config"),
        ("takes all", "check.. takes"),
        ("blind", "no difference to show"),
        ("restless", "differs from itself"),
        ("two lines", "not one line"),
        ("no summary", "not one line"),
        ("escapes", "control characters"),
    ],
)
def test_the_suite_notices_a_kind_that_breaks_a_promise(fault, told):
    values, others = [Files({"a": b"1", "b": b"2"})], [Files({"a": b"1", "b": b"3"})]
    if told is None:
        check_kind(Forgetful(fault), values, others)
        return
    with pytest.raises((AssertionError, InvalidManifest), match=told):
        check_kind(Forgetful(fault), values, others)
