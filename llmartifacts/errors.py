"""Every exception of the package, drawn as a tree.

    LlmartifactsError
    ├── InvalidInput               what was given cannot be used; nothing was written
    │   ├── InvalidReference           a name, selector, digest or reference is malformed
    │   ├── InvalidPath                a file path inside an artifact is unsafe
    │   ├── InvalidManifest            a manifest or JSON document breaks its rules
    │   ├── InvalidValue               a component's own content is wrong (NaN, duplicate ids, …)
    │   ├── InvalidTemplate            a prompt template does not parse or asks for what is not there
    │   │   ├── MissingVariable            a variable the template needs was not given
    │   │   ├── UnexpectedVariable         a variable was given that the template does not know
    │   │   └── RenderLimitExceeded        a template ran too long or wrote too much
    │   ├── WrongKind                  the component is of another kind than asked for
    │   └── TooLarge                   a size limit was passed
    ├── NotFound                   no such project, collection, version, alias, …; carries near names
    │   └── Removed                    it was there, and was removed; says when, by whom and why
    ├── Conflict                   somebody else changed it first, or it cannot be both
    │   ├── AliasMoved                 compare-and-swap: the alias is not what was expected
    │   └── Busy                       the registry stayed locked by another writer
    ├── Refused                    understood and denied
    │   ├── Incompatible               components that do not fit each other
    │   ├── GateRefused                a gate did not pass
    │   └── Yanked                     the version was withdrawn
    ├── Damaged                    stored bytes are not what they claim to be
    │   ├── DigestMismatch             bytes whose SHA-256 is another
    │   ├── BlobMissing                bytes that should be there and are not
    │   └── UnsafeContent              content that would act on the host if opened
    ├── Unreachable                the registry cannot be had
    │   └── DeadlineExceeded           … in the time given
    ├── ResolutionError            a service cannot start; names every component that failed
    ├── NotAllowed                 no right to do this, or a read-only place
    ├── NewerFormat                written by a newer release
    └── MissingExtra               an optional library is not installed

Each class has a stable `code`; `llmartifacts.wire` maps codes to exit codes and HTTP statuses. Each error
says which `field` is wrong, the `origin` of its value, and with `hint()` what to do next; a traceback shows that too.
Errors are frozen: what was raised is what is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

_E = TypeVar("_E", bound=type)


def _set(self: object, name: str, value: object) -> None:
    # The interpreter, contextlib and pytest assign __traceback__, __notes__ and the like.
    if not name.startswith("__"):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    BaseException.__setattr__(self, name, value)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def _error(cls: _E) -> _E:
    """`@dataclass(frozen=True)`, but the interpreter may still attach a traceback."""
    made: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    made.__setattr__ = _set
    return cast(_E, made)


def _rebuild(cls: type[LlmartifactsError], values: dict[str, Any]) -> LlmartifactsError:
    return cls(**values)


@_error
class LlmartifactsError(Exception):
    """Base of every error this package raises.

    Attributes:
        message: What happened, one sentence, without the hint.
        field: Which field of the input is wrong, such as `files[3].path`; empty if none.
        origin: Where the value came from, such as `prompts/a.j2, line 12`; empty if unknown.
        next_step: What to do next, where the raiser knows better than the class's own hint.
    """

    message: str
    field: str = dataclasses.field(default="", kw_only=True)
    origin: str = dataclasses.field(default="", kw_only=True)
    next_step: str = dataclasses.field(default="", kw_only=True)

    code: ClassVar[str] = "error"
    default_hint: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if hint := self.hint():
            self.add_note(f"hint: {hint}")  # below the message in a traceback

    @classmethod
    def of(cls, error: LlmartifactsError, **changes: str) -> Self:
        """What another error says, as an error of this class.

        Args:
            error: The error; its own data fields, such as `near`, stay behind.
            **changes: `field`, `origin` or `next_step`, where it is known better here.

        Example:
            >>> InvalidValue.of(InvalidManifest("NaN is not a JSON number", field="top_p"), origin="a.yaml")
            InvalidValue('NaN is not a JSON number (field top_p, a.yaml)')
        """
        said = {"field": error.field, "origin": error.origin, "next_step": error.next_step}
        return cls(error.message, **{**said, **changes})

    def hint(self) -> str:
        """What to do next, in one sentence; empty if there is nothing sensible to say."""
        return self.next_step or self.default_hint

    def details(self) -> Mapping[str, Any]:
        """Every data field but the message, as plain values; what `--json` and the HTTP body show."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "message"}

    def __str__(self) -> str:
        where = [part for part in (self.field and f"field {self.field}", self.origin) if part]
        return f"{self.message} ({', '.join(where)})" if where else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


def _plain(value: Any) -> Any:
    if isinstance(value, LlmartifactsError):
        return {"code": value.code, "message": value.message, "hint": value.hint(), **value.details()}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


# --- what was given cannot be used


@_error
class InvalidInput(LlmartifactsError):
    """What was given cannot be used; nothing was written."""

    code: ClassVar[str] = "invalid_input"


@_error
class InvalidReference(InvalidInput):
    """A project, collection, alias, tag, digest or reference is malformed."""

    code: ClassVar[str] = "invalid_reference"
    default_hint: ClassVar[str] = "A reference is [project/]name[:alias or vN][@sha256:…], such as support-agent:prod."


@_error
class InvalidPath(InvalidInput):
    """A file path inside an artifact is unsafe or ambiguous."""

    code: ClassVar[str] = "invalid_path"
    default_hint: ClassVar[str] = (
        "Use relative POSIX paths in NFC, without '..', backslashes or control characters, "
        "and no two that differ in case only."
    )


@_error
class InvalidManifest(InvalidInput):
    """A manifest, or another JSON document, breaks its rules."""

    code: ClassVar[str] = "invalid_manifest"


@_error
class InvalidValue(InvalidInput):
    """A component's own content is wrong: NaN vectors, duplicate ids, an empty dataset."""

    code: ClassVar[str] = "invalid_value"


@_error
class InvalidTemplate(InvalidInput):
    """A prompt template does not parse, or asks for what is not there.

    Attributes:
        line: Line of the template, counted from 1; None if it is not known.
        variable: The variable, filter or helper concerned; empty if none.
    """

    line: int | None = dataclasses.field(default=None, kw_only=True)
    variable: str = dataclasses.field(default="", kw_only=True)

    code: ClassVar[str] = "invalid_template"


@_error
class MissingVariable(InvalidTemplate):
    """A variable that the template needs was not given."""

    code: ClassVar[str] = "missing_variable"


@_error
class UnexpectedVariable(InvalidTemplate):
    """A variable was given that the template does not know."""

    code: ClassVar[str] = "unexpected_variable"


@_error
class RenderLimitExceeded(InvalidTemplate):
    """A template ran too long or wrote too much."""

    code: ClassVar[str] = "render_limit_exceeded"


@_error
class WrongKind(InvalidInput):
    """The component is of another kind than asked for."""

    code: ClassVar[str] = "wrong_kind"


@_error
class TooLarge(InvalidInput):
    """A size limit was passed."""

    code: ClassVar[str] = "too_large"


# --- it is not there


@_error
class NotFound(LlmartifactsError):
    """No such project, collection, version, alias, run, promotion or registry.

    Attributes:
        what: The word for what is missing, such as `collection`.
        name: The name that was looked up.
        near: Names that exist and look alike, best first.
    """

    what: str = dataclasses.field(default="", kw_only=True)
    name: str = dataclasses.field(default="", kw_only=True)
    near: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    code: ClassVar[str] = "not_found"

    def hint(self) -> str:
        """The near names, where there are some."""
        if self.next_step or not self.near:
            return self.next_step
        return f"Did you mean {' or '.join(self.near)}?"


@_error
class Removed(NotFound):
    """The version, or the project, was removed. Its name and number are never used again.

    Attributes:
        number: Number of the version; None for a project.
        at: When, as a time in UTC.
        by: Who removed it.
        reason: Why, in their words.
        rule: By which rule, such as `keep-last 10`; empty if by none.
    """

    number: int | None = dataclasses.field(default=None, kw_only=True)
    at: str = dataclasses.field(default="", kw_only=True)
    by: str = dataclasses.field(default="", kw_only=True)
    reason: str = dataclasses.field(default="", kw_only=True)
    rule: str = dataclasses.field(default="", kw_only=True)

    code: ClassVar[str] = "removed"
    default_hint: ClassVar[str] = (
        "Choose another version (llmartifacts ls NAME shows which were removed), or log the same content again: that "
        "brings it back, unless it was erased."
    )

    def hint(self) -> str:
        """How to go on without it."""
        return self.next_step or self.default_hint


# --- it changed, or cannot be both


@_error
class Conflict(LlmartifactsError):
    """Somebody else changed it first, or it cannot be both."""

    code: ClassVar[str] = "conflict"


@_error
class AliasMoved(Conflict):
    """Compare-and-swap failed: the alias is not what the caller expected.

    Attributes:
        alias: `name:alias`.
        expected: What the caller expected, such as `v1`; empty for "not there".
        actual: What the alias points at; empty for "not there".
    """

    alias: str = dataclasses.field(default="", kw_only=True)
    expected: str = dataclasses.field(default="", kw_only=True)
    actual: str = dataclasses.field(default="", kw_only=True)

    code: ClassVar[str] = "alias_moved"
    default_hint: ClassVar[str] = "Look at what it serves now (llmartifacts history), then try again."


@_error
class Busy(Conflict):
    """The registry stayed locked by another writer for as long as was waited."""

    code: ClassVar[str] = "busy"
    default_hint: ClassVar[str] = "Another process holds the write lock; try again in a moment."


# --- understood and denied


@_error
class Refused(LlmartifactsError):
    """Understood and denied."""

    code: ClassVar[str] = "refused"


@_error
class Incompatible(Refused):
    """Components that do not fit each other.

    Attributes:
        problems: Each broken rule, as one readable line that begins with the rule's id.
    """

    problems: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    code: ClassVar[str] = "incompatible"


@_error
class GateRefused(Refused):
    """A gate did not pass, so the alias did not move.

    Attributes:
        verdict: The combined verdict, such as `FAIL` or `INCONCLUSIVE`.
        problems: Each gate that did not pass, as one readable line.
    """

    verdict: str = dataclasses.field(default="FAIL", kw_only=True)
    problems: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    code: ClassVar[str] = "gate_refused"


@_error
class Yanked(Refused):
    """The version was withdrawn; no alias may be moved to it."""

    code: ClassVar[str] = "yanked"
    default_hint: ClassVar[str] = "Choose another version; `llmartifacts ls NAME` shows which are withdrawn."


# --- stored bytes are wrong


@_error
class Damaged(LlmartifactsError):
    """Stored bytes are not what they claim to be. Nothing was parsed.

    Attributes:
        digest: The digest that was asked for.
        file: The stored file concerned, where there is one.
        versions: The versions that need these bytes, as references; of many the first.
        needed_by: How many versions need them, where that was counted.
    """

    digest: str = dataclasses.field(default="", kw_only=True)
    file: str = dataclasses.field(default="", kw_only=True)
    versions: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    needed_by: int | None = dataclasses.field(default=None, kw_only=True)

    code: ClassVar[str] = "damaged"
    default_hint: ClassVar[str] = "Restore the file from a backup, or log the same content again: that stores it anew."

    def __str__(self) -> str:
        text = LlmartifactsError.__str__(self)
        more = (self.needed_by or 0) - len(self.versions)
        told = ", ".join(self.versions) + (f" and {more:,} more" if more > 0 else "")
        return f"{text}; needed by {told}" if self.versions else text


@_error
class DigestMismatch(Damaged):
    """Bytes whose SHA-256 is not the one they are stored under."""

    code: ClassVar[str] = "digest_mismatch"


@_error
class BlobMissing(Damaged):
    """Bytes that should be there and are not."""

    code: ClassVar[str] = "blob_missing"


@_error
class UnsafeContent(Damaged):
    """Content that would act on the host if opened: a pickle, a file that names another file."""

    code: ClassVar[str] = "unsafe_content"
    default_hint: ClassVar[str] = ""


# --- it cannot be had


@_error
class Unreachable(LlmartifactsError):
    """The registry cannot be had."""

    code: ClassVar[str] = "unreachable"


@_error
class DeadlineExceeded(Unreachable):
    """The registry did not answer in the time given."""

    code: ClassVar[str] = "deadline_exceeded"


@_error
class ResolutionError(LlmartifactsError):
    """A service cannot start; one error names every component that failed.

    Attributes:
        failures: Field or component name -> the error that kept it from loading.
    """

    failures: Mapping[str, LlmartifactsError] = dataclasses.field(default_factory=dict, kw_only=True)

    code: ClassVar[str] = "resolution_failed"

    def __str__(self) -> str:
        lines = [f"  {name}: {error}" for name, error in self.failures.items()]
        return "\n".join([LlmartifactsError.__str__(self), *lines])

    def hint(self) -> str:
        """The hints of the components, one each."""
        hints = dict.fromkeys(e.hint() for e in self.failures.values() if e.hint())
        return self.next_step or " ".join(hints)


@_error
class NotAllowed(LlmartifactsError):
    """No right to do this, or a place that cannot be written."""

    code: ClassVar[str] = "not_allowed"


@_error
class NewerFormat(LlmartifactsError):
    """Written by a newer release of this package."""

    code: ClassVar[str] = "newer_format"
    default_hint: ClassVar[str] = "Upgrade llmartifacts here: pip install --upgrade llmartifacts."


@_error
class MissingExtra(LlmartifactsError):
    """An optional library is not installed.

    Attributes:
        extra: The extra of this package that brings it.
    """

    extra: str = dataclasses.field(default="", kw_only=True)

    code: ClassVar[str] = "missing_extra"

    def hint(self) -> str:
        """The command that installs it."""
        return self.next_step or (f"pip install 'llmartifacts[{self.extra}]'" if self.extra else "")
