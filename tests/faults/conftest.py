"""strace, where it is and may trace."""

from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def strace() -> str:
    found = shutil.which("strace")
    if not found:
        pytest.skip("STRACE MISSING: faults of system calls are not tested (apt-get install strace)")
    probe = subprocess.run(
        [found, "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"STRACE CANNOT TRACE here: {probe.stderr.strip()}")
    return found
