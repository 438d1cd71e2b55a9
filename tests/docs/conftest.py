"""Makes `running`, which lies beside the tests of pages, importable for them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "running" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("running", Path(__file__).with_name("running.py"))
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["running"] = _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
