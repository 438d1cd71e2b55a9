"""What tests of evaluations share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def gate_reference(shared_data: Path) -> Any:
    """Another implementation of the statistics, where it lies beside the real inputs."""
    place = shared_data.parent / "reference" / "gate_ref.py"
    if not place.is_file():
        pytest.skip(f"REFERENCE CODE MISSING: {place}")
    spec = importlib.util.spec_from_file_location("gate_ref", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
