"""`make check`: no source file past 600 lines, and nothing tracked that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CAP = 600
ROOT = Path(__file__).resolve().parents[2]
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/\w")


def problems() -> list[str]:
    """What is wrong, one readable line each."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    files = [ROOT / name for name in tracked] or list(ROOT.glob("llmartifacts/**/*.py"))
    found = []
    for file in files:
        if file.suffix not in (".py", ".md", ".toml", ".yaml", ".yml", ".j2", "") or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        name = file.relative_to(ROOT)
        if file.suffix == ".py" and name.parts[0] == "llmartifacts" and len(text.splitlines()) > CAP:
            found.append(f"{name}: {len(text.splitlines())} lines, the cap is {CAP}")
        found += [
            f"{name}:{number}: names a path of one machine"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE_PATH.search(line) and file != Path(__file__).resolve()
        ]
    return found


if __name__ == "__main__":
    told = problems()
    print("\n".join(told) or "file cap and machine paths: ok")
    sys.exit(bool(told))
