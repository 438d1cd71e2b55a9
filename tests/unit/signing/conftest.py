"""Keys, and envelopes that are sealed over whatever a test wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmartifacts.signing.keys import PrivateKey


@pytest.fixture(scope="session")
def ada() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture(scope="session")
def eve() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of this machine's keys, not there yet."""
    place = tmp_path / "config" / "keys"
    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(place))
    monkeypatch.delenv("LLMARTIFACTS_KEY_PASSPHRASE", raising=False)
    return place
