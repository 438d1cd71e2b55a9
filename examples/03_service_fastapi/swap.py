"""Promote while the service answers: `python swap.py`, in an empty directory.

Makes a registry, starts the service, and asks it without a pause, four requests at a time. Meanwhile a larger index and
a shorter prompt are logged and promoted together. Every answer is held against what exactly the versions of its stamp
answer: one that was put together from both sets would be seen.

With `--data FOLDER` the passages and questions are those of a folder in BEIR's layout (corpus.jsonl, queries.jsonl);
else they are a few of Python's documentation.
"""

from __future__ import annotations

import argparse
import http.client
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import prepare
from rag import PythonHelp, answer

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.runtime.stamp import parse_stamp

HERE = Path(__file__).resolve().parent
QUESTIONS = ("How do I copy a directory tree?", "How much space is left?", "Which archive formats are there?")
TOPICS = ("copyfile", "copytree", "rmtree", "move", "which", "disk_usage", "make_archive", "get_archive_formats")
SHORTER = "{% for p in passages %}[{{ p.id }}] {{ p.text }}\n{% endfor %}{{ question }}"
PATIENCE = 60.0


class Asking(threading.Thread):
    """Asks the service one question after another, and keeps each answer with its stamp."""

    def __init__(self, port: int, questions: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.questions = questions
        self.over = threading.Event()
        self.answers: list[tuple[str, str, str]] = []
        self.failed: list[str] = []

    def run(self) -> None:
        """Until it is over."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self.over.is_set():
            for question in self.questions:
                try:
                    self._ask(connection, question)
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                    connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, question: str) -> None:
        connection.request("POST", "/ask", json.dumps({"question": question}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        told = response.read().decode()
        if response.status == 200:
            self.answers.append((response.headers["X-LLM-Artifacts"], question, told))
        else:
            self.failed.append(f"{response.status} {told}")


def read(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Passages and questions of a folder."""
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line)["text"] for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{"id": line["_id"], "text": line["text"]} for line in lines], asked


def log_index(registry: la.Registry, passages: Sequence[dict[str, str]]) -> None:
    embeddings = HashingEmbeddings(256)
    registry.log(
        "python-kb", la.VectorIndex.build(passages, embeddings=embeddings, model=embeddings.model, index="Flat")
    )


def set_of(stamp: str) -> str:
    """The digest of a stamp's set, shortened: it covers every version, and nothing of how they came."""
    return parse_stamp(stamp).set_short


def expected(registry: la.Registry, questions: Sequence[str]) -> tuple[str, dict[str, object]]:
    """The set that is `prod` now, and what it answers to each question."""
    with la.Resolver(PythonHelp, registry=registry) as resolver:
        serving = resolver.current
        return set_of(serving.stamp()), {question: answer(serving.value, question) for question in questions}


def wait(until: Callable[[], bool], what: str) -> None:
    """Until something holds, for a while."""
    begin = time.monotonic()
    while not until():
        if time.monotonic() > begin + PATIENCE:
            raise SystemExit(f"{what} has not come")
        time.sleep(0.02)


def main() -> None:
    """Ask, promote, and look at every answer."""
    options = argparse.ArgumentParser(description="Promote while the service answers.")
    options.add_argument("--plain", action="store_true", help="without FastAPI")
    options.add_argument("--data", type=Path, help="folder with corpus.jsonl and queries.jsonl")
    given = options.parse_args()

    prepare.main("registry")
    passages = [{"id": f"shutil.{t}", "text": f"shutil.{t}\n{inspect.getdoc(getattr(shutil, t))}"} for t in TOPICS]
    questions: Sequence[str] = QUESTIONS
    with la.connect("registry") as registry:
        if given.data:
            passages, questions = read(given.data)
            log_index(registry, passages[: len(passages) // 2])
            registry.promote("python-kb:latest", to="prod", reason="the first half")
        command = [sys.executable, str(HERE / "serve.py"), "--with-parent", *(["--plain"] if given.plain else [])]
        environment = {**os.environ, "LLMARTIFACTS_REGISTRY": "registry", "WATCH_SECONDS": "0.2"}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as service:
            try:
                port = int(service.stdout.readline().split()[0].rpartition(":")[2])
                asking = [Asking(port, questions) for _ in range(4)]
                for one in asking:
                    one.start()
                wait(lambda: all(one.answers or one.failed for one in asking), "an answer")

                before = expected(registry, questions)
                log_index(registry, passages)
                registry.log("rag-answer", la.Prompt(SHORTER, template_format="jinja2"))
                registry.promote(["python-kb:latest", "rag-answer:latest"], to="prod", reason="more to find")
                after = expected(registry, questions)

                wait(
                    lambda: any(set_of(told[0]) == after[0] for one in asking for told in one.answers[-3:]),
                    "the new set",
                )
                for one in asking:
                    one.over.set()
                for one in asking:
                    one.join()
            finally:
                service.stdin.close()

    should = dict([before, after])
    answers = [told for one in asking for told in one.answers]
    failed = [text for one in asking for text in one.failed]
    mixed = [told for told in answers if json.loads(told[2]) != should.get(set_of(told[0]), {}).get(told[1])]
    for stamp, many in Counter(stamp for stamp, *_ in answers).items():
        print(f"{many} answers by {stamp}")
    for wrong in [*failed, *mixed][:3]:
        print(f"wrong: {str(wrong)[:300]}")
    print(
        f"{len(answers)} answers by {len({stamp for stamp, *_ in answers})} sets: "
        f"{len(failed)} failed, {len(mixed)} mixed"
    )
    sys.exit(bool(failed or mixed))


if __name__ == "__main__":
    main()
