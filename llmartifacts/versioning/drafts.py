"""What is checked of drafts that a stranger made. On this machine packing has checked them; a server checks them anew.

checked          one draft by itself: pure, but for the kinds that are installed
check_parsed     the same, where its manifest was just read from bytes
check_drafts     drafts against what the registry holds, in the transaction that logs them

Whatever follows from the content is made here and not taken from outside: the relation of an input, and which version a
part of a bundle is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from llmartifacts import packing, plugins
from llmartifacts.errors import InvalidInput, InvalidManifest, InvalidValue, LlmartifactsError, NotFound, TooLarge
from llmartifacts.kinds.base import Kind
from llmartifacts.metadata import graph, runs, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.arguments import check_line, check_text, shown, told_by
from llmartifacts.records.backend import Draft, Input
from llmartifacts.records.compatibility import Member, refuse_misfits
from llmartifacts.records.digest import Digest
from llmartifacts.records.external import REMOTE, parse_place
from llmartifacts.records.lineage import Relation
from llmartifacts.records.manifest import Component, Manifest
from llmartifacts.records.names import check_alias, check_name, check_tags
from llmartifacts.records.reference import Reference
from llmartifacts.versioning.parts import Parts

MAX_DRAFTS = 10_000
MAX_INPUTS = 1_000
MAX_ALIASES = 64
BUNDLE = "bundle"
_STRANGE: tuple[Relation, ...] = ("derived_from", "evaluated_with")
"""Relations that versions of a kind that is not installed here may have to their inputs."""


class Installed:
    """The kinds that are installed: others than the built-in ones are looked for once, when first asked for.

    To look takes milliseconds, and a stranger may send thousands of drafts of a kind that nobody has.
    """

    def __contains__(self, name: str) -> bool:
        return name in plugins.BUILT_IN["kinds"] or name in self._others

    @cached_property
    def _others(self) -> frozenset[str]:
        return frozenset(plugins.names("kinds"))


def checked(draft: Draft, installed: Installed | None = None) -> Draft:
    """A draft whose every field is one that this machine could have made itself.

    The relation of its inputs is the one of its kind; edges to the parts of a bundle are left as they are.

    Args:
        draft: The draft.
        installed: The kinds that are installed, where many drafts are checked; by default they are looked for.

    Raises:
        InvalidManifest: The manifest breaks a rule, or is none of its kind; the field is named.
        InvalidInput: A name, alias, tag or text cannot be used.
        TooLarge: There is more of something than one version may have.
    """
    return check_parsed(replace(draft, manifest=Manifest.from_bytes(draft.manifest.to_bytes())), installed)


def check_parsed(draft: Draft, installed: Installed | None = None) -> Draft:
    """As `checked`, of a draft whose manifest was just read from its bytes, and so keeps the rules of manifests."""
    manifest = draft.manifest
    check_name(draft.name, field="name")
    there = manifest.kind in (installed or Installed())
    kind = packing.kind_named(manifest.kind) if there else None
    if kind is not None:
        _check_config(kind, manifest)
        packing.check_external(kind, manifest)
    _check_files(manifest)
    return replace(
        draft,
        message=check_text(draft.message, field="message"),
        tags=check_tags(draft.tags),
        aliases=tuple(check_alias(a, field="aliases") for a in _few(draft.aliases, MAX_ALIASES, "aliases")),
        inputs=tuple(_input(i, kind) for i in _few(draft.inputs, MAX_INPUTS, "inputs")),
        git_commit=check_line(draft.git_commit, field="git_commit"),
        run=check_line(draft.run, field="run"),
    )


def check_drafts(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    drafts: Sequence[Draft],
    *,
    actor: str,
) -> list[Draft]:
    """The drafts as they may be logged: checked by themselves and against what is there.

    Args:
        s: The transaction that logs them.
        parts: The stores.
        project_id: Id of the project.
        project: Its name.
        drafts: As they came.
        actor: Who logs them.

    Raises:
        InvalidManifest: As `checked`; or a part of a bundle is none, or not what the bundle says; or a size is wrong.
        NotFound: A part or the run is not there.
        Incompatible: The parts of a bundle do not fit each other.
        NotAllowed: The run is somebody else's.
        Conflict: The run has ended.
    """
    installed = Installed()
    made = [checked(draft, installed) for draft in _few(drafts, MAX_DRAFTS, "drafts")]
    _check_sizes(s, project_id, [draft.manifest for draft in made])
    for run in dict.fromkeys(draft.run for draft in made if draft.run):
        runs.require_running(s, project_id, project, run, author=actor)
    return [
        replace(draft, inputs=_edges(s, parts, project_id, project, draft))
        if draft.manifest.components or any(i.relation == "contains" for i in draft.inputs)
        else draft
        for draft in made
    ]


# --- one by itself


def _few(many: Sequence[Any], most: int, field: str) -> Sequence[Any]:
    if len(many) > most:
        raise TooLarge(f"{len(many):,} {field}, and {most:,} are allowed at once", field=field)
    return many


def _check_config(kind: Kind[Any], manifest: Manifest) -> None:
    try:
        problems = kind.check(manifest.config)
    except LlmartifactsError:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in's check of a stranger's config
        raise InvalidManifest(
            f"the config of a {kind.name} cannot be checked: {told_by(error)}", field="config"
        ) from None
    if problems:
        field, _, what = problems[0].partition(": ")
        raise InvalidValue(what or problems[0], field=f"config.{field}" if what else "config")
    if manifest.components and type(kind).references is Kind.references:
        raise InvalidManifest(f"a {kind.name} has no components", field="components")


def _check_files(manifest: Manifest) -> None:
    sizes: dict[Digest, int] = {}
    for i, file in enumerate(manifest.files):
        if sizes.setdefault(file.digest, file.size) != file.size:
            told = f"{file.path!r} has the digest of a file of {sizes[file.digest]:,} bytes, and says {file.size:,}"
            raise InvalidManifest(told, field=f"files[{i}].size")
        if file.url is not None and parse_place(file.url, field=f"files[{i}].url").scheme not in REMOTE:
            raise InvalidManifest(
                f"{shown(file.url)} is no place that everybody can fetch from",
                field=f"files[{i}].url",
                next_step="Use https:// or s3://; what lies on one machine is logged as a file.",
            )


def _input(given: Input, kind: Kind[Any] | None) -> Input:
    given = replace(given, reference=given.reference.required("an input", field="inputs"))
    if given.relation == "contains":
        return given
    if given.role:
        raise InvalidInput(f"an input has the role {shown(given.role)}, and only parts have one", field="inputs")
    if kind is not None:
        return replace(given, relation=kind.input_relation)
    if given.relation not in _STRANGE:
        raise InvalidInput(f"{shown(given.relation)} is no relation to an input", field="inputs")
    return given


# --- against what is there


def _check_sizes(s: Session, project_id: int, manifests: Sequence[Manifest]) -> None:
    """Refuse a size that is not the one of the bytes which the project holds already."""
    claimed = {f.digest: (f.path, f.size) for m in manifests for f in m.files if f.url is None}
    for digest, size in versions.sizes(s, project_id, list(claimed)).items():
        path, said = claimed[digest]
        if said != size:
            raise InvalidManifest(f"{path!r} has {size:,} bytes, and the manifest says {said:,}", field="files")


def _edges(s: Session, parts: Parts, project_id: int, project: str, draft: Draft) -> tuple[Input, ...]:
    """The edges of a draft: to its inputs, and one to each part."""
    named = {i.role: i.reference for i in draft.inputs if i.relation == "contains"}
    rest = [i for i in draft.inputs if i.relation != "contains"]
    stray = named.keys() - {part.role for part in draft.manifest.components}
    if stray:
        raise InvalidManifest(
            f"no part has the role {shown(min(stray))}, and an input says it contains it", field="inputs"
        )
    found = {part.role: _part(s, project_id, project, part, named.get(part.role)) for part in draft.manifest.components}
    if found:
        _check_bundle(s, parts, draft.manifest, found)
    contains = (Input(row.version.pinned, "contains", role) for role, row in found.items())
    return (*rest, *contains)


def _part(s: Session, project_id: int, project: str, part: Component, named: Reference | None) -> VersionRow:
    """The version that a part is: the one that is named, if it has the digest, else the first one that has it."""
    field = f"components.{part.role}"
    if named is not None:
        if named.project not in (None, project):
            raise InvalidManifest(f"{shown(str(named))} lies in another project", field=field)
        row = versions.find(s, project_id, project, named)
    else:
        first = versions.first_of(s, project_id, project, part.digest)
        if first is None:
            raise NotFound(
                f"no version in {project} has the digest {part.digest}", what="component", name=part.role, field=field
            )
        row = first
    if (row.version.digest, row.version.kind) != (part.digest, part.kind):
        raise InvalidManifest(
            f"{row.version} is the {row.version.kind} {row.version.digest}, not the {part.kind} {part.digest}",
            field=field,
        )
    return row


def _check_bundle(s: Session, parts: Parts, manifest: Manifest, found: Mapping[str, VersionRow]) -> None:
    models = manifest.config.get("models")
    taken = {str(role).casefold() for role in models} if isinstance(models, Mapping) else set()
    inner: dict[Digest, Manifest | None] = {}
    size = 0
    for role, row in found.items():
        body = parts.manifest(s, row.version.digest, None)
        size += len(body.to_bytes())
        parts.check_room(size)
        if role.casefold() in taken:
            raise InvalidValue(f"the role {role!r} is taken twice", field=f"components.{role}")
        taken.add(role.casefold())
        if body.components or body.kind in (manifest.kind, BUNDLE):
            raise InvalidValue("a bundle holds no bundle", field=f"components.{role}")
        inner[row.version.digest] = body
    names = {role: row.version.name for role, row in found.items()}
    refuse_misfits([Member(BUNDLE, manifest, contains=names)], inner)


def lacking(s: Session, row: VersionRow, inputs: Sequence[Input]) -> list[Input]:
    """The edges that a version logged before still lacks: each part of a bundle keeps the one that it has."""
    there = graph.parts(s, row.id) if any(i.relation == "contains" for i in inputs) else {}
    return [i for i in inputs if i.relation != "contains" or i.role not in there]
