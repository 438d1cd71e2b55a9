"""What the stories share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def github() -> Any:
    """Runs composite actions; the module `github_action.py` beside this."""
    spec = importlib.util.spec_from_file_location("github_action", Path(__file__).with_name("github_action.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
