"""Every numbered example runs by itself, in an empty directory, and says what its README promises."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.signing import key_files
from llmartifacts.signing.note import sign_checkpoint, verifier_key

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
VERIFIER = EXAMPLES / "08_verify_audit.py"
SCRIPTS = sorted(p.name for p in EXAMPLES.glob("[0-9][0-9]_*.py") if p != VERIFIER)
SERVICE = EXAMPLES / "03_service_fastapi"

# The last thing that a reader should see, so that an example which ends early is noticed.
ENDS = {
    "01_prompt_from_log_to_prod.py": "first release",
    "02_roll_back_an_index.py": "follow the link on the sign-in page",
    "04_bundle.py": "refused: index-dimension",
    "05_lineage_and_runs.py": "build-index, done: support-docs:v1 -> support-kb:v1",
    "06_your_own_kind.py": "prod has alias, digest, version",
    "07_update_an_index.py": "prod finds: help/401",
    "10_approve_and_promote.py": "it has lapsed: prod of adder has moved since",
}


def run(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error::UserWarning"}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_runs_in_an_empty_directory(name: str, tmp_path: Path) -> None:
    done = run(EXAMPLES / name, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert ENDS[name] in done.stdout.splitlines()[-1]
    assert not done.stderr


def test_every_example_is_named_in_the_readme_and_the_other_way_round() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    there = {p.name + "/" * p.is_dir() for p in EXAMPLES.glob("[0-9][0-9]_*")}

    assert {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")} == there


@pytest.mark.parametrize("plain", [False, True], ids=["fastapi", "plain"])
def test_the_service_answers_with_the_stamp_of_its_versions_and_ends_with_its_parent(
    plain: bool, tmp_path: Path
) -> None:
    prepared = run(SERVICE / "prepare.py", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr

    environment = {**os.environ, "LLMARTIFACTS_REGISTRY": "registry", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(SERVICE / "serve.py"), "--with-parent", *(["--plain"] if plain else [])]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address, server = process.stdout.readline().split()
            port = int(address.rpartition(":")[2])
            status, headers, body = ask(port, "POST", "/ask", {"question": "How do I copy a directory tree?"})
            asked_wrongly = [
                ask(port, "POST", "/ask", {"question": ""})[0],
                ask(port, "POST", "/ask", {"question": 3})[0],
                ask(port, "POST", "/ask", {"question": "long " * 500})[0],
                ask(port, "POST", "/ask", ["question"])[0],
                ask(port, "GET", "/nothing")[0],
            ]
            alive, ready = ask(port, "GET", "/healthz"), ask(port, "GET", "/readyz")
        finally:
            process.stdin.close()
            ended = process.wait(20)

    assert server == ("http.server" if plain else "FastAPI")
    assert status == 200
    assert body["passages"][0] == "shutil.copytree"
    assert body["answer"].endswith("[shutil.copytree]")
    assert body["model"]["name"] == "gpt-4-turbo"
    for part in ("prompt=rag-answer:v1@", "kb=python-kb:v1@", "models=python-models:v1@"):
        assert part in headers["x-llm-artifacts"]
    assert alive[0] == ready[0] == 200
    assert alive[2] == {"alive": True, "state": "READY", "stamp": headers["x-llm-artifacts"]}
    assert ready[2].items() >= {"ready": True, "reason": "", "stamp": headers["x-llm-artifacts"]}.items()
    assert asked_wrongly == [422, 422, 422, 422, 404]
    assert ended == 0


@pytest.mark.parametrize("plain", [False, True], ids=["fastapi", "plain"])
def test_a_promotion_while_the_service_answers_is_swapped_in_with_no_failed_or_mixed_answer(
    plain: bool, tmp_path: Path
) -> None:
    done = run(SERVICE / "swap.py", *(["--plain"] if plain else []), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" answers by 2 sets: 0 failed, 0 mixed\n")
    assert "prompt=rag-answer:v2@" in done.stdout
    assert "kb=python-kb:v2@" in done.stdout


@pytest.mark.slow
def test_so_it_is_with_the_passages_and_questions_of_a_real_documentation(shared_data: Path, tmp_path: Path) -> None:
    done = run(SERVICE / "swap.py", "--data", str(shared_data / "rag" / "anthropic_docs"), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" answers by 2 sets: 0 failed, 0 mixed\n")


def test_a_service_without_its_registry_says_what_is_missing_and_does_not_start(tmp_path: Path) -> None:
    for plain in ([], ["--plain"]):
        environment = {**os.environ, "LLMARTIFACTS_REGISTRY": str(tmp_path / "nowhere")}
        done = subprocess.run(
            [sys.executable, str(SERVICE / "serve.py"), *plain],
            cwd=tmp_path,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode != 0
        assert "nowhere" in done.stderr
        for component in ("prompt", "kb", "models"):
            assert component in done.stderr


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What an auditor is given, in files: an export, a signed checkpoint, a proof; and the verifier key."""
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("LLMARTIFACTS_")]:
            patch.delenv(name)
        for name in ("CACHE", "CONFIG", "KEYS"):
            patch.setenv(f"LLMARTIFACTS_{name}", str(folder / name.lower()))
        patch.setenv("LLMARTIFACTS_ACTOR", "tester")
        run(EXAMPLES / "01_prompt_from_log_to_prod.py", cwd=folder)
        key_files.create("auditor", "ada")
        private = key_files.load("auditor").private.crypto()
        with la.connect(folder / "registry") as registry:
            signed = sign_checkpoint(registry.backend.audit_checkpoint(), private)
            proof = registry.backend.audit_inclusion(3, signed.checkpoint.size)
            registry.tag("support-agent:v1", set={"newer": "than the checkpoint"})
            (folder / "audit.jsonl").write_bytes(b"".join(e + b"\n" for e in registry.backend.export_audit()))
    note = signed.note.to_text()
    (folder / "audit.checkpoint").write_text(note, encoding="utf-8")
    (folder / "proof.json").write_text(json.dumps(proof.to_json(note)))
    return folder, str(signed.key)


@pytest.fixture
def audited(given: tuple[Path, str], tmp_path: Path) -> str:
    """A copy of those files, to be altered; returns the verifier key."""
    for name in (*WHOLE, "proof.json"):
        shutil.copy(given[0] / name, tmp_path)
    return given[1]


WHOLE = ("audit.jsonl", "audit.checkpoint")
PROOF = ("--proof", "proof.json")


def test_the_independent_verifier_is_short_and_has_nothing_of_the_package() -> None:
    text = VERIFIER.read_text()
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))}

    assert imported == {"base64", "cryptography", "hashlib", "json", "pathlib", "sys"}
    assert len(text.splitlines()) <= 50


@pytest.mark.parametrize("arguments", [WHOLE, PROOF])
def test_the_independent_verifier_verifies_what_nobody_altered(
    arguments: tuple[str, ...], audited: str, tmp_path: Path
) -> None:
    done = run(VERIFIER, *arguments, audited, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("verified: as signed over ")


@pytest.mark.parametrize(
    ("arguments", "file", "change"),
    [
        (WHOLE, "audit.jsonl", lambda text: text.replace('"verb":"promote"', '"verb":"log"', 1)),
        (WHOLE, "audit.jsonl", lambda text: "".join(text.splitlines(True)[1:])),
        (WHOLE, "audit.jsonl", lambda text: "".join(text.splitlines(True)[:-2])),
        (WHOLE, "audit.jsonl", lambda text: text.splitlines(True)[0] + text),
        (WHOLE, "audit.jsonl", lambda text: "".join(text.splitlines(True)[::-1])),
        (WHOLE, "audit.jsonl", lambda text: "\ufeff" + text),
        (WHOLE, "audit.jsonl", lambda text: text.replace("\n", "\r\n")),
        (WHOLE, "audit.jsonl", lambda text: ""),
        (WHOLE, "audit.checkpoint", lambda text: "\ufeff" + text),
        (WHOLE, "audit.checkpoint", lambda text: text.replace("\n", "\r\n")),
        (WHOLE, "audit.checkpoint", lambda text: text.rpartition("\n\n")[0] + "\n\n"),
        (WHOLE, "audit.checkpoint", lambda text: text.partition("\n")[0]),
        (WHOLE, "audit.checkpoint", lambda text: text.replace("\n", "\n1", 1)),
        (WHOLE, "audit.checkpoint", lambda text: text.replace("— llmartifacts", "— somebody")),
        (PROOF, "proof.json", lambda text: text.replace("promote", "log")),
        (PROOF, "proof.json", lambda text: text.replace('"index": 3', '"index": 2')),
        (PROOF, "proof.json", lambda text: text.replace('"path": ["', '"path": ["00')),
        (PROOF, "proof.json", lambda text: text.replace('"path": [', '"path": [7, ')),
        (PROOF, "proof.json", lambda text: text.replace('"entry"', '"old"')),
        (PROOF, "proof.json", lambda text: text[:-1]),
    ],
)
def test_the_independent_verifier_finds_tampering(
    arguments: tuple[str, ...], file: str, change: Callable[[str], str], audited: str, tmp_path: Path
) -> None:
    before = (tmp_path / file).read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    (tmp_path / file).write_text(after, encoding="utf-8")
    done = run(VERIFIER, *arguments, audited, cwd=tmp_path)

    assert done.returncode != 0
    assert "verified" not in done.stdout
    assert "TAMPERED" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_independent_verifier_says_of_how_many_entries_it_speaks(audited: str, tmp_path: Path) -> None:
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_text("".join([*lines, lines[-1]]), encoding="utf-8")
    done = run(VERIFIER, *WHOLE, audited, cwd=tmp_path)

    assert done.stdout == f"verified: as signed over {len(lines) - 1} entries of {len(lines) + 1}\n"


def test_the_independent_verifier_refuses_another_key(audited: str, tmp_path: Path) -> None:
    other = verifier_key(audited.partition("+")[0], b"k" * 32)
    done = run(VERIFIER, *WHOLE, str(other), cwd=tmp_path)

    assert done.returncode != 0
    assert "TAMPERED" in done.stderr


def ask(port: int, method: str, path: str, value: object = None) -> tuple[int, dict[str, str], dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return response.status, headers, json.loads(response.read())
    finally:
        connection.close()
