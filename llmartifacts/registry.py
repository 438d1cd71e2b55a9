"""START HERE: what a registry does, verb by verb.

    log     = pack -> store -> commit            value -> packing.pack -> Backend.commit
    resolve = look up -> fetch -> unpack         reference -> Backend.read -> packing.unpack
    promote = check gates -> move aliases -> audit               Backend.promote

A `Registry` packs and unpacks values through their kinds and leaves all else to its `Backend`: embedded
(`versioning/`, a directory) or remote. Where a new kind, blob driver, gate or scorer goes: `plugins.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, overload

from llmartifacts import packing
from llmartifacts.errors import InvalidInput, InvalidReference, LlmartifactsError, NotFound, WrongKind, Yanked
from llmartifacts.governance import Governance, promotion_request
from llmartifacts.kinds.base import Kind
from llmartifacts.outside import ExternalVerbs
from llmartifacts.records.arguments import (
    check_count,
    check_limit,
    check_line,
    check_mapping,
    check_pairs,
    check_place,
    check_reason,
    check_text,
    shown,
)
from llmartifacts.records.backend import (
    Backend,
    Draft,
    Input,
    Reading,
    Staging,
)
from llmartifacts.records.compatibility import Member, refuse_misfits
from llmartifacts.records.diff import Diff
from llmartifacts.records.lineage import Lineage, check_direction
from llmartifacts.records.manifest import Component, Manifest
from llmartifacts.records.names import LATEST, check_alias, check_name, check_tags
from llmartifacts.records.promotion import HistoryEntry, Promotion, State
from llmartifacts.records.reference import Reference, collection_names, one_project, parse_many, strings
from llmartifacts.records.times import parse_time
from llmartifacts.records.version import Collection, Found, RunRecord, Version
from llmartifacts.run import Run
from llmartifacts.upkeep import Upkeep

V = TypeVar("V")
References = str | Reference | Sequence[str | Reference]


class YankedWarning(UserWarning):
    """A withdrawn version was resolved by its digest."""


class LogRemark(UserWarning):
    """What somebody who logged a version should know of it, such as that a retrained index shares no bytes."""


class Registry(Governance, Upkeep, ExternalVerbs):
    """A registry, opened by `connect` or `init`. Safe to use from several threads.

    Args:
        backend: What it stands on.
        project: Project that names without a prefix mean.
        actor: Who acts.
        git_commit: Gives the commit of the caller's code; empty if there is none.

    Example:
        >>> import llmartifacts as la
        >>> registry = la.init("registry")
        >>> v = registry.log("greeting", la.Prompt("Hello {{ name }}", template_format="jinja2"))
        >>> _ = registry.promote("greeting:v1", to="prod", reason="first")
        >>> registry.resolve("greeting:prod", la.Prompt).format(name="Ada")
        'Hello Ada'
    """

    def __init__(
        self, backend: Backend, *, project: str, actor: str, git_commit: Callable[[], str] = lambda: ""
    ) -> None:
        self.backend = backend
        self.project = project
        self.actor = actor
        self._git_commit = git_commit
        self._outside = packing.Later(lambda: self.external)

    # --- log = pack -> store -> commit

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
        """Log a value; the same content again returns the same version.

        Args:
            name: `[project/]name` of the collection; the first log makes it and fixes its kind.
            value: A `Prompt`, `VectorIndex`, `EvalDataset`, `Bundle`, `Report`, `Files`, or a plug-in kind's value.
            aliases: Aliases to move to the version in the same transaction.
            message: What to say of it; the first log's message is kept.
            inputs: References of the versions it was made from; pinned now.
            tags: Free labels.

        Returns:
            The version; `created` says whether it is new.

        Raises:
            InvalidInput: The name, value, alias or tag cannot be used. Nothing was written.
            WrongKind: The collection has another kind.
            NotFound: An input does not exist.
            Refused: A gate refused an alias; then nothing was logged.
        """
        return self._log([(name, value)], aliases, message, inputs, tags, run="")[0]

    def log_many(
        self,
        pairs: Iterable[tuple[str, Any]],
        *,
        aliases: str | Sequence[str] = (),
        message: str = "",
        inputs: References = (),
        tags: Mapping[str, str] | None = None,
    ) -> list[Version]:
        """Log several values in one transaction, all or none; arguments and errors as `log`."""
        return self._log(check_pairs(pairs), aliases, message, inputs, tags, run="")

    def _log(
        self,
        pairs: Sequence[tuple[str, Any]],
        aliases: str | Sequence[str],
        message: str,
        inputs: References,
        tags: Mapping[str, str] | None,
        run: str,
    ) -> list[Version]:
        names, project = collection_names([name for name, _ in pairs], self.project)
        moved = tuple(check_alias(a, field="aliases") for a in strings(aliases, field="aliases"))
        labels = check_tags(tags)
        given = parse_many(inputs, field="inputs") if inputs else []
        # Without a prefix they mean what they always mean: this registry's project, wherever the version goes.
        parents = tuple(Input(r.required("an input", field="inputs").seen_from(project, self.project)) for r in given)
        message = check_text(message, field="message")
        commit = self._git_commit()
        with self.backend.blobs.stage() as staging:
            drafts, packed = [], []
            for name, (_, value) in zip(names, pairs, strict=True):
                kind = packing.kind_of(value)
                earlier = self._earlier(project, kind.name, [Reference(name, project), *(i.reference for i in parents)])
                manifest, contained = self._pack(project, kind, value, staging, earlier.files)
                edges = (*(replace(i, relation=kind.input_relation) for i in parents), *contained)
                drafts.append(Draft(name, manifest, message, labels, moved, edges, commit, run))
                packed.append((kind, earlier))
            made = self.backend.commit(project, drafts, actor=self.actor, staging=staging)
        for draft, version, (kind, earlier) in zip(drafts, made, packed, strict=True):
            for remark in earlier.remarks(kind, draft.manifest, staging.added) if version.created else ():
                warnings.warn(f"{version}: {remark}", LogRemark, stacklevel=3)
        return made

    def _pack(
        self, project: str, kind: Kind[Any], value: Any, staging: Staging, earlier: packing.EarlierFiles
    ) -> tuple[Manifest, tuple[Input, ...]]:
        references = kind.references(value)
        if not references:
            return packing.pack(kind, value, staging, earlier=earlier, outside=self._outside), ()
        wanted = [Reference.parse(r, field="components").seen_from(project, self.project) for r in references.values()]
        away = next((r for r in wanted if r.project), None)
        if away is not None:
            raise InvalidReference(
                f"a bundle of {project!r} cannot hold {away}: it stays within its project",
                field="components",
                next_step=f"Log the part into {project!r} too, and name it {project}/{away.name}:….",
            )
        pinned = dict(zip(references, self._found(project, wanted, verb="a bundle", field="components"), strict=True))
        parts = [Component(role, f.version.kind, f.version.digest) for role, f in pinned.items()]
        manifest = packing.pack(kind, value, staging, parts, earlier, self._outside)
        label = Member("bundle", manifest, contains={role: f.version.name for role, f in pinned.items()})
        refuse_misfits([label], {f.version.digest: f.manifest for f in pinned.values()})
        return manifest, tuple(Input(f.version.pinned, "contains", role) for role, f in pinned.items())

    def _earlier(self, project: str, kind: str, like: Sequence[Reference]) -> packing.EarlierVersions:
        """Versions that a new one may be like, for storage: nothing of them is in the new one's identity."""

        def read() -> list[Manifest]:
            try:
                items = self.backend.read(project, [reference.or_latest() for reference in like]).items
            except NotFound:  # of the project: an embedded registry makes it with this very log
                return []
            return [item.manifest for item in items if isinstance(item, Found)]

        return packing.EarlierVersions(kind, read)

    # --- resolve = look up -> fetch -> unpack

    @overload
    def resolve(self, reference: str | Reference) -> Any: ...
    @overload
    def resolve(self, reference: str | Reference, type: type[V]) -> V: ...

    def resolve(self, reference: str | Reference, type: Any = None) -> Any:  # noqa: A002
        """Load the value of one version; every byte is verified before anyone parses it.

        Args:
            reference: Alias, version or digest, such as `support-agent:prod`.
            type: Class that the value must have; None takes any.

        Raises:
            NotFound: No such version; near names are given.
            WrongKind: The value is not of that class.
            Damaged: Stored bytes are not what they claim to be.
            Yanked: The version was withdrawn, and the reference is no digest.
        """
        return self._resolved(reference, type, "resolve")[1]

    def _resolved(self, reference: str | Reference, type: Any, verb: str) -> tuple[Version, Any]:  # noqa: A002
        found = self._found(self.project, [wanted := Reference.parse(reference)], verb=verb)[0]
        version = found.version
        if version.yanked_at is not None:
            told = f"{version} was withdrawn: {version.yank_reason}"
            if wanted.digest is None:
                raise Yanked(told, field=str(wanted), next_step=f"To have it all the same, resolve {version.pinned}.")
            warnings.warn(told, YankedWarning, stacklevel=3)
        value = self.load(found.manifest)
        return version, value if type is None else packing.expect_type(value, type, str(wanted))

    def load(self, manifest: Manifest) -> Any:
        """Load the value of a manifest that was read from this registry."""
        return packing.unpack(manifest, self.backend.blobs, self.backend.manifests, self._outside)

    def get(self, reference: str | Reference) -> Version:
        """Look up one version; without a selector, the latest. Raises `NotFound`."""
        return self.find(reference).version

    def find(self, reference: str | Reference) -> Found:
        """Look up one version and its manifest; without a selector, the latest. Raises `NotFound`."""
        return self._found(self.project, [Reference.parse(reference).or_latest()])[0]

    def read(self, references: References) -> Reading:
        """Look up several references at one revision; each answer is a `Found`, or the error that took its place.

        Raises:
            InvalidReference: One is malformed, or they name several projects.
        """
        wanted = [r.or_latest() for r in parse_many(references)]
        return self.backend.read(one_project(wanted, self.project), wanted)

    def versions(
        self,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Version]:
        """Versions of a collection, newest first.

        Args:
            name: `[project/]name`.
            tags: Only versions that carry all of these.
            limit: At most so many.
            before: Only numbers below this one; the last number of a page begins the next.

        Raises:
            NotFound: No such collection.
        """
        (bare,), project = collection_names([name], self.project)
        limit, before = check_limit(limit), check_limit(before, field="before")
        return self.backend.versions(project, bare, tags=check_tags(tags), limit=limit, before=before)

    def collections(
        self, *, kind: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[Collection]:
        """Every collection of the project, by name.

        Args:
            kind: Only those of this kind.
            limit: At most so many.
            after: Only names above this one; the last name of a page begins the next.
        """
        wanted = None if kind is None else check_name(kind, field="kind")
        limit, after = check_limit(limit), None if after is None else check_name(after, field="after")
        return self.backend.collections(self.project, kind=wanted, limit=limit, after=after)

    def pull(self, reference: str | Reference, directory: str | Path, *, external: bool = True) -> list[Path]:
        """Write the verified files of a version into a directory, and its config as `manifest.json`.

        Args:
            reference: The version; without a selector, the latest.
            directory: Made if it does not exist; it must be empty.
            external: Whether files that are kept outside are fetched too; else they are left out.

        Returns:
            The files written.

        Raises:
            Conflict: The directory holds something already.
            Damaged: Stored bytes are wrong, or what is kept outside was changed; the directory is as it was.
            NotAllowed: A file that is kept outside may not be read.
            Unreachable: It cannot be had.
        """
        place = Path(check_place(directory, field="directory"))
        return packing.export(
            self.find(reference).manifest, self.backend.blobs, place, self._outside if external else None
        )

    # --- promote = check gates -> move aliases -> audit

    def promote(
        self,
        references: References,
        to: str | Sequence[str],
        *,
        reason: str = "",
        ticket: str = "",
        expect: Mapping[str, str | None] | None = None,
        break_glass: bool = False,
    ) -> Promotion:
        """Move aliases of several collections in one transaction, all or none.

        Args:
            references: Versions to move to, each with a selector.
            to: The alias, or several.
            reason: Why; asked for where the policy says so.
            ticket: Ticket of the change.
            expect: Collection name -> `vN` its alias must point at now, None for "must not exist"; compare-and-swap.
            break_glass: Move although a gate denies, where the policy lets the actor; it stays visible until reviewed.

        Raises:
            AliasMoved: An alias is not what `expect` says.
            Refused: A gate did not pass, components do not fit each other, or a version was withdrawn.
            NotFound: A version does not exist.
            InvalidReference: Two references name one collection, or they lie in several projects.
        """
        project, request = promotion_request(
            references, to, self.project, reason=reason, ticket=ticket, expect=expect, break_glass=break_glass
        )
        return self.backend.promote(project, request, actor=self.actor)

    def rollback(
        self, target: str | Reference, *, to: str | Reference | None = None, whole: bool = False, reason: str
    ) -> Promotion:
        """Undo the newest promotion not yet undone; twice means two back.

        Args:
            target: `name:alias`, or the id of a promotion to undo as a whole.
            to: A version to go to instead, such as `v5`.
            whole: Undo all that moved together with it.
            reason: Why; always needed.

        Raises:
            InvalidReference: No alias is named; the hint lists recent promotions.
            Conflict: A component of the set has moved since, or there is nothing to undo.
            Yanked: The goal was withdrawn.
            InvalidInput: The reason is empty.
        """
        reason = check_reason(reason, "a rollback")
        if isinstance(target, str) and "@r" in target:
            if to is not None:
                raise InvalidInput("a promotion is undone as a whole, not to one version", field="to")
            project = check_name(target.rpartition("@r")[0], field="target")
            return self.backend.rollback(project, check_line(target, field="target"), reason=reason, actor=self.actor)
        parsed = self._rollback_target(target).within(self.project)
        goal = None
        if to is not None:
            bare = isinstance(to, str) and ":" not in to and "@" not in to
            goal = Reference.parse(f"{parsed.name}:{to}" if bare else to, field="to").required("to", field="to")
            if goal.name != parsed.name or goal.project not in (None, parsed.project):
                raise InvalidReference(f"{goal} is no version of {parsed.name}", field="to")
        home = parsed.project or self.project
        return self.backend.rollback(home, parsed, to=goal, whole=whole, reason=reason, actor=self.actor)

    def _rollback_target(self, target: str | Reference) -> Reference:
        parsed: Reference | None = None
        problem = f"{shown(target)} names no alias"
        try:
            parsed = Reference.parse(target)
        except InvalidReference as error:
            problem = error.message
        if parsed is not None and parsed.alias is not None and parsed.digest is None:
            check_alias(parsed.alias)
            return parsed
        recent = "; ".join(str(p) for p in self.backend.promotions(self.project, limit=5))
        raise InvalidReference(
            problem,
            field="target",
            next_step=f"Write name:alias, or the id of a promotion. Recent: {recent or 'none'}.",
        )

    def remove_alias(self, reference: str | Reference, *, reason: str = "") -> Promotion:
        """Remove an alias, such as `support-agent:canary`; it stays in history. Raises `NotFound`."""
        wanted = Reference.parse(reference)
        check_alias(wanted.alias or "", field="reference")
        project, told = one_project([wanted], self.project), check_text(reason, field="reason")
        return self.backend.remove_alias(project, wanted, reason=told, actor=self.actor)

    def yank(self, reference: str | Reference, *, reason: str) -> Version:
        """Withdraw a version: no alias may be moved to it any more; a digest or a lockfile still resolves it.

        Raises:
            Conflict: An alias names it; move that first.
            InvalidInput: The reason is empty.
        """
        wanted = Reference.parse(reference).required("yank")
        project, told = one_project([wanted], self.project), check_reason(reason, "yank")
        return self.backend.yank(project, wanted, reason=told, actor=self.actor)

    def tag(
        self,
        reference: str | Reference,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002
        remove: str | Sequence[str] = (),
    ) -> Version:
        """Set and remove labels of a version; audited, never resolved by."""
        wanted = Reference.parse(reference).or_latest()
        gone = [check_name(k, field="remove") for k in strings(remove, field="remove")]
        project, labels = one_project([wanted], self.project), check_tags(set, field="set")
        return self.backend.tag(project, wanted, set=labels, remove=gone, actor=self.actor)

    # --- look back

    def history(
        self, reference: str | Reference, *, limit: int | None = None, before: int | None = None
    ) -> list[HistoryEntry]:
        """Every move of an alias, newest first; without a selector, of `latest`.

        Args:
            reference: The alias.
            limit: At most so many.
            before: Only moves with numbers below this one; the last `move` of a page begins the next.

        Raises:
            InvalidReference: The reference names a version, not an alias.
            NotFound: No such collection, or the alias never existed.
        """
        wanted = Reference.parse(reference).or_latest()
        if wanted.alias is None:
            raise InvalidReference(f"{wanted} is no alias", field="reference", next_step=f"Write {wanted.name}:prod.")
        limit, before = check_limit(limit), check_limit(before, field="before")
        return self.backend.history(one_project([wanted], self.project), wanted, limit=limit, before=before)

    def promotions(self, *, limit: int = 20, before: int | None = None) -> list[Promotion]:
        """The newest promotions of the project, newest first; with `before`, those of lower revisions."""
        limit, before = check_count(limit, field="limit"), check_limit(before, field="before")
        return self.backend.promotions(self.project, limit=limit, before=before)

    def state(
        self,
        alias: str,
        *,
        at: str | datetime | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> State:
        """What an alias meant everywhere in the project, now or at a time.

        Args:
            alias: The alias, such as `prod`.
            at: ISO 8601 text or a `datetime`; without an offset it is UTC.
            limit: At most so many collections.
            after: Only collections with names above this one; the last name of a page begins the next.

        Returns:
            A mapping: collection name -> the version then, and the move that put it there.
        """
        if alias != LATEST:
            check_alias(alias)
        limit, after = check_limit(limit), None if after is None else check_name(after, field="after")
        when = None if at is None else parse_time(at)
        return self.backend.state(self.project, alias, at=when, limit=limit, after=after)

    def diff(self, before: str | Reference, after: str | Reference) -> Diff:
        """Differences of two versions of one kind, in the words of that kind.

        Raises:
            WrongKind: They are of two kinds.
        """
        first, second = self.find(before), self.find(after)
        if first.version.kind != second.version.kind:
            raise WrongKind(
                f"{first.version} is a {first.version.kind} and {second.version} a {second.version.kind}",
                next_step="Compare two versions of one kind.",
            )
        views = (packing.view(first.manifest, self.backend.blobs), packing.view(second.manifest, self.backend.blobs))
        made = packing.kind_named(first.version.kind).diff(first.manifest, second.manifest, views)
        return Diff(
            made.kind,
            str(first.version.reference),
            str(second.version.reference),
            made.changes,
            made.text,
            made.numbers,
        )

    def lineage(self, reference: str | Reference, direction: str = "up") -> Lineage:
        """The whole closure of a version: what it came from (`up`), or what came of it (`down`)."""
        wanted = Reference.parse(reference).or_latest()
        return self.backend.lineage(one_project([wanted], self.project), wanted, check_direction(direction))

    # --- runs

    def run(self, name: str, *, parameters: Mapping[str, Any] | None = None) -> Run:
        """Begin a run: a `with` block that records what it used and produced; one that raises is kept as failed.

        Example:
            >>> with registry.run("build-index", parameters={"model": "bge-small"}) as run:  # doctest: +SKIP
            ...     docs = run.use("support-docs:v3", la.Files)
            ...     run.log("support-kb", build(docs))
        """
        return Run(
            self.backend,
            check_name(name),
            check_mapping(parameters, field="parameters"),
            project=self.project,
            actor=self.actor,
            git_commit=self._git_commit,
            resolve=self._resolved,
            log=self._log,
        )

    def runs(self, *, limit: int = 50, before: str | None = None) -> list[RunRecord]:
        """The newest runs, newest first; with `before`, the id of a run, those that began before it."""
        run = None if before is None else check_line(before, field="before")
        return self.backend.runs(self.project, limit=check_count(limit, field="limit"), before=run)

    def get_run(self, run: str) -> RunRecord:
        """One run by id. Raises `NotFound`."""
        return self.backend.run(self.project, check_line(run, field="run"))

    def close(self) -> None:
        """Let go of files and connections."""
        self.backend.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry {self.backend.location} project={self.project}>"

    # --- helpers

    def _found(
        self, project: str, references: Sequence[str | Reference], *, verb: str = "", field: str = "reference"
    ) -> list[Found]:
        wanted = [Reference.parse(r, field=field) for r in references]
        if verb:
            wanted = [r.required(verb, field=field) for r in wanted]
        reading = self.backend.read(one_project(wanted, project), wanted)
        found = []
        for item in reading.items:
            if isinstance(item, LlmartifactsError):
                raise item
            found.append(item)
        return found
