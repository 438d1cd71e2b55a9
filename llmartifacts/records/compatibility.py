"""Compatibility rules: pure functions, run when a bundle is logged and promoted, and when a set is resolved.

Judged is what belongs together: the parts of one bundle, and the set that moves or is resolved in one call. In a bundle
a broken rule is an error. Of a set only the unambiguous is: parts of two applications may move at once.

Rules read configs, never files, and never trust them: a config that is not what its kind writes cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmartifacts.errors import Incompatible
from llmartifacts.records.digest import Digest, short
from llmartifacts.records.facts import (
    DatasetFacts,
    IndexFacts,
    ModelFacts,
    PromptFacts,
    dataset_facts,
    index_facts,
    inputs_of,
    models_of,
    prompt_facts,
)
from llmartifacts.records.manifest import Manifest

Severity = Literal["error", "warning", "inconclusive"]

RULES: Mapping[str, str] = {
    "bundle-in-step": "a bundle and a part that move together agree in the part's digest",
    "bundle-nested": "a bundle holds no bundle",
    "config-unreadable": "a component's config is what its kind writes",
    "dataset-fields": "a dataset has the variables that a prompt beside it needs",
    "index-dimension": "an index has the dimension of the embedder's vectors",
    "index-embedder": "an index was built with the embedder that it is asked with",
    "index-metric": "an index compares vectors as the embedder's are meant to be compared",
    "index-normalisation": "an index and the embedder agree on unit length",
    "kind-unknown": "a component is of a kind that is installed",
    "part-kind": "a part is of the kind that its bundle says",
    "part-missing": "every part of a bundle is there",
    "prompt-model": "a prompt's model is one of its bundle's models",
    "prompt-variables": "whatever a prompt needs is given by a component, a dataset or the caller",
    "response-format": "a dataset expects the fields that the prompt's response format has",
}
"""Id of each rule -> what it demands."""

KINDS = frozenset({"prompt", "vector_index", "eval_dataset", "bundle", "report", "files"})
INDEX_SUPPLIES = frozenset({"context", "documents", "passages"})
"""Variables that a retrieval over an index gives to a prompt."""


@dataclass(frozen=True, slots=True)
class Member:
    """One component of the set that is checked.

    Attributes:
        label: What people call it: a collection, a role or a field.
        manifest: What it is.
        collection: Name of its collection; empty if unknown.
        contains: For a bundle: role -> name of the collection the part came from.
    """

    label: str
    manifest: Manifest
    collection: str = ""
    contains: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule.

    Attributes:
        rule: Id of the rule, such as `index-dimension`.
        severity: `error` refuses, `warning` is shown, `inconclusive` means that it cannot be told.
        digests: The digests concerned.
        message: What does not fit, one sentence.
        mend: How to mend it.
    """

    rule: str
    severity: Severity
    digests: tuple[Digest, ...]
    message: str
    mend: str

    def __str__(self) -> str:
        digests = ", ".join(map(short, self.digests))
        return f"{self.rule}: {self.message}{f' ({digests})' if digests else ''}"


def check_set(
    members: Sequence[Member],
    parts: Mapping[Digest, Manifest | None],
    *,
    installed: Callable[[str], bool] = KINDS.__contains__,
) -> list[Problem]:
    """Check a set of components, bundles unfolded.

    Args:
        members: What is moved or resolved together.
        parts: Manifests of the parts of every bundle among them; None where one is missing.
        installed: Says whether a kind is installed, asked only of one that no rule reads; a component of a kind that is
            not cannot be judged. By default the built-in kinds are.

    Returns:
        Every broken rule once, errors first; empty if all fit.
    """
    distinct = list({(m.collection or m.label, m.manifest.digest): m for m in members}.values())
    bundles = [m for m in distinct if m.manifest.kind == "bundle"]
    found = [*_in_step(bundles, distinct)]
    for bundle in bundles:
        found += _unfoldable(bundle, parts)
        found += _judge(_bundle_scope(bundle, parts), installed)
    found += _judge(_loose_scope(distinct), installed)
    return sorted(dict.fromkeys(found), key=lambda p: _GRAVEST_FIRST.index(p.severity))


def refuse_misfits(members: Sequence[Member], parts: Mapping[Digest, Manifest | None]) -> list[Problem]:
    """`check_set`, raising on errors.

    Returns:
        The problems that do not refuse: warnings, and what cannot be told.

    Raises:
        Incompatible: At least one rule of severity `error` is broken; all are listed.
    """
    problems = check_set(members, parts)
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        raise Incompatible(
            errors[0].message,
            problems=tuple(map(str, errors)),
            next_step=" ".join(dict.fromkeys(p.mend for p in errors if p.mend)),
        )
    return problems


# --- what belongs together


@dataclass(frozen=True, slots=True)
class _Scope:
    """Components and models that serve one application, as far as is known.

    Attributes:
        loose: They only happen to move together, so that no part is known to be meant for another.
        owners: Digests of the bundles that hold them.
        inputs: Variables that the caller gives.
        models: The models.
        parts: Role or label, and manifest, of each component.
    """

    loose: bool
    owners: tuple[Digest, ...]
    inputs: frozenset[str]
    models: tuple[ModelFacts, ...]
    parts: tuple[tuple[str, Manifest], ...]


def _bundle_scope(bundle: Member, parts: Mapping[Digest, Manifest | None]) -> _Scope:
    manifest = bundle.manifest
    there = [(c.role, parts.get(c.digest)) for c in manifest.components]
    known = tuple((role, part) for role, part in there if part is not None)
    return _Scope(False, (manifest.digest,), inputs_of(manifest.config), models_of(manifest.config), known)


def _loose_scope(members: Sequence[Member]) -> _Scope:
    """The members outside bundles, and the models of bundles that hold nothing but models."""
    owners = [m.manifest for m in members if m.manifest.kind == "bundle" and not m.manifest.components]
    return _Scope(
        True,
        tuple(o.digest for o in owners),
        frozenset(name for o in owners for name in inputs_of(o.config)),
        tuple(model for o in owners for model in models_of(o.config)),
        tuple((m.label, m.manifest) for m in members if m.manifest.kind != "bundle"),
    )


def _in_step(bundles: Sequence[Member], members: Sequence[Member]) -> Iterator[Problem]:
    for bundle in bundles:
        for part in bundle.manifest.components:
            name = bundle.contains.get(part.role)
            for other in members:
                if name and other.collection == name and other.manifest.digest != part.digest:
                    yield Problem(
                        "bundle-in-step",
                        "error",
                        (bundle.manifest.digest, part.digest, other.manifest.digest),
                        f"{bundle.label} holds another version of {name} (as {part.role}) than the one beside it",
                        f"Move {bundle.label} alone, or log it again with the version of {name} that moves.",
                    )


def _unfoldable(bundle: Member, parts: Mapping[Digest, Manifest | None]) -> Iterator[Problem]:
    for part in bundle.manifest.components:
        found = parts.get(part.digest)
        digests = (bundle.manifest.digest, part.digest)
        if found is None:
            told = f"the {part.kind} {part.role!r} of {bundle.label} is missing"
            yield Problem("part-missing", "error", digests, told, f"Log the content of {part.role!r} again.")
        elif found.kind == "bundle" or found.components:
            told = f"{part.role!r} of {bundle.label} is a bundle"
            yield Problem("bundle-nested", "error", digests, told, f"Name the parts of {part.role!r} instead.")
        elif found.kind != part.kind:
            told = f"{part.role!r} of {bundle.label} is a {found.kind}, and the bundle says {part.kind}"
            yield Problem("part-kind", "error", digests, told, f"Log {bundle.label} again.")


# --- the rules


def _judge(scope: _Scope, installed: Callable[[str], bool]) -> Iterator[Problem]:
    if len(scope.parts) + len(scope.models) < 2 and not scope.inputs:
        return  # alone, there is nothing to fit
    indexes: list[IndexFacts] = []
    prompts: list[PromptFacts] = []
    datasets: list[DatasetFacts] = []
    for role, manifest in scope.parts:
        facts = _READ[manifest.kind](role, manifest) if manifest.kind in _READ else None
        if isinstance(facts, IndexFacts):
            indexes.append(facts)
        elif isinstance(facts, PromptFacts):
            prompts.append(facts)
        elif isinstance(facts, DatasetFacts):
            datasets.append(facts)
        else:
            yield from _unread(scope, role, manifest, installed)
    yield from _index_rules(scope, indexes)
    for prompt in prompts:
        yield from _variable_rules(scope, prompt, bool(indexes), datasets)
        yield from _model_rules(scope, prompt)
        yield from _response_rules(prompt, datasets)


_READ: Mapping[str, Callable[[str, Manifest], IndexFacts | PromptFacts | DatasetFacts | None]] = {
    "vector_index": index_facts,
    "prompt": prompt_facts,
    "eval_dataset": dataset_facts,
}


def _unread(scope: _Scope, role: str, manifest: Manifest, installed: Callable[[str], bool]) -> Iterator[Problem]:
    digests = (*scope.owners, manifest.digest)
    if manifest.kind in _READ:
        told = f"the config of {role!r} is not what a {manifest.kind} has"
        yield Problem("config-unreadable", "inconclusive", digests, told, f"Log {role!r} again with this release.")
    elif not installed(manifest.kind):
        told = f"the kind {manifest.kind!r} of {role!r} is not installed"
        mend = "Install the package that brings the kind."
        yield Problem("kind-unknown", "inconclusive", digests, told, mend)


def _index_rules(scope: _Scope, indexes: Sequence[IndexFacts]) -> Iterator[Problem]:
    judged = [list(_index_against_embedder(scope, index)) for index in indexes]
    # Two indexes that move together may have two embedders; then it is enough that the embedder known fits one.
    if scope.loose and any(all(p.severity != "error" for p in problems) for problems in judged):
        judged = [[p for p in problems if p.severity != "error"] for problems in judged]
    for problems in judged:
        yield from problems


def _index_against_embedder(scope: _Scope, index: IndexFacts) -> Iterator[Problem]:
    model = embedder_of(index, scope.models)
    if model is None:
        return
    digests = (*scope.owners, index.digest)
    role, who = index.role, f"the embedder {model.name!r} ({model.role})"
    mend = f"Build {role!r} with {model.name!r}, or name the embedder it was built with: {index.model!r}."
    if not same_model(index.model, model.name):
        told = f"{role!r} was built with {index.model!r}, and {who} asks it"
        yield Problem("index-embedder", "error", digests, told, mend)
    if model.dimension is not None and model.dimension != index.dimension:
        told = f"{role!r} has dimension {index.dimension}, and {who} gives {model.dimension}"
        yield Problem("index-dimension", "error", digests, told, mend)
    # On unit vectors, and on nothing else, cosine, inner product and L2 give one order.
    fits = index.normalized if model.metric == "cosine" else model.metric in (None, index.metric)
    if not fits:
        told = f"{role!r} compares by {index.metric}, and {who} is meant for {model.metric}"
        yield Problem("index-metric", "error", digests, told, mend)
    if model.normalized is not None and model.normalized != index.normalized:
        # An index of unit vectors scales its queries, so that only the other way round changes answers.
        severity: Severity = "warning" if index.normalized else "error"
        holds, gives = ("unit vectors" if unit else "any length" for unit in (index.normalized, model.normalized))
        told = f"{role!r} holds vectors of {holds}, and {who} gives {gives}"
        yield Problem("index-normalisation", severity, digests, told, mend)


def embedder_of(index: IndexFacts, models: Sequence[ModelFacts]) -> ModelFacts | None:
    """The embedder that an index is asked with; None if it cannot be told which one it is.

    In this order: the model the index was built with; the role `ROLE-embedder` or `ROLE_embedder`; the role
    `embedder`; the only embedder there is.
    """
    candidates = [m for m in models if m.embeds]
    alike = [m for m in candidates if same_model(index.model, m.name)]
    if alike:
        return alike[0]
    for wanted in (f"{index.role}-embedder", f"{index.role}_embedder", "embedder"):
        exact = [m for m in candidates if m.role == wanted]
        if exact:
            return exact[0] if len(exact) == 1 else None
    return candidates[0] if len(candidates) == 1 else None


def same_model(a: str, b: str) -> bool:
    """Whether two names mean one model: whatever the case, and with or without the organisation in front."""
    a, b = a.strip().casefold(), b.strip().casefold()
    return a == b or (("/" in a) != ("/" in b) and a.rpartition("/")[2] == b.rpartition("/")[2])


def _variable_rules(
    scope: _Scope, prompt: PromptFacts, retrieves: bool, datasets: Sequence[DatasetFacts]
) -> Iterator[Problem]:
    needed = prompt.required - (INDEX_SUPPLIES if retrieves else frozenset())
    missing = needed - scope.inputs
    for dataset in datasets:
        # Where the bundle says what the caller gives, a dataset's one text stands for none of the rest.
        missing = missing - dataset.fields if scope.inputs else dataset.lacks(missing)
    said = bool(scope.inputs or datasets)
    if missing and (said or not scope.loose):
        yield Problem(
            "prompt-variables",
            "error" if said and not scope.loose else "warning",
            (*scope.owners, prompt.digest),
            f"nothing gives {_told(missing)} to the prompt {prompt.role!r}",
            f"Name what the caller gives: Bundle(…, inputs={sorted(missing | scope.inputs)}).",
        )
    if not scope.inputs:
        return  # then the rule above speaks of the datasets already
    for dataset in datasets:
        lacking = dataset.lacks(needed)
        if lacking:
            yield Problem(
                "dataset-fields",
                "warning",
                (prompt.digest, dataset.digest),
                f"the dataset {dataset.role!r} has no {_told(lacking)}, which the prompt {prompt.role!r} needs",
                f"Add the fields to {dataset.role!r}, or evaluate {prompt.role!r} with another dataset.",
            )


def _model_rules(scope: _Scope, prompt: PromptFacts) -> Iterator[Problem]:
    wanted = prompt.model
    models = [m for m in scope.models if not m.embeds]
    if wanted is None or not models:
        return
    digests = (*scope.owners, prompt.digest)
    alike = [m for m in models if (m.provider, m.name) == (wanted.provider, wanted.name)]
    fitting = [m for m in alike if None in (m.revision, wanted.revision) or m.revision == wanted.revision]
    if not fitting:
        have = ", ".join(sorted(map(str, models)))
        yield Problem(
            "prompt-model",
            "warning" if scope.loose else "error",
            digests,
            f"the prompt {prompt.role!r} was made for {wanted}, and the models are {have}",
            f"Add {wanted} to the bundle's models, or log {prompt.role!r} for one of them.",
        )
        return
    apart = [(m.role, _apart(m.parameters, wanted.parameters)) for m in fitting]
    if all(keys for _, keys in apart):
        role, keys = apart[0]
        yield Problem(
            "prompt-model",
            "warning",
            digests,
            f"the prompt {prompt.role!r} and the model {role!r} differ in {_told(keys)}",
            "State a parameter in one place, or the same in both.",
        )


def _response_rules(prompt: PromptFacts, datasets: Sequence[DatasetFacts]) -> Iterator[Problem]:
    if prompt.response_fields is None:
        return
    for dataset in datasets:
        strange = dataset.expected_fields - prompt.response_fields
        if strange:
            yield Problem(
                "response-format",
                "warning",
                (prompt.digest, dataset.digest),
                f"the dataset {dataset.role!r} expects {_told(strange)}, and {prompt.role!r} answers without",
                f"Add the fields to the response format of {prompt.role!r}, or use another dataset.",
            )


_GRAVEST_FIRST = ("error", "inconclusive", "warning")


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in a.keys() & b.keys() if a[key] != b[key])


def _told(names: Iterable[str]) -> str:
    told = [repr(n)[:80] for n in sorted(names)]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
