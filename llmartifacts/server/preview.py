"""Previews: a prompt rendered with somebody's variables, in a process with limits.

Templates come from whoever may log, and variables from whoever may read. The sandbox and the meter of a template stop
what they know; the process stops the rest: it has its own memory, its own clock, and nothing of the server in it. It is
kept for the next preview, and replaced when it had to be ended, or after so many.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import Busy, RenderLimitExceeded, TooLarge, WrongKind
from llmartifacts.limits import Outcome, Worker
from llmartifacts.metadata import projects, versions
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.reference import Reference
from llmartifacts.records.wording import size
from llmartifacts.versioning.parts import Parts
from llmartifacts.wire.errors import error_from_item

RENDER = "llmartifacts.server.rendering:render"
SECONDS = 4.0
"""Wall-clock time of one preview, the meter's own limit being shorter."""
MEMORY = 768 * 1024 * 1024
"""Bytes of address space of the process; an interpreter with the template engine has about 200 MB of it."""
MAX_OUTPUT = 8 * 1024 * 1024
"""Bytes of an answer as JSON: every character may take six."""
MAX_VARIABLES = 1024 * 1024
"""Bytes of the variables as JSON."""
MOST = 2
"""Previews at one time."""
WAIT = 5.0
"""Seconds that a preview waits for its turn."""
USES = 500
"""Previews that one process renders."""


@dataclass(frozen=True, slots=True)
class PreviewText:
    """A rendered text."""

    text: str


@dataclass(frozen=True, slots=True)
class PreviewMessages:
    """A rendered chat: each message with its role, and what it says."""

    messages: tuple[tuple[str, str], ...]


class Previews:
    """The processes that render previews; started at the first one.

    Args:
        most: How many render at one time.
        seconds: Wall-clock time of one preview.
        memory_bytes: Address space of one process.
        wait: Seconds that a preview waits for its turn.
    """

    def __init__(
        self, *, most: int = MOST, seconds: float = SECONDS, memory_bytes: int = MEMORY, wait: float = WAIT
    ) -> None:
        self._limits: dict[str, Any] = {"seconds": seconds, "memory_bytes": memory_bytes, "max_output": MAX_OUTPUT}
        self._turns = threading.BoundedSemaphore(most)
        self._wait = wait
        self._lock = threading.Lock()
        self._idle: list[tuple[Worker, int]] = []

    def preview(
        self, parts: Parts, project: str, reference: Reference, variables: Mapping[str, Any]
    ) -> PreviewText | PreviewMessages:
        """Render a prompt version with some variables.

        Args:
            parts: The stores.
            project: Name of the project.
            reference: The version; without a selector, the latest.
            variables: Name -> JSON-plain value.

        Raises:
            NotFound: There is no such version.
            WrongKind: It is no prompt.
            InvalidInput: As `Prompt.format`: a variable is missing, unknown, or does not fit.
            RenderLimitExceeded: It takes too long, too much memory, or writes too much.
            TooLarge: The variables take more than 1 MiB as JSON.
            Busy: Others are being rendered, for as long as was waited.
        """
        if (given := len(canonical_bytes(variables, field="variables"))) > MAX_VARIABLES:
            raise TooLarge(f"the variables take {size(given)}, the limit is {size(MAX_VARIABLES)}", field="variables")
        with parts.metadata.reading() as s:
            project_id, _ = projects.find_project(s, project)
            row = versions.find(s, project_id, project, reference.or_latest())
            if row.version.kind != "prompt":
                raise WrongKind(f"{row.version} is a {row.version.kind}, not a prompt", field="reference")
            config = parts.manifest(s, row.version.digest, row.body).config
        with self._worker() as worker:
            return _preview(worker.call(RENDER, config, variables))

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            while self._idle:
                self._idle.pop()[0].close()

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        if not self._turns.acquire(timeout=self._wait):
            raise Busy("other previews are being rendered", field="reference", next_step="Try again in a moment.")
        try:
            with self._lock:
                worker, used = self._idle.pop() if self._idle else (Worker(**self._limits), 0)
            try:
                yield worker
            finally:
                if used + 1 >= USES:
                    worker.close()
                    used = -1
                with self._lock:
                    self._idle.append((worker, used + 1))
        finally:
            self._turns.release()


def _preview(outcome: Outcome) -> PreviewText | PreviewMessages:
    if outcome.error:
        raise RenderLimitExceeded(f"the prompt could not be rendered here: {outcome.message}", field="reference")
    value = outcome.value
    failed = value.get("error")
    if failed is not None:
        raise error_from_item(failed)
    if "text" in value:
        return PreviewText(value["text"])
    return PreviewMessages(tuple((m["role"], m["content"]) for m in value["messages"]))
