"""What a trace, a log line and a response say of the versions that served them.

    with generation.traced():            # all that is done here, also in tasks and `asyncio.to_thread`, is of it
        answer = chain.invoke(question, config=generation.runnable_config())
        response.headers.update([generation.header()])

The attributes of a generation, flat and plain:

    llmartifacts.stamp, .set (one digest over all), .project, .revision, .source, .generation, .components, .warnings
    llmartifacts.component.FIELD.name, .version, .digest, .kind, .alias, .reason        for each component

and, by conventions that tools know without being told:

    gen_ai.prompt.name, gen_ai.prompt.version, gen_ai.data_source.id
        OpenTelemetry GenAI: open-telemetry/semantic-conventions-genai, schema gen-ai-dev/1.42 (`prompt.version` came
        with its pull request 179 of May 2026), all of status "development"; a data source is what grounds answers
    llm.prompt_template.version, prompt.vendor, prompt.id
        OpenInference: openinference-semantic-conventions 0.1.42

Of a prompt these have room for one: they are there where a set has just one prompt, or `traced(prompt=…)` says which.
Template text and variables (`llm.prompt_template.template`, `.variables`) are never among them: they may be secret.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import NotFound
from llmartifacts.records.digest import short
from llmartifacts.records.names import near_names
from llmartifacts.records.reference import Reference

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from llmartifacts.records.lock import Locked
    from llmartifacts.runtime.generation import Generation
    from llmartifacts.runtime.stamp import Source

Value = str | int | list[str]
"""What an attribute may be: all that OpenTelemetry, JSON and LangChain take as it is."""
Attributes = Mapping[str, Value]

HEADER = "X-LLM-Artifacts"
PREFIX = "llmartifacts."
COMPONENT = f"{PREFIX}component."
VENDOR = "llmartifacts"
MAX_ON_SPAN = 64
_PROMPT = "prompt"
_INDEX = "vector_index"


class Reason(StrEnum):
    """Why a component is at the version that it is at; the words are those of OpenFeature, where it has them."""

    STATIC = "STATIC"
    """The one version that the reference means, by the registry or by the lockfile that was asked for."""
    SPLIT = "SPLIT"
    """One of two versions, by a rollout's weights; no alias is split yet, so nothing gives it."""
    STALE = "STALE"
    """What the reference meant when the registry was last heard of: the last-known-good set."""
    FALLBACK = "FALLBACK"
    """What was packaged with the service, for when there is nothing else."""


_REASONS: dict[Source, Reason] = {
    "registry": Reason.STATIC,
    "lockfile": Reason.STATIC,
    "last-known-good": Reason.STALE,
    "fallback": Reason.FALLBACK,
}


def reasons(generation: Generation[Any]) -> Mapping[str, Reason]:
    """Component name -> why it is at its version."""
    reason = _REASONS[generation.source]
    return MappingProxyType(dict.fromkeys(generation.lock.components, reason))


def attributes(generation: Generation[Any]) -> dict[str, Value]:
    """Everything that can be said of a generation, flat; see the module. Made anew, so that it may be changed."""
    lock = generation.lock
    made: dict[str, Value] = {
        f"{PREFIX}stamp": generation.stamp(),
        f"{PREFIX}set": str(lock.set_digest),
        f"{PREFIX}project": lock.project,
        f"{PREFIX}revision": lock.revision,
        f"{PREFIX}source": generation.source,
        f"{PREFIX}generation": generation.number,
        f"{PREFIX}components": [f"{name}={_token(c)}" for name, c in lock.components.items()],
    }
    if generation.warnings:
        made[f"{PREFIX}warnings"] = [f"{w.code}{'.' * bool(w.field)}{w.field}" for w in generation.warnings]
    why = reasons(generation)
    for name, component in lock.components.items():
        made |= {f"{COMPONENT}{name}.{key}": value for key, value in _of_component(component, why[name]).items()}
    return made | _conventions(generation)


def shared(generation: Generation[Any]) -> Attributes:
    """The same for a span, made once for a generation; not to be changed.

    A span keeps 128 attributes by default and drops the oldest for more: where a set is so large that there would be
    more than 64, those of single components are left out, and `llmartifacts.components` names them.
    """
    memo = generation._memo
    if not memo:
        made = attributes(generation)
        if len(made) > MAX_ON_SPAN:
            made = {key: value for key, value in made.items() if not key.startswith(COMPONENT)}
        memo.update(made)
    return memo


def _of_component(component: Locked, reason: Reason) -> dict[str, str]:
    alias = Reference.parse(component.reference).alias
    return {
        "name": component.name,
        "version": f"v{component.number}",
        "digest": str(component.digest),
        "kind": component.kind,
        **({"alias": alias} if alias else {}),
        "reason": reason.value,
    }


def _conventions(generation: Generation[Any]) -> dict[str, Value]:
    """What the conventions have room for: one prompt and one source of data, where there is just one."""
    made: dict[str, Value] = {}
    found = prompts(generation)
    if len(found) == 1:
        made |= next(iter(found.values()))
    indexes = [c for c in generation.lock.components.values() if c.kind == _INDEX]
    if len(indexes) == 1:
        made["gen_ai.data_source.id"] = f"{indexes[0].name}:v{indexes[0].number}"
    return made


def prompts(generation: Generation[Any]) -> dict[str, dict[str, Value]]:
    """Field of each prompt -> what the conventions say of it; a bundle's prompts too, by the bundle's version."""
    lock = generation.lock
    made = {name: _prompt(c.name, c, lock.project) for name, c in lock.components.items() if c.kind == _PROMPT}
    bundles = [c for c in lock.components.values() if c.kind == "bundle"]
    if made or len(bundles) != 1 or len(lock.components) != 1:
        return made
    return {role: _prompt(f"{bundles[0].name}#{role}", bundles[0], lock.project) for role in _prompt_fields(generation)}


def _prompt(name: str, component: Locked, project: str) -> dict[str, Value]:
    pinned = Reference(component.name, project, number=component.number, digest=component.digest)
    return {
        "gen_ai.prompt.name": name,
        "gen_ai.prompt.version": f"v{component.number}",
        "llm.prompt_template.version": f"v{component.number}",
        "prompt.vendor": VENDOR,
        "prompt.id": str(pinned),
    }


def _prompt_fields(generation: Generation[Any]) -> list[str]:
    """Fields of the value that hold a prompt: a lockfile names a bundle, not its parts."""
    loaded = sys.modules.get("llmartifacts.kinds.prompt.value")  # a value of the kind is there: its module is
    value: Any = generation.value
    if loaded is None or not dataclasses.is_dataclass(value):
        return []
    fields = [f.name for f in dataclasses.fields(value)]
    return [name for name in fields if isinstance(getattr(value, name, None), loaded.Prompt)]


def _token(component: Locked) -> str:
    return f"{component.name}:v{component.number}@{short(component.digest)}"


def runnable_config(generation: Generation[Any]) -> RunnableConfig:
    """Metadata and tags for LangChain's runnables: every run below has them, and callbacks and tracers see them."""
    tags = list(dict.fromkeys(f"{c.name}:v{c.number}" for c in generation.lock.components.values()))
    return {"metadata": attributes(generation), "tags": tags}


# --- the generation of what is being done


@dataclass(frozen=True, slots=True)
class _Traced:
    generation: Generation[Any]
    attributes: Attributes


_traced: ContextVar[_Traced | None] = ContextVar("llmartifacts_generation", default=None)


def current() -> Generation[Any] | None:
    """The generation of what is being done here, as `Generation.traced` said; None outside of it."""
    found = _traced.get()
    return None if found is None else found.generation


def current_attributes() -> Attributes | None:
    """The attributes of the same, with those of the prompt that was named; None outside of it. Not to be changed."""
    found = _traced.get()
    return None if found is None else found.attributes


@contextmanager
def traced(generation: Generation[Any], prompt: str | None = None) -> Iterator[None]:
    """As `Generation.traced`."""
    said = shared(generation)
    if prompt is not None:
        said = {**said, **_named(generation, prompt)}
    token = _traced.set(_Traced(generation, said))
    try:
        yield
    finally:
        with suppress(ValueError):  # ended in another context, as generators of some frameworks are: nothing to undo
            _traced.reset(token)


def _named(generation: Generation[Any], field: str) -> dict[str, Value]:
    found = prompts(generation)
    if field not in found:
        raise NotFound(
            f"this generation has no prompt {field!r}",
            what="prompt",
            name=field,
            near=near_names(field, found),
            field="prompt",
            next_step=f"Its prompts: {', '.join(found)}." if found else "It has no prompt.",
        )
    return found[field]
