"""What is shipped to run the server somewhere is right, as far as that can be seen without a container engine.

The steps of the Containerfile are taken in a temporary folder that holds what the file copies and nothing else; compose
and Kubernetes files are read as their tools read them, and every setting in them is one that the server takes.
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
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmartifacts.blobs.eviction import parse_limit
from llmartifacts.server.config import VARIABLES, Settings, from_environment

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
SERVERS = ("server-1", "server-2")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL", re.IGNORECASE)
GIVEN = {
    "POSTGRES_PASSWORD": "p",
    "LLMARTIFACTS_HOST": "registry.example.org",
    "TLS_CERTIFICATE": "tls.crt",
    "TLS_KEY": "tls.key",
}


def instructions() -> list[tuple[str, str]]:
    """The Containerfile, an instruction each: its name, and the rest in one line."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def stages() -> list[list[tuple[str, str]]]:
    """Its stages, each from its FROM on."""
    made: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            made.append([])
        if made:
            made[-1].append((name, rest))
    return made


def one(name: str) -> str:
    """The only instruction of that name in the last stage."""
    (found,) = [rest for each, rest in stages()[-1] if each == name]
    return found


# --- the image


def test_the_image_stands_on_a_release_of_python_that_is_named_to_the_last_digit() -> None:
    named = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", named["PYTHON_IMAGE"])
    version = re.search(r":(\d+\.\d+)", named["PYTHON_IMAGE"])
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]
    assert [rest.partition(" ")[0] for name, rest in instructions() if name == "FROM"] == ["${PYTHON_IMAGE}"] * 2


def test_the_server_runs_as_a_fixed_user_without_rights_and_looks_at_its_own_readiness() -> None:
    assert one("USER") == "10001:10001"
    assert "useradd --uid 10001" in one("RUN")
    assert json.loads(one("ENTRYPOINT")) == ["llmartifacts", "serve"]
    assert "/readyz" in one("HEALTHCHECK")
    assert one("STOPSIGNAL") == "SIGTERM"
    order = [name for name, _ in stages()[-1]]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))


def test_the_image_holds_no_secret_and_nothing_that_is_fetched_beside_the_packages() -> None:
    assert not [rest for name, rest in instructions() if name in ("ENV", "ARG", "LABEL") and SECRET.search(rest)]
    assert "ADD" not in [name for name, _ in instructions()]
    assert not re.search(r"https?://(?!127\.0\.0\.1)|\bcurl\b|\bwget\b", (DEPLOY / "Containerfile").read_text())


def test_all_that_is_copied_is_there_and_let_into_the_build() -> None:
    allowed = {
        line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {source for name, rest in stages()[0] if name == "COPY" for source in rest.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= copied


def closure(name: str, extras: frozenset[str], found: dict[str, Requirement]) -> None:
    """Every requirement of a distribution on the image's Python, those of its requirements too."""
    image = {"python_version": "3.12", "python_full_version": "3.12.11", "sys_platform": "linux", "os_name": "posix"}
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({**image, "extra": extra}) for extra in (*extras, "")
        )
        key = f"{canonicalize_name(requirement.name)}[{','.join(sorted(requirement.extras))}]"
        if not wanted:
            continue
        again = key in found
        found[f"{key} {requirement.specifier} of {name}"] = requirement
        if not again:
            found[key] = requirement
            try:
                closure(requirement.name, frozenset(requirement.extras), found)
            except PackageNotFoundError:
                pytest.fail(f"{requirement} is not installed here: make the environment anew")


def test_every_package_of_the_image_is_held_at_one_release_that_fits() -> None:
    lines = [line for line in (DEPLOY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    held = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert lines == [f"{name}=={version}" for name, version in sorted(held.items())]
    assert all(held.values())
    found: dict[str, Requirement] = {}
    closure("llmartifacts", frozenset({"server", "s3"}), found)
    assert len(found) > 40
    building = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    for requirement in (*found.values(), *building):
        version = held.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in deploy/constraints.txt"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, and {version} is held"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built as the file says, from what it copies alone, and put where Python finds it first."""
    place = tmp_path_factory.mktemp("image")
    source = place / "src"
    for name, rest in stages()[0]:
        if name == "COPY":
            *sources, target = rest.split()
            for given in sources:
                goal = source / target / Path(given).name if target.endswith("/") else source / target
                goal.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / given).is_dir():
                    shutil.copytree(ROOT / given, goal, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / given, goal)
    (build,) = [rest for name, rest in stages()[0] if name == "RUN" and " wheel " in rest]
    command = shlex.split(build.replace("/dist", str(place / "dist")))
    assert command[:4] == ["python", "-m", "pip", "wheel"]
    # Without a network: what builds it is installed here already, as the constraints of the file have it.
    run([sys.executable, *command[1:], "--no-build-isolation", "--quiet"], cwd=source)
    (wheel,) = (place / "dist").glob("llmartifacts-*.whl")
    assert wheel.name.startswith(f"llmartifacts-{VERSION}-")
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place / "site"), str(wheel)])
    return place / "site"


@pytest.mark.slow
def test_the_wheel_of_the_image_has_all_that_the_package_has(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}

    there = files(installed / "llmartifacts")
    starter = {name for name in there if name.startswith("starter/")}
    assert there - starter == files(ROOT / "llmartifacts")
    assert starter
    assert (installed / "bin" / "llmartifacts").exists()


def run(command: list[str], **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, **options)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def read_only_root(place: Path, command: list[str]) -> list[str]:
    """The command with everything read-only but a folder, where this machine lets it; else the command as it is."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'
    wrapped = ["unshare", "--mount", "sh", "-c", script, str(place)]
    if shutil.which("unshare") is None or os.geteuid():
        return command
    tried = subprocess.run([*wrapped, "sh", "-c", f"touch {place}/x && ! touch /x"], capture_output=True, check=False)
    return [*wrapped, *command] if tried.returncode == 0 else command


@pytest.mark.slow
def test_what_the_image_starts_gets_healthy_with_a_root_file_system_that_is_read_only(
    installed: Path, compose: Any, postgres_server: Any, postgres_url: str, tmp_path: Path
) -> None:
    lib, cache, home = (tmp_path / name for name in ("lib", "cache", "home"))
    for folder in (lib, cache, home):
        folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    before, _, after = postgres_url.rpartition("@")
    user, password = before.removeprefix("postgresql://").split(":")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LLMARTIFACTS_")},
        **compose["services"]["server-1"]["environment"],
        "LLMARTIFACTS_SERVE_DATABASE": f"postgresql://{user}@{after}",
        "LLMARTIFACTS_SERVE_BLOBS": str(lib / "blobs"),
        "LLMARTIFACTS_SERVE_DRAIN_SECONDS": "0",
        "PGPASSWORD": unquote(password),
        "LLMARTIFACTS_CACHE": str(cache),
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    program, *rest = json.loads(one("ENTRYPOINT"))
    command = [str(installed / "bin" / program), *rest, *json.loads(one("CMD")), "--port", port]
    check = json.loads(one("HEALTHCHECK").partition(" CMD ")[2])
    healthy = [sys.executable, *(word.replace("8391", port) for word in check[1:])]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            read_only_root(tmp_path, command), cwd=lib, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                found = subprocess.run(healthy, capture_output=True, text=True, check=False)
                if found.returncode == 0 or process.poll() is not None:
                    break
                time.sleep(0.05)
            assert found.returncode == 0, (tmp_path / "log").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert told[0]["event"] == "first_token"
    assert not [line for line in told[1:] if told[0]["token"] in json.dumps(line)]
    assert unquote(password) not in (tmp_path / "log").read_text()
    assert not list(home.iterdir()), "it leaves nothing in its home"
    assert {p.name for p in lib.iterdir()} == {"blobs"}


@pytest.mark.slow
def test_what_looks_at_its_health_says_no_where_nobody_answers() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    check = json.loads(one("HEALTHCHECK").partition(" CMD ")[2])
    done = subprocess.run(
        [sys.executable, *(w.replace("8391", port) for w in check[1:])], capture_output=True, check=False
    )
    assert done.returncode != 0


# --- compose


def substituted(text: str) -> str:
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: GIVEN[found[1]], text)


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(substituted((DEPLOY / "compose.yaml").read_text()))


def test_what_compose_needs_to_know_has_no_default_and_is_asked_for_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    asked = dict(re.findall(r"\$\{(\w+)(:\?[^}]+)?\}", text))
    example = dict(
        line.split("=", 1) for line in (DEPLOY / "env.example").read_text().splitlines() if line and line[0] != "#"
    )
    assert asked.keys() == example.keys() == GIVEN.keys()
    assert all(asked.values()), "compose would go on without it"
    assert not any(example.values()), "a value that is shipped is a secret of everybody"
    assert not re.search(r"\$(?![{])", text)


def test_both_servers_have_no_rights_and_nothing_of_their_own_but_a_cache(compose: Any) -> None:
    for name in SERVERS:
        server = compose["services"][name]
        assert server["image"] == f"llmartifacts:{VERSION}"
        assert server["read_only"] is True
        assert server["cap_drop"] == ["ALL"]
        assert server["security_opt"] == ["no-new-privileges:true"]
        assert not {"ports", "privileged", "network_mode", "pid", "user", "command"} & set(server)
        assert server["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        mounted = dict(volume.split(":")[:2] for volume in server["volumes"])
        assert sorted(mounted.values()) == ["/var/cache/llmartifacts", "/var/lib/llmartifacts"]
        assert mounted["blobs"] == "/var/lib/llmartifacts"
        assert (DEPLOY / server["build"]["context"]).resolve() == ROOT
        assert (ROOT / server["build"]["dockerfile"]).is_file()
    first, second = ({**compose["services"][name], "volumes": None} for name in SERVERS)
    assert first == second


def test_every_image_is_named_to_the_last_digit_and_every_volume_and_network_is_declared(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source.startswith("./") or source in GIVEN.values()
        assert set(service["networks"]) <= set(compose["networks"])
    published = [name for name, service in compose["services"].items() if "ports" in service]
    assert published == ["proxy"]
    assert compose["networks"]["inside"]["internal"] is True
    assert "outside" not in compose["services"]["postgres"]["networks"]
    assert "pg_isready" in str(compose["services"]["postgres"]["healthcheck"]["test"])


def settings(environment: dict[str, str]) -> Settings:
    """What a server would be told; every variable of its own is one that it knows."""
    known = {VARIABLES + name.upper() for name in Settings.__dataclass_fields__}
    assert {name for name in environment if name.startswith(VARIABLES)} <= known
    return Settings(**from_environment(environment))


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_the_servers_take_every_setting_that_compose_gives_them(compose: Any) -> None:
    server = compose["services"]["server-1"]
    told = settings({**server["environment"], f"{VARIABLES}HOST": "0.0.0.0"}).checked()
    assert told.database
    assert "@postgres:" in told.database
    assert told.public_url == f"https://{GIVEN['LLMARTIFACTS_HOST']}"
    assert Path(told.blobs).parent == Path("/var/lib/llmartifacts")
    assert told.trusted_proxies == (compose["services"]["proxy"]["networks"]["inside"]["ipv4_address"],)
    assert told.authenticate
    assert told.drain_seconds + told.grace_seconds < seconds(server["stop_grace_period"])
    parse_limit(server["environment"]["LLMARTIFACTS_CACHE_LIMIT"])
    assert "p@" not in told.database, "the password comes by PGPASSWORD, so that no log shows it"


def test_the_proxy_asks_both_servers_and_looks_at_their_readiness(compose: Any) -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    (upstreams,) = re.findall(r"reverse_proxy (.+) \{", text)
    assert upstreams.split() == [f"{name}:8391" for name in SERVERS]
    assert "health_uri /readyz" in text
    assert "health_headers" in text, "a server answers no name that is not its own"
    (published,) = compose["services"]["proxy"]["ports"]
    assert f"https_port {published.split(':')[1]}" in text
    mounted = {volume.split(":")[1] for volume in compose["services"]["proxy"]["volumes"]}
    assert set(re.findall(r"/etc/caddy/\S+", text)) < mounted


def test_the_proxy_understands_its_file() -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("CADDY MISSING: its file was looked at, and not read by it (apt-get install caddy)")
    told = json.loads(
        run([caddy, "adapt", "--config", str(DEPLOY / "Caddyfile")], env={**os.environ, "LLMARTIFACTS_HOST": "r.org"})
    )
    assert "server-2:8391" in json.dumps(told)


# --- Kubernetes


def kubernetes() -> dict[str, Any]:
    """Every object, by kind."""
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    made = [yaml.safe_load((DEPLOY / "kubernetes" / name).read_text()) for name in listed]
    return {each["kind"]: each for each in made}


OBJECTS = kubernetes()


def test_the_kustomization_names_every_file_and_the_image_of_this_release() -> None:
    told = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert set(told["resources"]) == {p.name for p in (DEPLOY / "kubernetes").iterdir()} - {"kustomization.yaml"}
    (image,) = told["images"]
    assert str(image["newTag"]) == VERSION
    assert image["name"] == container()["image"]
    assert OBJECTS.keys() == {
        *("Namespace", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    }


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_every_object_is_one_that_kubernetes_takes(kind: str) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(OBJECTS[kind], kubernetes_validate.latest_version(), strict=True)
    if kind != "Namespace":
        assert OBJECTS[kind]["metadata"]["namespace"] == OBJECTS["Namespace"]["metadata"]["name"]


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    import kubernetes_validate

    broken = {**OBJECTS["Deployment"], "spec": {**OBJECTS["Deployment"]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def pod() -> Any:
    return OBJECTS["Deployment"]["spec"]["template"]["spec"]


def container() -> Any:
    (found,) = pod()["containers"]
    return found


def test_the_pods_meet_the_restricted_profile_with_a_root_file_system_that_is_read_only() -> None:
    assert OBJECTS["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (
        pod()["securityContext"].items()
        >= {
            "runAsNonRoot": True,
            "runAsUser": int(one("USER").partition(":")[0]),
            "seccompProfile": {"type": "RuntimeDefault"},
        }.items()
    )
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    resources = container()["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


def test_what_the_pods_mount_is_what_the_image_writes_to_and_what_the_settings_name() -> None:
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert mounts.keys() == volumes.keys()
    writable = {mount["mountPath"] for mount in mounts.values() if not mount.get("readOnly")}
    assert writable == {"/var/lib/llmartifacts", "/var/cache/llmartifacts", "/tmp"}
    claim = OBJECTS["PersistentVolumeClaim"]
    assert volumes["blobs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    told = settings(OBJECTS["ConfigMap"]["data"])
    for path in (told.blobs, told.tls_cert, told.tls_key, told.database.partition("sslrootcert=")[2]):
        assert any(path.startswith(f"{mount['mountPath']}/") for mount in mounts.values()), path


def test_the_servers_take_every_setting_of_the_config_map(tmp_path: Path) -> None:
    data = OBJECTS["ConfigMap"]["data"]
    told = settings(data)
    assert told.database
    assert "sslmode=verify-full" in told.database
    assert ":" not in told.database.partition("://")[2].partition("@")[0], "no password"
    pair = {f"{VARIABLES}{name}": str(tmp_path / name) for name in ("TLS_CERT", "TLS_KEY")}
    for path in pair.values():
        Path(path).touch()
    checked = settings({**data, **pair}).checked()
    service = OBJECTS["Service"]["metadata"]
    assert f"{service['name']}.{service['namespace']}.svc" in checked.hosts
    assert "localhost" in checked.hosts
    parse_limit(data["LLMARTIFACTS_CACHE_LIMIT"])
    assert str(told.port) == str(container()["ports"][0]["containerPort"])


def test_secrets_are_named_and_never_held() -> None:
    text = "\n".join(p.read_text() for p in sorted((DEPLOY / "kubernetes").iterdir()))
    assert "kind: Secret\n" not in text
    (password,) = container()["env"]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "llmartifacts-database", "key": "password"}
    named = {"llmartifacts-database", "llmartifacts-tls", "llmartifacts-postgres-ca"}
    told = (ROOT / "docs" / "team.md").read_text()
    assert all(f"{name}" in told for name in named), "how to make them is not told"
    assert not [name for name in OBJECTS["ConfigMap"]["data"] if SECRET.search(name)]


def test_one_server_stays_whatever_is_drained_or_upgraded() -> None:
    deployment = OBJECTS["Deployment"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert OBJECTS["PodDisruptionBudget"]["spec"]["minAvailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        OBJECTS["Service"]["spec"]["selector"],
        OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_a_pod_ends_after_what_it_works_on_and_before_it_is_killed() -> None:
    told = settings(OBJECTS["ConfigMap"]["data"])
    pause = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + told.drain_seconds + told.grace_seconds < pod()["terminationGracePeriodSeconds"]


def test_the_probes_ask_what_the_server_answers() -> None:
    (port,) = container()["ports"]
    for name, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        asked = container()[name]["httpGet"]
        assert (asked["path"], asked["port"], asked["scheme"]) == (path, port["name"], "HTTPS")
        assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
    (service,) = OBJECTS["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    assert OBJECTS["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]
