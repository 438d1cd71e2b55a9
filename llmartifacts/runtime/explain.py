"""What a stamp means: the versions that it names, who moved aliases to them and why, and whether it holds together.

A stamp names versions, not aliases. For each version this looks for the aliases that pointed at it at the stamp's
revision; where none did (a lockfile that is older than the moves, a version asked for by number), for those that had
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmartifacts.errors import DigestMismatch, LlmartifactsError, NotFound, ResolutionError
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.compatibility import RULES
from llmartifacts.records.digest import digest_of, short
from llmartifacts.records.promotion import HistoryEntry
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.records.wording import counted
from llmartifacts.registry import Registry
from llmartifacts.runtime.stamp import Source, Stamp, Stamped

SOURCES: Mapping[Source, str] = {
    "registry": "what the references meant in the registry",
    "lockfile": "a lockfile that the service was told to start from",
    "last-known-good": "the last set that the service had from the registry; the registry could not be had",
    "fallback": "the set packaged with the service; neither the registry nor a last-known-good set could be had",
}
WARNINGS: Mapping[str, str] = {
    "yanked": "the version was withdrawn, and served all the same",
    "registry-unreachable": "the registry could not be had; what was kept on the host was served",
    "registry-refused": "the registry refused the service's token or its rights; what was kept on the host was served",
    "newer-set-refused": "the registry had a newer set that could not be served; the one before was",
    "revision-went-back": "the registry was at a lower revision than before, as an older copy of it is",
    "registry-replaced": "the registry was another one than before",
    "alias-missing": "an alias was gone from the registry; what it meant last was served",
    "fallback": "neither the registry nor a last-known-good set could be had; the packaged set was served",
}
"""Code of a warning in a stamp -> what it tells; those of compatibility rules are told by the rule."""
_FIRST = 50
_MOST = 2_000
"""Moves of an alias that are gone through for one that put it at the version."""
_LATELY = 100
"""Promotions before the stamp whose aliases are asked for too: one may have been removed since."""
_ELSEWHERE = "The stamp is of another registry, or was altered: name the registry that the service starts from."


@dataclass(frozen=True, slots=True)
class Pointed:
    """One alias that pointed at a version.

    Attributes:
        move: The move that put it there: who, when, why, with its gates' verdicts and approvals.
        until: The alias's next move; None if it points there to this day.
        then: Whether it pointed there at the stamp's revision; if not, it did before.
    """

    move: HistoryEntry
    until: HistoryEntry | None
    then: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bundle.

    Attributes:
        role: Its role.
        reference: The version, as `[project/]name:vN`.
        kind: Its kind.
        digest: Its digest.
    """

    role: str
    reference: str
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a stamp.

    Attributes:
        field: Field or role.
        stamped: The version as the stamp names it.
        version: The version; None if there is a problem.
        pointed: The aliases that pointed at it.
        problem: Why there is no such version here.
        parts: Of a bundle, the versions that it holds.
    """

    field: str
    stamped: Stamped
    version: Version | None
    pointed: tuple[Pointed, ...] = ()
    problem: LlmartifactsError | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning of a stamp, in words."""

    code: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What a stamp means.

    Attributes:
        stamp: What it says.
        revision_now: The project's revision now.
        components: Its components.
        set: Whether the digest of the set is that of the versions named: `matches`, `differs`, or `unknown` where not
            every version is named, or one is not there.
        warnings: Its warnings.
        problems: What does not hold: versions that are not there, a revision that is still to come, a set that differs.
    """

    stamp: Stamp
    revision_now: int
    components: tuple[Component, ...]
    set: Literal["matches", "differs", "unknown"]
    warnings: tuple[Warned, ...]
    problems: tuple[LlmartifactsError, ...] = ()

    @property
    def error(self) -> ResolutionError | None:
        """All problems as one error, by whose exit code a command ends; None if there is none."""
        if not self.problems:
            return None
        return ResolutionError("the stamp does not hold", failures={str(n): p for n, p in enumerate(self.problems)})


def explain(stamp: Stamp, registry: Registry) -> Explained:
    """Look up everything that a stamp names.

    Args:
        stamp: The stamp; `find_stamp` reads one from a line of a log.
        registry: Where the service started from; embedded or remote.

    Raises:
        NotFound: The registry has no such project.
        LlmartifactsError: The registry did not answer.
    """
    try:
        reading = registry.backend.read(
            stamp.project, [Reference(c.name, stamp.project, number=c.number) for c in stamp.components.values()]
        )
    except NotFound as error:
        raise NotFound.of(error, next_step=_ELSEWHERE) from None
    problems: list[LlmartifactsError] = []
    if reading.revision < stamp.revision:
        told = f"the stamp is of revision {stamp.revision}, and project {stamp.project} is at {reading.revision} here"
        problems.append(NotFound(told, what="revision", name=str(stamp.revision), next_step=_ELSEWHERE))
    components = []
    aliases = _Aliases(registry, stamp)
    for (name, stamped), item in zip(stamp.components.items(), reading.items, strict=True):
        version, problem = _judged(stamped, item)
        if version is None:
            components.append(Component(name, stamped, None, problem=problem))
        else:
            parts = _parts(registry, stamp.project, version)
            components.append(Component(name, stamped, version, aliases.pointing(version), parts=parts))
    problems += [c.problem for c in components if c.problem is not None]
    verdict = _set(stamp, components)
    if verdict == "differs":
        told = f"the set {stamp.set_short} is not that of the versions which the stamp names: it was altered"
        problems.append(DigestMismatch(told, digest=stamp.set_short, next_step=_ELSEWHERE))
    warnings = tuple(Warned(code, field, _words(code)) for code, field in stamp.warnings)
    return Explained(stamp, reading.revision, tuple(components), verdict, warnings, tuple(problems))


def _judged(stamped: Stamped, item: Found | LlmartifactsError) -> tuple[Version | None, LlmartifactsError | None]:
    if not isinstance(item, Found):
        return None, NotFound.of(item, next_step=_ELSEWHERE) if isinstance(item, NotFound) else item
    if short(item.version.digest) == stamped.short:
        return item.version, None
    told = f"{stamped.name}:v{stamped.number} is {short(item.version.digest)} here, and the stamp has {stamped.short}"
    return None, NotFound(told, what="version", name=str(stamped), next_step=_ELSEWHERE)


def _parts(registry: Registry, project: str, version: Version) -> tuple[Part, ...]:
    if version.kind != "bundle":
        return ()
    graph = registry.backend.lineage(project, Reference(version.name, project, number=version.number), "up")
    held = [(edge.role, graph.nodes[n]) for edge, n in graph.steps(graph.root) if edge.relation == "contains"]
    return tuple(Part(role, node.id, node.kind, node.digest) for role, node in sorted(held, key=lambda one: one[0]))


def _set(stamp: Stamp, components: Iterable[Component]) -> Literal["matches", "differs", "unknown"]:
    digests = {c.field: c.version.digest for c in components if c.version is not None}
    if stamp.left_out or len(digests) < len(stamp.components):
        return "unknown"
    return "matches" if short(digest_of(canonical_bytes(digests))) == stamp.set_short else "differs"


def _words(code: str) -> str:
    if code in WARNINGS:
        return WARNINGS[code]
    if code in RULES:
        return f"this may not hold, or could not be told: {RULES[code]}"
    return "this release does not know the warning; the service's log has it in words"


class _Aliases:
    """Finds the aliases that pointed at versions of one stamp."""

    def __init__(self, registry: Registry, stamp: Stamp) -> None:
        self._backend = registry.backend
        self._project = stamp.project
        self._revision = stamp.revision
        self._own: dict[str, set[str]] | None = None

    def pointing(self, version: Version) -> tuple[Pointed, ...]:
        """Aliases that pointed at a version at the revision; if none did, those that had before it."""
        found = [p for alias in self._names(version.name) if (p := self._pointed(version, alias)) is not None]
        then = [p for p in found if p.then]
        return tuple(then or found)

    def _names(self, collection: str) -> list[str]:
        """Aliases that the collection has, and those that moved there shortly before the revision."""
        if self._own is None:
            self._own = {c.name: set(c.aliases) for c in self._backend.collections(self._project)}
            before = self._revision + 1
            for promotion in self._backend.promotions(self._project, limit=_LATELY, before=before):
                for move in promotion.moves:
                    self._own.setdefault(move.name, set()).add(move.alias)
        return sorted(self._own.get(collection, ()))

    def _pointed(self, version: Version, alias: str) -> Pointed | None:
        reference = Reference(version.name, self._project, alias=alias)
        later: HistoryEntry | None = None
        standing: HistoryEntry | None = None
        before: int | None = None
        for limit in (_FIRST, _MOST):
            page = self._backend.history(self._project, reference, limit=limit, before=before)
            for entry in page:
                if entry.revision <= self._revision:
                    standing = standing or entry
                    if entry.new == version.number:
                        return Pointed(entry, later, standing is entry)
                later = entry
            if len(page) < limit:
                return None
            before = page[-1].move
        return None


def left_out_words(stamp: Stamp) -> str:
    """What a stamp says of components that it had no room for; empty if it names all."""
    if not stamp.left_out:
        return ""
    return f"{counted(stamp.left_out, 'component')} more had no room in the line; the set's digest covers them too"
