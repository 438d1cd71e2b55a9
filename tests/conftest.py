"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)  # no test asserts a time
settings.load_profile("here")

ROOT = Path(__file__).resolve().parent.parent


def _beside(name: str) -> Any:
    """The module of a file in this folder."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


# Where they work.
pytest_configure = _beside("places").pytest_configure
# One PostgreSQL for all: `postgres_server`, `postgres_url` (a new database), `own_postgres` (to be mistreated).
_servers = _beside("servers")
postgres_server = _servers.postgres_server
postgres_url = _servers.postgres_url
own_postgres = _servers.own_postgres
# S3 servers: `moto_server` (quick), `s3_server` (Ceph's gateway where it can be had), `s3_environment` (credentials).
_object_stores = _beside("object_stores")
moto_server = _object_stores.moto_server
s3_server = _object_stores.s3_server
s3_environment = _object_stores.s3_environment
bad_line = _object_stores.bad_line
# Servers that answer as a test says.
http = _beside("http_servers").http
# Files outside a registry, on a web server over TLS.
_outside = _beside("outside")
web = _outside.web
web_certificate = _outside.web_certificate
make_certificate = _outside.make_certificate
# A server, and something hostile before it.
_hostile = _beside("hostile")
plain_server = _hostile.plain_server
service = _hostile.service


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Tests and modules stay to the end: no collection of garbage, here or in a test, need look through them again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist ended: what it says of its S3 server is kept for the summary."""
    which = getattr(node, "workeroutput", {}).get("s3")
    if which:
        node.config.stash[_object_stores.WHICH] = which


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which S3 server the tests ran against."""
    which = config.stash.get(_object_stores.WHICH, "")
    if which:
        terminalreporter.write_line(f"S3 server of the tests: {which}")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real inputs that nobody here wrote; they lie beside the checkout, or where the variable says."""
    place = Path(os.environ.get("LLMARTIFACTS_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not place.is_dir():
        pytest.skip(f"REAL INPUTS MISSING: {place} (set LLMARTIFACTS_TEST_DATA)")
    return place


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the caller's registry, cache or configuration."""
    for name in [n for n in os.environ if n.startswith("LLMARTIFACTS_") and n != "LLMARTIFACTS_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "tester")
