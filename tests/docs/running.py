"""Pages that are executed: Python blocks in order in one session, console blocks by the shell, their output compared.

After the language a block may say `exit-3` (how its commands end), `running` (its command is a server, which goes on
until the end of the page), or `not-run` (with a comment above it that says why).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)(?: ([\w-]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 60.0


@dataclass
class Block:
    language: str
    mark: str
    text: str
    line: int
    heading: str = ""


def blocks(path: Path) -> list[Block]:
    """Every block of a page, with the heading that it stands under."""
    text = path.read_text(encoding="utf-8")
    made = []
    for found in FENCE.finditer(text):
        outside = FENCE.sub("", text[: found.start()])
        headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
        line = text[: found.start()].count("\n") + 2
        made.append(Block(found[1], found[2] or "", found[3], line, headings[-1] if headings else ""))
    return made


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it is said to print."""
    made = []
    for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        made.append((command, shown))
    return made


def matches(shown: str, printed: str, *, begins: bool = False) -> bool:
    """Whether output is what a page shows; `…` stands for anything on one line, a line `…` for any lines."""
    pattern = ""
    for line in shown.rstrip("\n").split("\n"):
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r"[ \t]*\n"
    match = re.match if begins else re.fullmatch
    return match(pattern, printed.rstrip("\n") + "\n") is not None


class Page:
    """One page, as it is gone through from top to bottom.

    Args:
        path: The page.
        place: Folder to work in.
        environment: Variables that its commands find.
        replaced: What is written otherwise here than on the page, such as ports that must be free.
    """

    def __init__(
        self, path: Path, place: Path, environment: Mapping[str, str] = {}, replaced: Mapping[str, str] = {}
    ) -> None:
        self._path = path
        self._place = place
        self._replaced = replaced
        self.servers: list[subprocess.Popen[str]] = []
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "110",
            "NO_COLOR": "1",
            "TERM": "dumb",
            **environment,
        }

    def run(self, *, heading: str = "") -> int:
        """Run every block, or those under one heading; returns how many."""
        session = types.ModuleType("page")
        sys.modules["page"] = session  # dataclasses look their module up
        ran = 0
        try:
            for block in blocks(self._path):
                if block.mark == "not-run" or (heading and block.heading != heading):
                    continue
                if block.language == "python":
                    text = "\n" * (block.line - 1) + self._here(block.text)
                    exec(compile(text, self._path.name, "exec"), session.__dict__)
                    ran += 1
                elif block.language == "console":
                    self._console(block)
                    ran += 1
            return ran
        finally:
            del sys.modules["page"]

    def _here(self, text: str) -> str:
        for told, used in self._replaced.items():
            text = text.replace(told, used)
        return text

    def _console(self, block: Block) -> None:
        for command, shown in commands(block):
            where = f"{self._path.name} line {block.line}: {command}"
            command, shown = self._here(command), self._here(shown)
            if block.mark == "running":
                self._serve(command, shown, where)
                continue
            exported = re.match(r"export (\w+)=(\S+);", command)
            if exported:
                self._environment[exported[1]] = exported[2]
            done = subprocess.run(
                command,
                shell=True,
                executable="/bin/bash",
                cwd=self._place,
                env=self._environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            printed = done.stdout + done.stderr
            wanted = int(block.mark.removeprefix("exit-")) if block.mark.startswith("exit-") else 0
            assert done.returncode == wanted, f"{where}\n{printed}"
            if shown.strip():
                assert matches(shown, printed), f"{where}\n--- printed\n{printed}"

    def _serve(self, command: str, shown: str, where: str) -> None:
        with tempfile.NamedTemporaryFile(dir=self._place, suffix=".out", delete=False) as file:
            server = subprocess.Popen(
                command,
                shell=True,
                executable="/bin/bash",
                cwd=self._place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        self.servers.append(server)
        printed = Path(file.name)
        begin = time.monotonic()
        while not (printed.read_text() and matches(shown, printed.read_text(), begins=True)):
            ended = server.poll() is not None
            assert not ended and time.monotonic() < begin + PATIENCE, f"{where}\n--- printed\n{printed.read_text()}"  # noqa: PT018
            time.sleep(0.05)
        token = re.search(r"\blla_\w+", printed.read_text())
        if token:
            self._environment["TOKEN"] = token[0]

    def close(self) -> None:
        """End every server that it started."""
        for server in self.servers:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


@contextmanager
def opened(
    path: Path, place: Path, environment: Mapping[str, str] = {}, replaced: Mapping[str, str] = {}
) -> Iterator[Page]:
    """A page, whose servers end with the block."""
    page = Page(path, place, environment, replaced)
    try:
        yield page
    finally:
        page.close()
