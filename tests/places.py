"""Where the tests work: in memory where there is plenty of it, as most of their time goes into making files durable.

What is written, in which order, and what is made durable is the same; so are the system calls, of which the fault tests
let one after another fail. Only the wait for the disk is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_PLENTY = 12 << 30
"""Bytes that are free, of the folder and of the machine, before it is used."""


def pytest_configure(config: pytest.Config) -> None:
    """Before anything asks for a temporary folder; the workers of xdist have it from whoever starts them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # begun in the background; what we start is not
    if hasattr(config, "workerinput") or "TMPDIR" in os.environ or config.option.basetemp or not _is_plenty():
        return
    made = tempfile.mkdtemp(prefix="llmartifacts-tests-", dir=_MEMORY)
    os.chmod(made, 0o1777)  # as any such folder: PostgreSQL runs as somebody else
    os.environ["TMPDIR"], tempfile.tempdir = made, None
    config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))


def _is_plenty() -> bool:
    try:
        found = os.statvfs(_MEMORY)
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return False
    available = int(memory.partition("MemAvailable:")[2].split()[0]) * 1024
    usable = os.access(_MEMORY, os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return usable and min(found.f_bavail * found.f_frsize, available) >= _PLENTY
