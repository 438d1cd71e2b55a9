"""What is shipped to run the server over an S3 store fits what it is laid over, and every address in it is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmartifacts.blobs.objects.address import OPTIONS, parse_place
from llmartifacts.server.config import Settings, from_environment

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "object-store.md"
VALUE = re.compile(r"\$\{(\w+):\?([^}]*)\}")


@pytest.fixture(scope="module")
def laid_over() -> Any:
    return yaml.safe_load((DEPLOY / "compose.s3.yaml").read_text())


@pytest.fixture(scope="module")
def below() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_both_servers_of_compose_get_the_same_place_in_the_store(laid_over: Any, below: Any) -> None:
    servers = {name: laid_over["services"][name] for name in ("server-1", "server-2")}
    assert servers["server-1"] == servers["server-2"]
    environment = {**below["services"]["server-1"]["environment"], **servers["server-1"]["environment"]}
    told = Settings(**from_environment({k: v for k, v in environment.items() if isinstance(v, str)}))
    place = parse_place(told.blobs)
    assert place.endpoint == "http://store:9000"
    assert place.public == "no", "clients do not reach the inner network"
    made = laid_over["services"]["bucket"]["command"][0]
    assert f"mc mb --ignore-existing store/{place.bucket}" in made
    assert f"mc alias set store {place.endpoint}" in made
    assert environment["AWS_ACCESS_KEY_ID"] == laid_over["services"]["store"]["environment"]["MINIO_ROOT_USER"]


def test_secrets_are_asked_for_and_never_held(laid_over: Any) -> None:
    text = (DEPLOY / "compose.s3.yaml").read_text()
    asked = dict(VALUE.findall(text))
    assert asked.keys() == {"S3_SECRET_KEY"}
    assert all(asked.values()), "compose would go on without it"
    for service in laid_over["services"].values():
        for name, value in service["environment"].items():
            assert not re.search(r"PASSWORD|SECRET", name) or VALUE.fullmatch(value), name


def test_the_store_is_held_at_a_release_and_reached_from_inside_only(laid_over: Any, below: Any) -> None:
    for name in ("store", "bucket"):
        service = laid_over["services"][name]
        assert re.search(r":RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z$", service["image"])
        assert set(service["networks"]) <= set(below["networks"])
        assert service["networks"] == ["inside"]
        assert not {"ports", "privileged", "network_mode", "pid"} & set(service)
        assert service["cap_drop"] == ["ALL"]
    assert laid_over["services"]["store"]["volumes"] == ["objects:/data"]
    assert "objects" in laid_over["volumes"]
    needed = {n for s in laid_over["services"].values() for n in s.get("depends_on", {})}
    assert needed <= set(laid_over["services"])


def test_the_page_names_every_option_and_its_addresses_are_ones(below: Any) -> None:
    text = PAGE.read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert rows == {name for options in OPTIONS.values() for name in options}
    addresses = re.findall(r"`((?:s3|gs|az)://[\w./?=&:-]+)`", text)
    assert len(addresses) >= 4
    for address in addresses:
        parse_place(address)


def test_the_image_brings_the_library_of_the_store() -> None:
    assert "[server,s3]" in (DEPLOY / "Containerfile").read_text()
    assert re.search(r"^obstore==", (DEPLOY / "constraints.txt").read_text(), re.MULTILINE)
