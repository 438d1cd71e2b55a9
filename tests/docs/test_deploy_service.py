"""What is shipped to run a service somewhere is right, as far as that can be seen without a container engine.

The image of components is made by the very commands of its Containerfile, and what the init container does is done with
it; manifests and the unit are read as their tools read them; what is probed is what the routes of a service answer.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

import llmartifacts as la
from llmartifacts.blobs.eviction import parse_limit
from llmartifacts.integrations.fastapi import health
from llmartifacts.runtime.resolver import Resolver

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICE = ROOT / "deploy" / "service"
UNIT = SERVICE / "support.service"
CONTAINERFILE = SERVICE / "Containerfile.components"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PROGRAM = str(Path(sys.executable).with_name("llmartifacts"))
START_SECONDS = 60.0


def objects() -> dict[str, Any]:
    """Every object, by kind."""
    folder = SERVICE / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert set(listed) == {p.name for p in folder.iterdir()} - {"kustomization.yaml"}
    made = [yaml.safe_load((folder / name).read_text()) for name in listed]
    return {each["kind"]: each for each in made}


OBJECTS = objects()
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
(INIT,) = POD["initContainers"]
(MAIN,) = POD["containers"]


def instructions() -> list[tuple[str, str]]:
    """The Containerfile, an instruction each."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    """A registry, and a folder in which a lockfile of it lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as registry:
        (tmp_path / "terms.txt").write_text("thirty days\n" * 100)
        registry.log("support-agent", la.Prompt("{{ question }}", template_format="jinja2"), aliases="prod")
        registry.log("terms", la.Files({"terms.txt": tmp_path / "terms.txt"}), aliases="prod")
        words = ["--registry", "registry", "lock", "agent=support-agent:prod", "terms=terms:prod"]
        subprocess.run([PROGRAM, *words], check=True, capture_output=True)
        yield registry


# --- the image of components


def test_its_commands_make_a_folder_that_a_service_falls_back_to_with_no_registry(
    locked: la.Registry, tmp_path: Path
) -> None:
    (fetch,) = [rest for name, rest in instructions() if name == "RUN"]
    mount, _, command = fetch.partition(" ")
    assert mount == "--mount=type=secret,id=token,env=LLMARTIFACTS_TOKEN,required=true"
    places = {"${REGISTRY}": "registry", "/tmp/": f"{tmp_path}/image-"}
    for told, here in places.items():
        command = command.replace(told, here)
    subprocess.run(command.replace("llmartifacts install", f"{PROGRAM} install"), shell=True, check=True, cwd=tmp_path)
    packed = tmp_path / "image-components"
    image = {name: rest for name, rest in instructions() if name in ("ENTRYPOINT", "CMD")}
    assert json.loads(image["ENTRYPOINT"]) == ["llmartifacts"]
    assert json.loads(image["CMD"]) == INIT["args"]
    assert "ENV LLMARTIFACTS_CACHE=/opt/components" in CONTAINERFILE.read_text()
    locked.close()
    shutil.rmtree(tmp_path / "registry")

    out = tmp_path / "components"
    arguments = [
        word.replace("/opt/components", str(packed)).replace("/components", str(out)) if "image-" not in word else word
        for word in INIT["args"]
    ]
    environment = {**os.environ, "LLMARTIFACTS_CACHE": str(packed), "LLMARTIFACTS_REGISTRY": "nowhere"}
    done = subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = {"agent": "support-agent:prod", "terms": "terms:prod"}
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with Resolver(wanted, registry=tmp_path / "registry", fallback=out, startup_timeout=START_SECONDS) as resolver:
        assert resolver.current.source == "fallback"
        assert resolver.current.value["agent"].format(question="Why?") == "Why?"


def test_a_byte_of_the_image_that_is_wrong_ends_the_init_container(locked: la.Registry, tmp_path: Path) -> None:
    subprocess.run([PROGRAM, "--registry", "registry", "install", "--to", "packed"], check=True, capture_output=True)
    largest = max((p for p in Path("packed/sha256").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1] + b"x")
    environment = {**os.environ, "LLMARTIFACTS_CACHE": str(tmp_path / "packed")}
    command = [PROGRAM, "install", "--frozen", "--to", "out", "packed/llmartifacts.lock"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stdout + done.stderr
    assert not Path("out/llmartifacts.lock").exists(), "no service starts from what is not whole"


def test_the_image_of_components_holds_no_secret_and_stands_on_this_release() -> None:
    named = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest)
    assert named == {"LLMARTIFACTS_IMAGE": f"registry.example.org/llmartifacts:{VERSION}"}
    assert [rest.split()[0] for name, rest in instructions() if name == "FROM"] == ["${LLMARTIFACTS_IMAGE}"] * 2
    assert not [rest for name, rest in instructions() if name in ("ENV", "ARG") and "TOKEN" in rest]
    assert [rest for name, rest in instructions() if name == "COPY"] == [
        "llmartifacts.lock ./llmartifacts.lock",
        "--from=fetch /tmp/components /opt/components",
    ]


# --- Kubernetes


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_every_object_is_one_that_kubernetes_takes(kind: str) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(OBJECTS[kind], kubernetes_validate.latest_version(), strict=True)
    if kind != "Namespace":
        assert OBJECTS[kind]["metadata"]["namespace"] == OBJECTS["Namespace"]["metadata"]["name"]


def test_the_kustomization_names_the_image_of_each_container() -> None:
    told = yaml.safe_load((SERVICE / "kubernetes" / "kustomization.yaml").read_text())
    assert {image["name"] for image in told["images"]} == {INIT["image"], MAIN["image"]}
    assert told["namespace"] == OBJECTS["Namespace"]["metadata"]["name"]


def test_the_pods_meet_the_restricted_profile_with_a_root_file_system_that_is_read_only() -> None:
    assert OBJECTS["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    context = POD["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (INIT, MAIN):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
    assert POD["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)


def test_what_the_init_container_lays_out_is_what_the_service_falls_back_to_and_may_not_change() -> None:
    (out,) = [word for before, word in zip(INIT["args"], INIT["args"][1:], strict=False) if before == "--to"]
    settings = OBJECTS["ConfigMap"]["data"]
    assert settings["LLMARTIFACTS_FALLBACK"] == out
    written = {m["mountPath"]: m for m in INIT["volumeMounts"]}
    read = {m["mountPath"]: m for m in MAIN["volumeMounts"]}
    assert written[out]["name"] == read[out]["name"]
    assert read[out]["readOnly"] is True
    assert "readOnly" not in read[settings["LLMARTIFACTS_CACHE"]]
    assert any(settings["REQUESTS_CA_BUNDLE"].startswith(f"{path}/") for path in read)
    assert "--frozen" in INIT["args"]
    assert not INIT.get("env")
    assert not INIT.get("envFrom")
    volumes = {v["name"]: v for v in POD["volumes"]}
    assert volumes.keys() == {m["name"] for m in [*INIT["volumeMounts"], *MAIN["volumeMounts"]]}
    assert parse_limit(settings["LLMARTIFACTS_CACHE_LIMIT"]) < parse_limit("20GB")


def routes() -> set[str]:
    return {route.path for route in health(la.Resolver({"agent": "support-agent:prod"})).routes}  # type: ignore[attr-defined]


def test_the_probes_ask_what_a_service_answers_and_wait_for_a_start_as_long_as_it_may_take() -> None:
    (port,) = MAIN["ports"]
    for name, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        asked = MAIN[name]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, port["name"])
        assert path in routes()
    patience = MAIN["startupProbe"]["periodSeconds"] * MAIN["startupProbe"]["failureThreshold"]
    assert patience > START_SECONDS
    assert MAIN["command"][MAIN["command"].index("--port") + 1] == str(port["containerPort"])
    (service,) = OBJECTS["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    assert OBJECTS["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]


def test_the_service_is_let_through_to_the_registry_that_deploy_kubernetes_runs() -> None:
    server = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "service.yaml").read_text())
    registry = server["metadata"]
    (port,) = server["spec"]["ports"]
    address = f"https://{registry['name']}.{registry['namespace']}.svc:{port['port']}"
    assert OBJECTS["ConfigMap"]["data"]["LLMARTIFACTS_REGISTRY"] == address
    policy = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "network.yaml").read_text())["spec"]["ingress"][0]
    wanted = policy["from"][0]["namespaceSelector"]["matchLabels"]
    assert wanted.items() <= OBJECTS["Namespace"]["metadata"]["labels"].items()
    out = OBJECTS["NetworkPolicy"]["spec"]["egress"]
    assert {"port": policy["ports"][0]["port"], "protocol": "TCP"} in [p for rule in out for p in rule["ports"]]


def test_secrets_are_named_and_never_held() -> None:
    text = "\n".join(p.read_text() for p in sorted((SERVICE / "kubernetes").iterdir()))
    assert "kind: Secret\n" not in text
    (token,) = MAIN["env"]
    secret = token["valueFrom"]["secretKeyRef"]
    told = (ROOT / "docs" / "service.md").read_text()
    for name in (secret["name"], "support-registry-ca"):
        assert name in told, f"how to make {name} is not told"


def test_a_pod_ends_after_what_it_works_on_and_one_stays_whatever_is_drained() -> None:
    pause = float(MAIN["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause < POD["terminationGracePeriodSeconds"]
    assert OBJECTS["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"],
        OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        OBJECTS["Service"]["spec"]["selector"],
        OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


# --- systemd


def unit() -> dict[str, list[str]]:
    """Every setting of the unit, in order; all sections have different ones."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_is_one_that_systemd_takes_and_leaves_the_service_few_rights(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("SYSTEMD-ANALYZE MISSING: the unit was looked at, and not read by it (apt-get install systemd)")
    # Its programs are not here; everything else is as it is shipped.
    here = UNIT.read_text().replace("/opt/support/bin/python", sys.executable).replace("/usr/bin/curl", "/bin/true")
    (tmp_path / UNIT.name).write_text(here)
    done = subprocess.run(
        [tool, "verify", "--man=no", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    rated = subprocess.run(
        [tool, "security", "--offline=yes", "--threshold=20", "--no-pager", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout


def test_the_unit_starts_a_service_waits_until_it_is_ready_and_holds_no_secret() -> None:
    told = unit()
    words = shlex.split(told["ExecStart"][0])
    assert words[1:4] == ["-m", "uvicorn", "app:app"]
    address = f"http://{words[words.index('--host') + 1]}:{words[words.index('--port') + 1]}"
    asked = shlex.split(told["ExecStartPost"][0])
    assert asked[-1] == f"{address}/readyz"
    assert "/readyz" in routes()
    patience = float(asked[asked.index("--retry") + 1])
    assert START_SECONDS < patience < float(told["TimeoutStartSec"][0])
    environment = dict(value.split("=", 1) for value in told["Environment"])
    assert environment["LLMARTIFACTS_CACHE"] == f"/var/cache/{told['CacheDirectory'][0]}"
    assert not [name for name in environment if "TOKEN" in name]
    assert told["EnvironmentFile"] == ["/etc/support/token"]
    assert (ROOT / "docs" / "service.md").read_text().count("/etc/support/token")
    assert told["DynamicUser"] == ["yes"]
    assert told["ProtectSystem"] == ["strict"]
    assert told["Type"] == ["exec"], "uvicorn does not tell systemd when it is ready"


@pytest.mark.matrix
def test_what_the_unit_starts_is_ready_from_its_fallback_with_no_registry_and_ends_when_told(tmp_path: Path) -> None:
    example = ROOT / "examples" / "03_service_fastapi"
    kept = {**os.environ, "LLMARTIFACTS_CACHE": str(tmp_path / "other-cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def done(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, env=kept, check=True, capture_output=True)

    done(sys.executable, str(example / "prepare.py"))
    done(
        PROGRAM,
        "--registry",
        "registry",
        "lock",
        "prompt=rag-answer:prod",
        "kb=python-kb:prod",
        "models=python-models:prod",
    )
    done(PROGRAM, "--registry", "registry", "install", "--to", "components")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def here(text: str) -> list[str]:
        return [
            sys.executable if w == "/opt/support/bin/python" else w for w in shlex.split(text.replace("8000", port))
        ]

    told = unit()
    places = {"/var/cache/support": "cache", "/opt/support/components": "components"}
    given = dict(value.split("=", 1) for value in told["Environment"])
    given |= {name: str(tmp_path / places[value]) for name, value in given.items() if value in places}
    given["LLMARTIFACTS_REGISTRY"] = "http://127.0.0.1:1"  # nobody is there
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            here(told["ExecStart"][0]), cwd=example, env={**kept, **given}, stdout=log, stderr=log
        )
    try:
        if shutil.which("curl"):
            waited = subprocess.run(here(told["ExecStartPost"][0]), capture_output=True, text=True, check=False)
            assert waited.returncode == 0, waited.stderr + (tmp_path / "log").read_text()
        status = json.loads(answered(f"http://127.0.0.1:{port}/readyz"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(float(told["TimeoutStopSec"][0])) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    assert (status["state"], status["ready"], status["code"]) == ("STALE", True, "fallback")
    assert "prompt=rag-answer:v1@" in status["stamp"]


def answered(url: str) -> str:
    """The answer of somebody who may still be starting."""
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
