"""The story that the demo tells, step by step; every claim that it prints was checked a moment before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import llmartifacts as la
from llmartifacts.cli.demo.knowledge import CORE, PASSAGE_CHARS, SYSTEM, Passage, read_passages
from llmartifacts.cli.demo.screen import Screen
from llmartifacts.cli.demo.service import Answer, Service
from llmartifacts.cli.output import FAINT, NAME, WARN, Column
from llmartifacts.cli.plain import minute, version_text
from llmartifacts.cli.promotion import why
from llmartifacts.cli.starter import starter
from llmartifacts.errors import GateRefused
from llmartifacts.evals.evaluate import evaluate_logged
from llmartifacts.evals.interval import plot_interval
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.packing import kind_named
from llmartifacts.records.times import to_text
from llmartifacts.records.wording import size

DIMENSION = 512
PASSAGES = 3
RECALL, FIRST = "recall@5", "hit@1"
FAVOURITES = ("unpack-archive", "disk-space", "random-uuid", "get-logger", "median", "shuffle", "sample", "gcd")
"""Ids of questions that read well; of those that show the point, these are asked first."""
SET = ("rag-answer:v1", "python-kb:v2", "python-models:v1")
FIRST_SET = ("rag-answer:v1", "python-kb:v1", "python-models:v1")
SUITE = "stdlib_retrieval.yaml"
POLICY = """\
    name: production
    aliases:
      prod:
        reason: true
        kinds:
          vector_index:
            - eval: {suite: stdlib-retrieval}
            - lineage: {kinds: [files]}
          "*": [compatibility]
    """

_COMPONENT = re.compile(r"(?<=;)(?=[^;]+=[^;]+:v)")


class Story:
    """The steps, in order, and what one leaves for the next.

    Args:
        folder: An empty directory for all of it.
        screen: Where it is told.
        plain: Whether to serve without FastAPI although it is installed.
        kept: Whether the folder stays when the story has been told.
    """

    def __init__(self, folder: Path, screen: Screen, *, plain: bool = False, kept: bool = False) -> None:
        self.folder = folder
        self.screen = screen
        self.plain = plain
        self.kept = kept
        self.embeddings = HashingEmbeddings(DIMENSION)
        self.recall: dict[str, float] = {}
        self.found: dict[str, la.Report] = {}
        self.asked: list[str] = []
        self.first: list[Answer] = []
        self.wrong: list[Answer] = []
        self.wrong_at = datetime.min

    def tell(self) -> dict[str, Any]:
        """Tell all of it.

        Returns:
            What `--json` prints.

        Raises:
            LlmartifactsError: Something that the story claims does not hold, or did not work.
        """
        began = time.monotonic()
        self.screen.title(
            "The whole story of a registry for LLM components",
            f"On this machine, without a network, an account or a language model. Everything lies in {self.folder}"
            + (", and stays there." if self.kept else ", which is removed at the end."),
        )
        with (
            _variable("LLMARTIFACTS_CACHE", str(self.folder / "cache")),  # nothing of the user's own is touched
            la.init(self.folder / "registry", project="default") as self.registry,
        ):
            self.build_knowledge_bases()
            self.log_the_rest()
            self.compare()
            self.promote()
            self.serve()
            self.promote_by_mistake()
            self.roll_back()
            self.protect()
            self.look_back()
        seconds = time.monotonic() - began
        self.end(seconds)
        return {
            "seconds": round(seconds, 1),
            "recall": self.recall,
            "answers": [{"question": a.question, "stamp": a.stamp, **a.data} for a in self.first],
            "steps": self.screen.steps,
        }

    # --- 1

    def build_knowledge_bases(self) -> None:
        """Two states of the documents, and an index of each."""
        s = self.screen
        s.step("A knowledge base, in two states")
        s.say(
            "The documents are the documentation strings of the Python that runs this, one passage for each public "
            "function, class and method. Whatever is logged gets an immutable, numbered version, named by its content."
        )
        s.python(
            f"""
            registry.log("python-docs", la.Files({{"passages.jsonl": …}}))
            with registry.run("build-index") as run:  # notes what it reads and makes
                docs = run.use("python-docs:v1", la.Files)
                embeddings = HashingEmbeddings({DIMENSION})
                kb = la.VectorIndex.build(…, embeddings=embeddings, index="Flat")
                run.log("python-kb", kb)
            """
        )
        states = (("language, text, data", CORE), ("and files, network, …", [*CORE, *SYSTEM]))
        rows = []
        for number, (what, modules) in enumerate(states, start=1):
            with s.working(f"building index {number} of {len(states)}"):
                passages = read_passages(modules)
                docs = self.registry.log("python-docs", _as_files(passages, modules), message=what)
                kb, seconds = self._build_index(docs)
            rows.append([str(docs), str(kb), f"{len(passages):,}", size(kb.size), f"{seconds:.1f} s", what])
        s.table(
            [
                Column("documents", NAME),
                Column("index", NAME),
                Column("passages", right=True),
                Column("size", right=True),
                Column("built", right=True),
                Column("about", shrinks=True),
            ],
            rows,
        )
        s.say(
            "The embedder is a small deterministic one that needs no model: it hashes words and parts of words. Any "
            "LangChain embeddings go in its place."
        )
        again = self.registry.log("python-docs", _as_files(passages, modules))
        s.check(f"logged once more, the same content is the same version: {again}", not again.created)

    def _build_index(self, docs: la.Version) -> tuple[la.Version, float]:
        began = time.monotonic()
        with self.registry.run("build-index", parameters={"dimension": DIMENSION, "index": "Flat"}) as run:
            lines = run.use(docs.pinned, la.Files).read("passages.jsonl").splitlines()
            kb = la.VectorIndex.build(
                [json.loads(line) for line in lines],
                embeddings=self.embeddings,
                model=self.embeddings.model,
                index="Flat",
                chunking={"unit": "documentation string", "characters": PASSAGE_CHARS},
                corpus=docs,
            )
            version = run.log("python-kb", kb, message=docs.message)
        return version, time.monotonic() - began

    # --- 2

    def log_the_rest(self) -> None:
        """Prompts, questions, and a bundle of three models."""
        s = self.screen
        s.step("Prompts, questions, and a bundle of three models")
        s.say(
            "Change a prompt or a temperature and the answers change, as with another index. So these are versions "
            "too, and a digest covers all that changes what they do: template, variables, models, parameters."
        )
        s.python(
            """
            registry.log_many([("rag-answer", la.Prompt.from_file(…)), …])
            registry.log("stdlib-questions", la.EvalDataset.from_jsonl(…))
            models = {"llm": la.ModelSpec(…), "embedder": …, "classifier": …}
            registry.log("python-models", la.Bundle(models=models, parameters=…))
            """
        )
        templates = sorted(p for p in starter("templates").iterdir() if p.suffix in (".j2", ".yaml"))
        prompts = [(path.stem.replace("_", "-"), la.Prompt.from_file(path)) for path in templates]
        logged = self.registry.log_many(prompts, message="starter content")
        questions = la.EvalDataset.from_jsonl(starter("eval_suites") / "stdlib_questions.jsonl")
        logged.append(self.registry.log("stdlib-questions", questions, message="with the passages that answer them"))
        logged.append(self.registry.log("python-models", self._models(), message="first set of models"))
        s.table(
            [Column("version", NAME), Column("kind"), Column("what it is", shrinks=True)],
            [[str(v), v.kind, _at_most(self._summary(v), s.width - 38)] for v in logged],
        )

    def _models(self) -> la.Bundle:
        space = {"dimension": DIMENSION, "metric": "inner_product", "normalized": True}
        provider, _, name = self.embeddings.model.partition("/")
        return la.Bundle(
            models={
                "llm": la.ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2, "top_p": 0.9}),
                "embedder": la.ModelSpec(provider, name, parameters=space),
                "classifier": la.ModelSpec("openai", "gpt-4o-mini", parameters={"temperature": 0}),
            },
            inputs=["passages", "question"],
            parameters={"passages": PASSAGES},
        )

    def _summary(self, version: la.Version) -> str:
        return kind_named(version.kind).summary(self.registry.find(version.pinned).manifest.config)

    # --- 3

    def compare(self) -> None:
        """Measure both indexes on the questions, and choose what the service will be asked."""
        s = self.screen
        s.step("Which index is better? Measure it")
        questions = self.registry.resolve("stdlib-questions:v1", la.EvalDataset)
        s.say(
            f"{len(questions)} questions that a Python developer asks, each with the passages that answer it. A suite "
            "names them, what is asked, how it is graded, and what must hold. What is found is logged too: a report "
            "names the digests of the index, the questions and the suite."
        )
        s.python(
            """
            la.evaluate(registry, "eval_suites/stdlib_retrieval.yaml",
                        "python-kb:v2", baseline="python-kb:v1")
            """
        )
        rows = []
        for number in (1, 2):
            target = f"python-kb:v{number}"
            baseline = f"python-kb:v{3 - number}"
            with s.working(f"asking {target} and {baseline} {len(questions)} questions"):
                found = evaluate_logged(self.registry, starter("eval_suites") / SUITE, target, baseline=baseline)
            self.found[target] = found.report
            recall, first = found.report.metric(RECALL), found.report.metric(FIRST)
            self.recall[target] = recall.value or 0.0
            by = recall.comparison
            against = "" if by is None else f"{by.delta:+.2f}: {by.lower:+.2f} to {by.upper:+.2f}"
            rows.append([target, f"{recall.value:.3f}", f"{first.value:.3f}", against])
        s.table(
            [
                Column("index", NAME),
                Column(RECALL, right=True),
                Column(FIRST, right=True),
                Column(f"{RECALL} against the other", right=True),
            ],
            rows,
        )
        s.say(
            "Each is a report now, stdlib-retrieval-report:v1 and v2. The interval is at 95 % on each side, by the "
            "atom bound: it keeps its promise for every kind of score, where a bootstrap or a t test lets too many "
            "worse candidates through."
        )
        before, after = self.recall.values()
        s.check(f"python-kb:v2 finds more: {RECALL} {before:.3f} -> {after:.3f}", after > before)
        self.asked = _choose({item.id: str(item.input) for item in questions}, *self.found.values())

    # --- 4

    def promote(self) -> None:
        """Move `prod` of three components at once, and then of the better index."""
        s = self.screen
        s.step("To production: three components, one transaction")
        s.say(
            "The alias prod moves for the prompt, the index and the models together, or for none of them; but first "
            "the rules check that they fit: the index and the embedder, the prompt and what it is given. Later the "
            "better index follows by itself."
        )
        s.python('registry.promote(["rag-answer:v1", "python-kb:v1", …], to="prod", …)')
        s.shell("llmartifacts promote rag-answer:v1 python-kb:v1 python-models:v1 --to prod")
        s.shell("llmartifacts promote python-kb:v2 --to prod --reason 'finds more'")
        began = time.perf_counter()
        self.registry.promote(FIRST_SET, to="prod", reason="first release", ticket="DEMO-1")
        took = time.perf_counter() - began
        self.registry.promote("python-kb:v2", to="prod", reason="finds more", ticket="DEMO-2")
        serving = {str(entry.version) for entry in self.registry.state("prod").values()}
        s.check(f"moved in {took * 1000:.0f} ms; prod is {', '.join(sorted(serving))}", serving == set(SET))

    # --- 5

    def serve(self) -> None:
        """Start the service, ask it, and keep the answers."""
        s = self.screen
        s.step("A service starts from prod")
        s.say(
            "The example service names what it needs by alias. When it starts, the resolver reads all of them at one "
            "revision, verifies every byte against its SHA-256, checks that they fit, and only then hands them over."
        )
        s.python(
            """
            @dataclass(frozen=True)
            class PythonHelp:
                prompt: Annotated[la.Prompt, "rag-answer:prod"]
                kb: Annotated[la.VectorIndex, "python-kb:prod"]
                models: Annotated[la.Bundle, "python-models:prod"]

            serving = la.Resolver(PythonHelp).start().value
            """
        )
        with s.working("starting the service"), self._service() as service:
            self.first = [service.ask(question) for question in self.asked]
        s.say(
            f"{service.server} served it at {service.address}, as process {service.pid}. There is no language model "
            "here: the service fills the prompt with the passages it finds, and quotes the best one where a real "
            "service would send the prompt to the model."
        )
        if service.server != "FastAPI" and not self.plain:
            s.say("FastAPI is not installed, so the standard library's HTTP server answered the same requests.")
            s.shell("pip install 'llmartifacts[service]'")
        self._show(self.first)
        s.say("Every response carries a stamp, which names the exact versions that made it:")
        s.tree(textwrap.indent(_COMPONENT.sub("\n", self.first[0].stamp), "  "))
        s.check(
            "all answers came from one set of versions, the one that was promoted",
            {a.stamp for a in self.first} == {service.stamp} and all(f"={name}@" in service.stamp for name in SET),
        )

    def _service(self) -> Service:
        environment = {
            "LLMARTIFACTS_REGISTRY": str(self.folder / "registry"),
            "LLMARTIFACTS_CACHE": str(self.folder / "cache"),
        }
        script = starter("examples") / "03_service_fastapi" / "serve.py"
        return Service(script, environment, self.folder / "service.log", plain=self.plain)

    def _show(self, answers: Sequence[Answer], before: Sequence[Answer] = ()) -> None:
        s = self.screen
        for number, answer in enumerate(answers):
            s.blank()
            s.quote(answer.question, label=f"Q{number + 1}", style="bold")
            s.quote(_gist(answer), label="  ")
            s.quote(f"found {', '.join(answer.data['passages'])}", label="  ", style=FAINT)
            if before and answer.body == before[number].body:
                s.quote("the same answer as before", label=" =")
            elif before:
                s.quote("another answer than before", label=" !", style=WARN)
        s.blank()

    # --- 6

    def promote_by_mistake(self) -> None:
        """Promote the worse index, restart, and see the answers change."""
        s = self.screen
        s.step("A mistake: the worse index goes to production")
        s.say("Somebody promotes the old index. No policy protects prod here, so the alias moves.")
        s.shell('llmartifacts promote python-kb:v1 --to prod --reason "nightly build"')
        self.wrong_at = self.registry.promote("python-kb:v1", to="prod", reason="nightly build").at
        with s.working("restarting the service"), self._service() as service:
            self.wrong = [service.ask(question) for question in self.asked]
        s.say("The service restarts and is asked the same questions:")
        self._show(self.wrong, self.first)
        changed = sum(a.body != b.body for a, b in zip(self.wrong, self.first, strict=True))
        s.check(
            f"{changed} of {len(self.wrong)} answers changed, and the stamp says why: kb=python-kb:v1",
            changed > 0 and "kb=python-kb:v1@" in service.stamp,
        )

    # --- 7

    def roll_back(self) -> None:
        """One call back; the restarted service gives the first answers again."""
        s = self.screen
        s.step("Back, in one call")
        s.say("Nothing is built or copied: v2 is still there, whole, and the alias moves back to it.")
        s.python('registry.rollback("python-kb:prod", reason="answers got worse")')
        s.shell('llmartifacts rollback python-kb:prod --reason "answers got worse"')
        began = time.perf_counter()
        self.registry.rollback("python-kb:prod", reason="answers got worse")
        took = time.perf_counter() - began
        s.check(f"back on python-kb:v2 in {took * 1000:.0f} ms", self.registry.get("python-kb:prod").number == 2)
        with s.working("restarting the service"), self._service() as service:
            again = [service.ask(question) for question in self.asked]
        s.say("The service restarts once more. The best passage for each question, over the three starts:")
        s.table(
            [Column(""), Column("first"), Column("by mistake", WARN), Column("rolled back")],
            [
                [f"Q{i + 1}", *(_at_most(a[i].data["passages"][0], 22) for a in (self.first, self.wrong, again))]
                for i in range(len(again))
            ],
        )
        s.check(
            f"all {len(again)} answers are the first ones again, byte for byte (SHA-256 of them: "
            f"{_digest(again)[:12]}…, before: {_digest(self.first)[:12]}…)",
            [a.body for a in again] == [a.body for a in self.first],
        )

    # --- 8

    def protect(self) -> None:
        """A policy: the mistake is refused, the better index passes."""
        s = self.screen
        s.step("Not again: a policy, and gates that refuse")
        s.say(
            "A policy names the aliases that it protects, and what a version of each kind must show. From now on an "
            "index needs a report on exactly its digest, against exactly what prod serves."
        )
        policy = self.folder / "policy.yaml"
        policy.write_text(textwrap.dedent(POLICY), encoding="utf-8")
        s.python(POLICY)
        s.shell("llmartifacts policy set policy.yaml")
        s.shell("llmartifacts promote python-kb:v1 --to prod --reason 'nightly build'")
        self.registry.set_policy(policy, message="prod wants evidence")
        refusal: GateRefused | None = None
        try:
            self.registry.promote("python-kb:v1", to="prod", reason="nightly build")
        except GateRefused as error:
            refusal = error
        s.say("The nightly job tries the old index once more:")
        self._gates("python-kb:v1")
        self._interval("python-kb:v1")
        s.check(
            f"refused with verdict {refusal.verdict if refusal else 'none'}; prod is still python-kb:v2",
            refusal is not None and refusal.verdict == "FAIL" and self.registry.get("python-kb:prod").number == 2,
        )
        s.say(
            "Does the better one pass? Rolling back once more goes to the first release; that needs no new evidence, "
            "since it was served before. From there:"
        )
        s.shell("llmartifacts rollback python-kb:prod --reason 'try the gate'")
        s.shell("llmartifacts promote python-kb:v2 --to prod --reason 'finds more'")
        self.registry.rollback("python-kb:prod", reason="try the gate")
        self._gates("python-kb:v2")
        self._interval("python-kb:v2")
        made = self.registry.promote("python-kb:v2", to="prod", reason="finds more")
        s.check(
            f"passed and moved: {made.moves[0]}",
            self.registry.get("python-kb:prod").number == 2 and all(r.verdict == "PASS" for r in made.results),
        )

    def _gates(self, target: str) -> None:
        found = self.registry.gate(target, to="prod", reason="asked by the demo")
        for r in found.results:
            self.screen.quote(r.message, label=f"{r.verdict:<5}{r.rule}:", style="" if r.verdict == "PASS" else WARN)

    def _interval(self, target: str) -> None:
        by = self.found[target].metric(RECALL).comparison
        if by is not None:
            lines = plot_interval(by, width=min(self.screen.width, 100) - 4)
            self.screen.tree(textwrap.indent(f"{RECALL} against what prod serves\n{lines}", "  "))

    # --- 9

    def look_back(self) -> None:
        """History, the state at a time, lineage, and a full check of the registry."""
        s = self.screen
        s.step("What happened, and what comes from what")
        s.shell("llmartifacts history python-kb:prod")
        history = self.registry.history("python-kb:prod")
        s.table(
            [
                Column("promotion", FAINT),
                Column("when, UTC", FAINT),
                Column("who", shrinks=True),
                Column("what"),
                Column("from", right=True),
                Column("to", NAME, right=True),
                Column("why"),
            ],
            [
                [h.promotion, minute(h.at), h.actor, h.verb, version_text(h.old), version_text(h.new), why(h)]
                for h in history
            ],
        )
        s.check(
            "every move is there: promoted twice, once by mistake, rolled back twice, promoted through the gates",
            [(h.verb[0], h.new) for h in reversed(history)]
            == [("p", 1), ("p", 2), ("p", 1), ("r", 2), ("r", 1), ("p", 2)],
        )
        s.shell(f"llmartifacts state prod --at {to_text(self.wrong_at)}")
        then = self.registry.state("prod", at=self.wrong_at)
        s.check(
            f"prod at that moment: {', '.join(sorted(str(entry.version) for entry in then.values()))}",
            then["python-kb"].version.number == 1,
        )
        s.say("What the report on the better index was made from, and what came of the first documents:")
        s.shell("llmartifacts lineage stdlib-retrieval-report:v2")
        up = self.registry.lineage("stdlib-retrieval-report:v2", "up")
        s.tree(up.to_text())
        s.shell("llmartifacts lineage python-docs:v1 --down")
        down = self.registry.lineage("python-docs:v1", "down")
        s.tree(down.to_text())
        s.check(
            "the report leads back to index, documents and questions; the documents lead on to index and report",
            {"python-kb:v2", "python-docs:v2", "stdlib-questions:v1"} <= up.nodes.keys()
            and {"python-kb:v1", "stdlib-retrieval-report:v1"} <= down.nodes.keys(),
        )
        verified = self.registry.verify(read_data=True)
        s.check(
            f"{verified.versions} versions and {verified.blobs} stored files were read and verified: all well",
            verified.ok,
        )

    # --- 10

    def end(self, seconds: float) -> None:
        """What to do now."""
        s = self.screen
        s.step("Where to go next")
        if self.kept:
            s.shell(f"llmartifacts --registry {self.folder / 'registry'} ls")
        if shutil.which("llmartifacts") is None:  # `make demo` runs it from an environment that is not active
            s.shell(f". {shlex.quote(os.path.relpath(Path(sys.prefix) / 'bin' / 'activate'))}")
        s.shell(
            """
            mkdir try-it && cd try-it
            llmartifacts init --starter
            llmartifacts log prompt rag-answer templates/rag_answer.j2
            llmartifacts promote rag-answer:v1 --to prod
            llmartifacts --help
            """
        )
        s.say(f"Templates, suites and examples to copy are in {starter('examples').parent}")
        s.say(f"This took {seconds:.0f} s; every line with ok was computed and checked.")


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _as_files(passages: Sequence[Passage], modules: Sequence[str]) -> la.Files:
    bodies = [{"id": p.id, "text": p.text, "module": p.module, "sort": p.sort} for p in passages]
    lines = [json.dumps(body, ensure_ascii=False) for body in bodies]
    return la.Files(
        {
            "passages.jsonl": "".join(f"{line}\n" for line in lines).encode(),
            "modules.txt": "".join(f"{name}\n" for name in sorted(modules)).encode(),
        }
    )


def _choose(questions: Mapping[str, str], before: la.Report, after: la.Report) -> list[str]:
    """Two questions that the second index alone answers at once, and one for which both find the same passages."""
    first, second = ({item.id: item for item in report.items} for report in (before, after))
    order = [*(q for q in FAVOURITES if q in first), *first]
    gained = [q for q in order if (first[q].scores[FIRST], second[q].scores[FIRST]) == (0, 1)]
    alike = [q for q in order if first[q].output[:PASSAGES] == second[q].output[:PASSAGES]]
    right = [q for q in alike if second[q].scores[FIRST] == 1]
    return [questions[q] for q in dict.fromkeys([*gained[:2], *(right or alike)[:1]])]


def _gist(answer: Answer) -> str:
    """The passage's name and its first sentences."""
    name = answer.data["passages"][0]
    _, _, text = answer.data["answer"].removesuffix(f" [{name}]").partition("\n")
    return f"{name}: {textwrap.shorten(text, 150, placeholder=' …')}"


def _at_most(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _digest(answers: Sequence[Answer]) -> str:
    return hashlib.sha256(b"\n".join(a.body for a in answers)).hexdigest()
