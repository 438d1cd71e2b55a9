"""A policy: for each alias that it protects, the gates that a version of each kind must pass.

    name: production
    aliases:
      prod:
        after: staging                 # only what staging serves, or once served
        reason: true                   # somebody must say why
        break_glass: {people: [ada]}   # who may move it all the same; nobody, if it is left out
        kinds:
          vector_index:
            - eval: {suite: support-retrieval, max_age: 30d}
            - any_of:
                - approvals: {count: 2}
                - ticket: {pattern: "EMERGENCY-[0-9]+"}
          "*":
            - approvals: {count: 1}

An alias that is not named is free. One that is named is protected for every kind: a kind without gates of its own takes
those of `*`, and where there are none either, nothing of that kind passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from llmartifacts import plugins
from llmartifacts.errors import (
    InvalidInput,
    InvalidValue,
    LlmartifactsError,
    NotFound,
)
from llmartifacts.gates.base import AllOf, AnyOf, Candidate, Gate, Moving, judge
from llmartifacts.gates.python import ALLOW, PythonGate, not_allowed
from llmartifacts.records.arguments import check_line, check_text, told_by
from llmartifacts.records.canonical import canonical_bytes, plain_json
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.names import check_alias, check_name, did_you_mean
from llmartifacts.records.policy import GateResult, Verdict

ANY_KIND = "*"
MAX_BYTES = 256 * 1024
MAX_GATES = 200
MAX_NESTING = 8
_COMBINED = ("all_of", "any_of")


class BreakGlass(BaseModel):
    """Who may move a protected alias although a gate denies: anyone of `people`, or with one of `roles`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: tuple[StrictStr, ...] = ()
    roles: tuple[StrictStr, ...] = ()


class AliasRules(BaseModel):
    """What one alias demands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: StrictStr | None = None
    reason: StrictBool = False
    break_glass: BreakGlass | StrictBool = False
    kinds: dict[StrictStr, tuple[Any, ...]] = Field(default_factory=dict, max_length=64)


class PolicyBody(BaseModel):
    """A policy as somebody writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StrictStr = Field(min_length=1, max_length=128)
    description: StrictStr = Field(default="", max_length=4096)
    aliases: dict[StrictStr, AliasRules] = Field(min_length=1, max_length=64)


@dataclass(frozen=True)
class Policy:
    """A policy, checked: every gate exists and takes its options.

    Attributes:
        body: What it says.
    """

    body: PolicyBody

    @classmethod
    def of(cls, body: Any) -> Policy:
        """A policy from plain JSON.

        Raises:
            InvalidValue: It is none, or a gate is not installed; the field is named, with near names.
        """
        try:
            made = cls(_model(plain_json(body)))
            check_line(made.body.name, field="name")
            check_text(made.body.description, field="description")
            made._gates  # noqa: B018 - made now, so that what is wrong shows now
        except InvalidValue:
            raise
        except InvalidInput as error:
            raise InvalidValue.of(error, field=error.field or "policy") from None
        return made

    @classmethod
    def from_yaml(cls, data: bytes, *, origin: str = "") -> Policy:
        """A policy from YAML; errors name the line.

        Raises:
            InvalidValue: It is not YAML, or no policy.
            TooLarge: More than 256 KiB.
        """
        from llmartifacts.formats.yaml import located, place_text, read_yaml_with_lines

        value, lines = read_yaml_with_lines(data, origin=origin)
        try:
            return cls.of(value)
        except LlmartifactsError as error:
            around = [(text, n) for place, n in lines.items() if error.field.startswith(text := place_text(place))]
            line = max(around, default=("", None), key=lambda found: len(found[0]))[1]
            raise InvalidValue.of(error, origin=located(origin, line)) from None

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The policy as plain JSON, defaults left out."""
        return self.body.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of its canonical JSON, without the description."""
        return digest_of(canonical_bytes({k: v for k, v in self.plain.items() if k != "description"}))

    @property
    def protected(self) -> tuple[str, ...]:
        """The aliases that it names, sorted."""
        return tuple(sorted(self.body.aliases))

    def gates(self, alias: str, kind: str) -> Sequence[Gate]:
        """The gates that a version of a kind must pass to be an alias."""
        by_kind = self._gates[alias]
        return by_kind.get(kind, by_kind.get(ANY_KIND, ()))

    def gates_of(self, alias: str) -> Sequence[Sequence[Gate]]:
        """The gates of an alias, kind by kind."""
        return tuple(self._gates[alias].values())

    @property
    def is_slow(self) -> bool:
        """Whether a gate of it runs a function of somebody else, which may take long."""
        return any(getattr(gate, "slow", False) for gate in self._every())

    def refuse_functions_but(self, allowed: frozenset[str] | None) -> None:
        """Refuse a policy with a function of somebody else that may not be run here; None lets any be.

        Raises:
            InvalidValue: It names one.
        """
        for gate in self._every():
            refusal = not_allowed(gate.function, allowed) if isinstance(gate, PythonGate) else ""
            if refusal:
                raise InvalidValue(refusal, field="policy", next_step=ALLOW)

    def _every(self) -> Iterator[Gate]:
        return (g for by_kind in self._gates.values() for many in by_kind.values() for g in within(many))

    def rules(self, alias: str) -> AliasRules | None:
        """What an alias demands; None if it is free."""
        return self.body.aliases.get(alias)

    def judge(self, candidate: Candidate, moving: Moving) -> list[GateResult]:
        """What its gates say of one alias that is about to move; nothing, where the alias is free."""
        rules = self.rules(moving.alias)
        if rules is None:
            return []
        about = candidate.about(moving)
        gates = [*_stage_gates(rules), *self.gates(moving.alias, moving.version.kind)]
        if not self.gates(moving.alias, moving.version.kind):
            told = f"the policy {self.body.name} has no gates for {moving.version.kind} to be {moving.alias}"
            step = f"Add them under aliases.{moving.alias}.kinds, or under '*'."
            return [GateResult("policy", "policy", Verdict.ERROR, told, step)]
        return [judge(gate, about) for gate in gates]

    def may_break_glass(self, alias: str, person: str, roles: Sequence[str]) -> bool:
        """Whether somebody may move an alias although a gate denies."""
        rules = self.rules(alias)
        allowed = False if rules is None else rules.break_glass
        if isinstance(allowed, bool):
            return allowed
        return person in allowed.people or bool(set(roles) & set(allowed.roles))

    @cached_property
    def _gates(self) -> Mapping[str, Mapping[str, Sequence[Gate]]]:
        made: dict[str, dict[str, Sequence[Gate]]] = {}
        for alias, rules in self.body.aliases.items():
            check_alias(alias, field=f"aliases.{alias}")
            if rules.after == alias:
                raise InvalidValue(f"{alias} cannot come after itself", field=f"aliases.{alias}.after")
            _stage_gates(rules, f"aliases.{alias}")
            for kind, specs in rules.kinds.items():
                where = f"aliases.{alias}.kinds.{kind}"
                _check_kind(kind, where)
                gates = [_gate(spec, f"{where}[{i}]") for i, spec in enumerate(specs[: MAX_GATES + 1])]
                if sum(1 for _ in within(gates)) > MAX_GATES:
                    raise InvalidValue(f"more than {MAX_GATES} gates for one kind", field=where)
                made.setdefault(alias, {})[kind] = gates
            made.setdefault(alias, {})
        return made


def within(gates: Iterable[Gate]) -> Iterator[Gate]:
    """Gates, and those inside them."""
    for one in gates:
        yield one
        if isinstance(one, AllOf | AnyOf):
            yield from within(one.gates)


def _check_kind(kind: str, where: str) -> None:
    """Refuse a kind that looks like a slip: its versions would silently have to pass other gates, or none."""
    if kind == ANY_KIND or plugins.is_installed("kinds", kind):
        return
    check_name(kind, field=where)
    step = did_you_mean(kind, plugins.names("kinds"))
    if step:
        raise InvalidValue(f"no kind is called {kind!r:.60}", field=where, next_step=step)


def _stage_gates(rules: AliasRules, where: str = "") -> list[Gate]:
    made: list[Gate] = []
    if rules.after is not None:
        try:
            made.append(plugins.load("gates", "stage")(after=rules.after))
        except InvalidValue as error:
            raise InvalidValue.of(error, field=f"{where}.after".lstrip(".")) from None
    if rules.reason:
        made.append(plugins.load("gates", "reason")())
    return made


def _gate(spec: Any, where: str, depth: int = 0) -> Gate:
    """A gate from `name`, or `{name: options}`, or `{all_of: [...]}`."""
    if depth > MAX_NESTING:
        raise InvalidValue(f"gates lie more than {MAX_NESTING} deep in each other", field=where)
    name, given = (spec, {}) if isinstance(spec, str) else _pair(spec, where)
    if name in _COMBINED:
        if not isinstance(given, list | tuple) or not given or len(given) > MAX_GATES:
            raise InvalidValue(f"{name} is a list of 1 to {MAX_GATES} gates", field=f"{where}.{name}")
        inner = [_gate(one, f"{where}.{name}[{i}]", depth + 1) for i, one in enumerate(given)]
        made: Gate
        made = AllOf(inner) if name == "all_of" else AnyOf(inner)
        return made
    if not isinstance(given, Mapping):
        raise InvalidValue(f"the options of {name} are no object", field=f"{where}.{name}")
    try:
        kind_of_gate = plugins.load("gates", name)
    except NotFound:
        known = [*plugins.names("gates"), *_COMBINED]
        listed = f"Gates: {', '.join(known)}."
        step = did_you_mean(name, known, listed)
        raise InvalidValue(f"no gate is called {name!r:.60}", field=where, next_step=step) from None
    except InvalidInput as error:
        raise InvalidValue.of(error, field=where) from None
    try:
        return _checked(kind_of_gate(**given), where)
    except LlmartifactsError as error:
        inner_field = f"{where}.{name}" + (f".{error.field}" if error.field else "")
        raise InvalidValue.of(error, field=inner_field) from None
    except Exception as error:  # noqa: BLE001 - a plug-in's gate that takes other options, or fails of them
        raise InvalidValue(f"gate {name}: {told_by(error)}", field=f"{where}.{name}") from None


def _checked(gate: Any, where: str) -> Gate:
    if not callable(getattr(gate, "judge", None)):
        raise InvalidValue(f"a {type(gate).__name__} is no gate: it has no judge()", field=where)
    made: Gate = gate
    return made


def _pair(spec: Any, where: str) -> tuple[str, Any]:
    if not isinstance(spec, Mapping) or len(spec) != 1:
        step = "Write a gate as `compatibility`, or as `eval: {suite: support-retrieval}`."
        raise InvalidValue("a gate is a name, or one name with its options", field=where, next_step=step)
    ((name, given),) = spec.items()
    return str(name), {} if given is None else given


_WORDS = {
    "extra_forbidden": "unknown field",
    "missing": "this field is missing",
    "tuple_type": "this is a list, each entry on a line that begins with '-'",
    "dict_type": "this is an object: names, each with what belongs to it",
    "model_type": "this is an object: names, each with what belongs to it",
    "model_attributes_type": "this is an object: names, each with what belongs to it",
}


def _fields_at(place: Sequence[Any]) -> list[str]:
    model: type[BaseModel] = PolicyBody
    if "break_glass" in place[2:]:
        model = BreakGlass
    elif len(place) >= 2:
        model = AliasRules
    return list(model.model_fields)


def _model(body: Any) -> PolicyBody:
    from pydantic import ValidationError

    if len(canonical_bytes(body)) > MAX_BYTES:
        raise InvalidValue(f"the policy has more than {MAX_BYTES} bytes", field="policy")
    try:
        return PolicyBody.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])  # a slip also lacks a field
        where = ".".join(str(part) for part in first["loc"] if part not in ("BreakGlass", "bool"))
        known = _fields_at(first["loc"][:-1])
        extra = first["type"] == "extra_forbidden"
        step = did_you_mean(first["loc"][-1], known, f"Known: {', '.join(known)}.") if extra else ""
        message = _WORDS.get(first["type"], first["msg"])
        raise InvalidValue(message, field=where or "policy", next_step=step) from None
