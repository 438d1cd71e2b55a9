"""What a service wants: fields, each with a type and a reference.

A spec is a frozen dataclass whose fields are `Annotated[la.Prompt, "support-agent:prod"]`, or a mapping name ->
reference, or a frozen dataclass and one bundle, of which the fields are roles.

Example:
    >>> spec = parse_spec({"agent": "support-agent", "kb": "support-kb:v5"}, alias="staging")
    >>> {name: str(reference) for name, reference in spec.wanted.items()}
    {'agent': 'support-agent:staging', 'kb': 'support-kb:v5'}
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

from llmartifacts.errors import InvalidInput, InvalidReference, NotFound
from llmartifacts.records.names import LATEST, NAME, check_alias, near_names
from llmartifacts.records.reference import Reference

T = TypeVar("T")

BUNDLE = "bundle"
"""Name of the one component of a spec that takes everything from a bundle."""
MAX_FIELD = 128
_ROLE = re.compile(NAME)
_UNION = (typing.Union, types.UnionType)
_EXAMPLE = 'agent: Annotated[la.Prompt, "support-agent:prod"]'


@dataclass(frozen=True, slots=True)
class SpecField:
    """One field of a spec.

    Attributes:
        name: Its name; the role, where everything comes from one bundle.
        type: Class that its value must have; None takes any.
        optional: Whether it may be absent.
    """

    name: str
    type: type[Any] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Spec(Generic[T]):
    """What a service wants.

    Attributes:
        title: What people call it: the name of the class, or `spec`.
        fields: Name -> field, in order.
        wanted: Component name -> reference, each with a selector. The component names are the fields' names, or
            `bundle` alone where everything comes from one.
        from_bundle: Whether the fields are roles of one bundle.
        make: Builds the frozen value out of field name -> loaded value; absent optional fields are left out.
    """

    title: str
    fields: Mapping[str, SpecField]
    wanted: Mapping[str, Reference]
    from_bundle: bool
    make: Callable[[Mapping[str, Any]], T]

    def only(self, components: Collection[str]) -> Spec[T]:
        """The same spec, without the components that are not named."""
        return replace(self, wanted={name: r for name, r in self.wanted.items() if name in components})

    def may_be_absent(self, component: str) -> bool:
        """Whether a component is an optional field."""
        return not self.from_bundle and self.fields[component].optional

    def project(self, home: str) -> str:
        """The one project of all references; `home` is what names without a prefix mean.

        Raises:
            InvalidReference: They lie in several projects.
        """
        by_project = {(r.project or home): name for name, r in self.wanted.items()}
        if len(by_project) > 1:
            raise InvalidReference(
                f"the references lie in several projects: {', '.join(sorted(by_project))}",
                field=list(by_project.values())[-1],
                next_step="A resolver stays within one project.",
            )
        return next(iter(by_project))


def parse_spec(
    spec: type[T] | Mapping[str, str | Reference], bundle: str | Reference | None = None, alias: str | None = None
) -> Spec[T]:
    """Read a spec.

    Args:
        spec: A frozen dataclass, or a mapping name -> reference.
        bundle: Reference of the bundle whose roles the fields of the dataclass are.
        alias: Selector of references that have none.

    Raises:
        InvalidInput: It is no such thing, a field's annotation cannot be evaluated, or a field has no reference.
        InvalidReference: A reference is malformed or has no selector, and there is no alias.
    """
    if alias is not None and alias != LATEST:
        check_alias(alias)
    if isinstance(spec, Mapping):
        if bundle is not None:
            raise InvalidInput(
                "a bundle fills the fields of a dataclass, and the spec is a mapping",
                field="spec",
                next_step="Give a frozen dataclass whose fields are roles of the bundle.",
            )
        return cast("Spec[T]", _from_mapping(spec, alias))
    if not (isinstance(spec, type) and dataclasses.is_dataclass(spec)):
        raise InvalidInput(
            f"{spec!r:.100} is neither a dataclass nor a mapping of name to reference",
            field="spec",
            next_step=f"Write @dataclass(frozen=True) above a class with fields such as {_EXAMPLE}.",
        )
    if not cast(Any, spec).__dataclass_params__.frozen:
        raise InvalidInput(
            f"the dataclass {spec.__name__} is not frozen",
            field="spec",
            next_step=f"Write @dataclass(frozen=True) above {spec.__name__}.",
        )
    return _from_dataclass(spec, bundle, alias)


def chosen_alias(alias: str | None) -> str | None:
    """The selector of references that have none: the one given, else `$LLMARTIFACTS_ALIAS`, else None."""
    return alias or os.environ.get("LLMARTIFACTS_ALIAS") or None


def parse_spec_text(words: Sequence[str]) -> type[Any] | dict[str, str]:
    """Read a spec from the command line: `package.module:Class`, or `role=reference …`.

    The module is looked for in the working directory too.

    Raises:
        InvalidInput: The words are neither, or the module cannot be imported.
        NotFound: There is no such module or class; near names are given.
    """
    if not words:
        raise InvalidInput("no spec was given", field="SPEC", next_step=_SPEC_FORMS)
    if len(words) == 1 and "=" not in words[0]:
        return _imported(words[0])
    made: dict[str, str] = {}
    for word in words:
        name, equals, reference = word.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{word!r:.200} is not role=reference", field="SPEC", next_step=_SPEC_FORMS)
        if name in made:
            raise InvalidInput(f"{name!r:.100} is named twice", field=name)
        made[name] = reference
    return made


_SPEC_FORMS = "Write package.module:Class, or role=reference …, such as agent=support-agent:prod kb=support-kb:v5."


# --- mappings


def _from_mapping(spec: Mapping[str, str | Reference], alias: str | None) -> Spec[Mapping[str, Any]]:
    for name in spec:
        _check_field(name)
    wanted = {name: _selected(name, reference, alias) for name, reference in spec.items()}
    _refuse_empty(wanted)
    fields = {name: SpecField(name) for name in spec}
    return Spec("spec", types.MappingProxyType(fields), types.MappingProxyType(wanted), False, _frozen_mapping)


def _frozen_mapping(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return types.MappingProxyType(dict(values))


# --- dataclasses


def _from_dataclass(spec: type[T], bundle: str | Reference | None, alias: str | None) -> Spec[T]:
    fields: dict[str, SpecField] = {}
    wanted: dict[str, Reference] = {}
    if bundle is not None:
        wanted[BUNDLE] = _selected("bundle", bundle, alias)
    for field in dataclasses.fields(cast(Any, spec)):
        if not field.init:
            continue
        _check_field(field.name)
        annotation, references = _taken_apart(_evaluated(spec, field))
        fields[field.name] = _field(field, annotation)
        if bundle is None:
            wanted[field.name] = _selected(field.name, _the_one(field.name, references), alias)
        elif references:
            raise InvalidInput(
                f"the field {field.name!r} names {references[0]}, and everything comes from {bundle}",
                field=field.name,
                next_step=f"Write its type alone: {field.name}: {getattr(annotation, '__name__', annotation)}.",
            )
    _refuse_empty(fields)
    make = cast(Callable[[Mapping[str, Any]], T], lambda values: spec(**values))
    return Spec(spec.__name__, types.MappingProxyType(fields), types.MappingProxyType(wanted), bundle is not None, make)


def _the_one(name: str, references: list[str | Reference]) -> str | Reference:
    if len(references) != 1:
        problem = "names several references" if references else "names no reference"
        raise InvalidInput(f"the field {name!r} {problem}", field=name, next_step=f"Write it like {_EXAMPLE}.")
    return references[0]


def _field(field: dataclasses.Field[Any], annotation: Any) -> SpecField:
    has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    arms = typing.get_args(annotation) if typing.get_origin(annotation) in _UNION else (annotation,)
    nullable = type(None) in arms
    types_left = [arm for arm in arms if arm is not type(None)]
    wanted = types_left[0] if len(types_left) == 1 else None
    if wanted is Any or wanted is object:
        return SpecField(field.name, None, has_default)
    if not isinstance(wanted, type):
        raise InvalidInput(
            f"the type of the field {field.name!r} is {annotation}, not one class",
            field=field.name,
            next_step="Write the class of one kind, such as la.Prompt, or Any; add `| None` and a default of None "
            "if it may be absent.",
        )
    if has_default and not nullable:
        raise InvalidInput(
            f"the field {field.name!r} has a default that would never be used",
            field=field.name,
            next_step=f"If it may be absent, write {wanted.__name__} | None = None; else take the default away.",
        )
    return SpecField(field.name, wanted, nullable and has_default)


def _taken_apart(annotation: Any) -> tuple[Any, list[str | Reference]]:
    """The bare type of an annotation and the references in it; `| None` may stand inside `Annotated` or outside."""
    references: list[str | Reference] = []
    if typing.get_origin(annotation) is Annotated:
        annotation, *extras = typing.get_args(annotation)
        references += [e for e in extras if isinstance(e, str | Reference)]
    if typing.get_origin(annotation) in _UNION:
        arms = []
        for arm in typing.get_args(annotation):
            bare, inner = _taken_apart(arm)
            arms.append(bare)
            references += inner
        annotation = typing.Union[tuple(arms)]  # noqa: UP007 - built at run time
    return annotation, references


def _evaluated(spec: type[Any], field: dataclasses.Field[Any]) -> Any:
    # The class that declares the field knows its globals: the eldest that has the very same Field object.
    owners = [c for c in spec.__mro__ if c.__dict__.get("__dataclass_fields__", {}).get(field.name) is field]
    owner = owners[-1] if owners else spec
    module = sys.modules.get(owner.__module__)
    around = {**_enclosing_locals(owner), **vars(owner)}
    holder = types.SimpleNamespace(__annotations__={field.name: field.type})
    try:
        return typing.get_type_hints(holder, vars(module) if module else {}, around, include_extras=True)[field.name]
    except Exception as error:  # an annotation is code, and may raise anything
        raise InvalidInput(
            f"the annotation of the field {field.name!r} cannot be evaluated: {type(error).__name__}: {error}",
            field=field.name,
            origin=f"{owner.__module__}.{owner.__qualname__}",
            next_step="Import its names at the top of the module, outside `if TYPE_CHECKING`.",
        ) from error


def _enclosing_locals(owner: type[Any]) -> dict[str, Any]:
    """Locals of the function that a class was made in, while that function still runs; else empty."""
    function, inside, _ = owner.__qualname__.rpartition(".<locals>")
    frame = sys._getframe() if inside else None
    while frame is not None:
        if frame.f_code.co_qualname == function and frame.f_globals.get("__name__") == owner.__module__:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


# --- shared


def _selected(name: str, reference: str | Reference, alias: str | None) -> Reference:
    parsed = Reference.parse(reference, field=name)
    if parsed.selects:
        return parsed
    if alias is None:
        raise InvalidReference(
            f"{str(parsed)!r} has no selector, and there is no alias to take",
            field=name,
            next_step=f"Write {parsed}:prod, or give alias= or $LLMARTIFACTS_ALIAS.",
        )
    return replace(parsed, alias=alias)


def _check_field(name: str) -> None:
    if not isinstance(name, str) or len(name) > MAX_FIELD or not (name.isidentifier() or _ROLE.fullmatch(name)):
        raise InvalidInput(
            f"{name!r:.160} cannot name a component",
            field=str(name)[:MAX_FIELD],
            next_step=f"Use letters, digits, '.', '_' and '-', at most {MAX_FIELD}.",
        )


def _refuse_empty(fields: Mapping[str, Any]) -> None:
    if not fields:
        raise InvalidInput("the spec names no component", field="spec", next_step=f"Add one, such as {_EXAMPLE}.")


def _imported(word: str) -> type[Any]:
    module_name, colon, path = word.partition(":")
    if not colon or not module_name or not path:
        raise InvalidInput(f"{word!r:.200} is no spec", field="SPEC", next_step=_SPEC_FORMS)
    found: Any
    try:
        with _working_directory_first():
            found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotFound(
            f"no module {error.name!r}",
            what="module",
            name=error.name or module_name,
            field="SPEC",
            next_step="Run this where the service runs: in its environment and from its directory.",
        ) from error
    except Exception as error:  # a module is code, and may raise anything
        raise InvalidInput(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}", field="SPEC"
        ) from error
    for part in path.split("."):
        inner = getattr(found, part, None)
        if inner is None:
            raise NotFound(
                f"{module_name} has no {path!r}",
                what="class",
                name=path,
                field="SPEC",
                near=near_names(part, [n for n in vars(found) if not n.startswith("_")]),
            )
        found = inner
    if not isinstance(found, type):
        raise InvalidInput(f"{word} is a {type(found).__name__}, not a class", field="SPEC", next_step=_SPEC_FORMS)
    return found


@contextmanager
def _working_directory_first() -> typing.Iterator[None]:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
