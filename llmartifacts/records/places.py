"""Where this user's own files of the package lie: tokens, and keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG = "LLMARTIFACTS_CONFIG"


def config_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the user's configuration: `$LLMARTIFACTS_CONFIG`, else `llmartifacts` where the system has such.

    Args:
        environ: Variables to look in; those of the process by default.
    """
    named = (os.environ if environ is None else environ).get(CONFIG)
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_config_path("llmartifacts", appauthor=False)
