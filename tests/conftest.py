"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)  # no test asserts a time
settings.load_profile("here")

ROOT = Path(__file__).resolve().parent.parent


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
    monkeypatch.setenv("LLMARTIFACTS_ACTOR", "tester")
