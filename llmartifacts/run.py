"""`Run`: one execution that uses and produces versions, recorded as it goes; made by `Registry.run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, overload

from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.arguments import told_by
from llmartifacts.records.backend import Backend
from llmartifacts.records.reference import Reference, parse_many
from llmartifacts.records.version import Version

V = TypeVar("V")
References = str | Reference | Sequence[str | Reference]


class Run:
    """One execution that uses and produces versions; made by `Registry.run`.

    Attributes:
        id: Its id, once begun.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        parameters: Mapping[str, Any],
        *,
        project: str,
        actor: str,
        git_commit: Callable[[], str],
        resolve: Callable[..., tuple[Version, Any]],
        log: Callable[..., list[Version]],
    ) -> None:
        self._backend = backend
        self._name = name
        self._parameters = parameters
        self._project = project
        self._actor = actor
        self._git_commit = git_commit
        self._resolve = resolve
        self._log = log
        self._used: list[Reference] = []
        self.id = ""

    def __enter__(self) -> Run:
        self.id = self._backend.start_run(
            self._project, self._name, parameters=self._parameters, actor=self._actor, git_commit=self._git_commit()
        ).id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "done" if error is None else "failed"
        try:
            self._backend.end_run(self._project, self.id, status=status, error=told_by(error), actor=self._actor)
        except LlmartifactsError as unkept:
            if error is None:
                raise
            error.add_note(f"and the run {self.id} could not be ended: {unkept}")  # what went wrong first counts more

    @overload
    def use(self, reference: str | Reference) -> Any: ...
    @overload
    def use(self, reference: str | Reference, type: type[V]) -> V: ...

    def use(self, reference: str | Reference, type: Any = None) -> Any:  # noqa: A002
        """Load a version and record that this run read it; arguments and errors as `Registry.resolve`."""
        version, value = self._resolve(reference, type, "use")
        self._used.append(pinned := version.pinned.within(version.project))
        self._backend.use_in_run(self._project, self.id, pinned, actor=self._actor)
        return value

    def log(
        self,
        name: str,
        value: Any,
        *,
        aliases: str | Sequence[str] = (),
        message: str = "",
        inputs: References = (),
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Log a value as this run's product, derived from everything it used so far; otherwise as `Registry.log`."""
        given = parse_many(inputs, field="inputs") if inputs else []
        return self._log([(name, value)], aliases, message, [*self._used, *given], tags, self.id)[0]
