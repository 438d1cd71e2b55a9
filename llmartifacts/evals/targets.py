"""How outputs are made: by a function, a LangChain Runnable, a search of an index, or from a record.

A `Maker` gives the answer of one loaded value to one item. Which one it is follows from the suite's `outputs`, or from
what `la.evaluate(outputs=…)` is given; see `maker_of`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.answers import plain_output
from llmartifacts.evals.importing import distributions, imported, source_behind
from llmartifacts.evals.prompting import (
    begins_with_a_prompt,
    is_prompt,
    prompt_value,
    variables_for,
    with_model_settings,
)
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.kinds.eval_dataset.value import Item


class Maker(Protocol):
    """Makes outputs.

    Attributes:
        identity: JSON of how it makes them, for the cache; None where that cannot be told, and then nothing is cached.
        told: The same in a few words, for the report.
        packages: Installed packages that take part.
        takes_seed: Whether the seed changes anything.
        batch: How many items it answers at once, at most.
        remarks: What somebody should know of its outputs; known once it is prepared.
    """

    identity: Mapping[str, Any] | None
    told: str
    packages: Sequence[str]
    takes_seed: bool
    batch: int

    @property
    def remarks(self) -> Sequence[str]: ...  # noqa: D102

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Check that it can answer at all, before anything is asked.

        Raises:
            LlmartifactsError: It cannot; the field is named.
        """

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """The answers to some items, in order. What it raises is the error of all of them."""


@dataclass
class Called:
    """A function `f(value, item)`, also with `seed`; or a factory `f(value)`, called once for each target.

    A factory gives a LangChain Runnable, which is then invoked with the variables of a prompt or the input of the item;
    or a function `g(item)`.

    Args:
        function: The function.
        identity: As `Maker.identity`.
        told: As `Maker.told`.
    """

    function: Callable[..., Any]
    identity: Mapping[str, Any] | None
    told: str

    batch = 1
    remarks: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        parameters = _parameters(self.function)
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "seed"
        ]
        needed = [p for p in positional if p.default is p.empty]
        spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.takes_seed = any(p.name == "seed" for p in parameters)
        self.is_factory = len(needed) == 1 and len(positional) == 1 and not spread
        if not self.is_factory and not (len(needed) <= 2 <= len(positional) or (spread and len(needed) <= 2)):
            raise InvalidValue(
                f"{self.told} takes {len(needed)} arguments",
                field="outputs.runnable",
                next_step="Write f(value, item), or a factory f(value) that returns a Runnable or f(item).",
            )
        self.packages: Sequence[str] = distributions(self.function)
        self._made: dict[int, Any] = {}

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Call the factory. Raises `InvalidValue` if it fails or gives nothing that answers."""
        if not self.is_factory:
            return
        try:
            made = self.function(value, **({"seed": 0} if self.takes_seed else {}))
        except Exception as error:
            raise InvalidValue(
                f"{self.told} raised {type(error).__name__}: {error}", field="outputs.runnable"
            ) from error
        if not (is_runnable(made) or callable(made)):
            raise InvalidValue(
                f"{self.told} takes the value alone and returned a {type(made).__name__}",
                field="outputs.runnable",
                next_step="Return a Runnable or a function of an item; or write f(value, item) -> output.",
            )
        self._made[id(value)] = made

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """Call it for one item."""
        (item,) = items
        more = {"seed": seed} if self.takes_seed else {}
        if not self.is_factory:
            return [timed(lambda: self.function(value, item, **more))]
        made = self._made[id(value)]
        if not is_runnable(made):
            return [timed(lambda: made(item))]
        given = variables_for(value, item) if is_prompt(value) else item.input
        return [timed(lambda: invoke(made, given, item, seed, repeat))]


@dataclass
class Invoked:
    """A LangChain Runnable, as it is.

    For a prompt it is what would stand after the prompt in a chain, `prompt | runnable`: a chat model, or a model and a
    parser. It is given the formatted prompt; a bare model also gets the parameters, tools and response format that the
    prompt is logged with. For an index or a bundle it is given `{"value": value, "item": item}`.

    Args:
        runnable: The Runnable.
        identity: As `Maker.identity`.
        told: As `Maker.told`.
    """

    runnable: Any
    identity: Mapping[str, Any] | None
    told: str

    batch = 1
    remarks: ClassVar[Sequence[str]] = ()
    takes_seed = True

    def __post_init__(self) -> None:
        self.packages: Sequence[str] = distributions(self.runnable)
        self._bound: dict[int, Any] = {}

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Format the prompt for the first item.

        Raises:
            InvalidValue: The Runnable begins with a prompt of its own, which would be asked instead of the target.
            InvalidInput: As `Prompt.format`.
        """
        if is_prompt(value):
            if begins_with_a_prompt(self.runnable):
                raise InvalidValue(
                    f"{self.told} begins with a prompt of its own, so the one that is evaluated would not be used",
                    field="outputs.runnable",
                    next_step="Give what stands after the prompt, or f(prompt) -> prompt.to_langchain() | model.",
                )
            prompt_value(value, items[0])
            self._bound[id(value)] = with_model_settings(self.runnable, value)

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """Invoke it for one item."""
        (item,) = items
        if is_prompt(value):
            given, runnable = prompt_value(value, item), self._bound[id(value)]
            return [timed(lambda: invoke(runnable, given, item, seed, repeat))]
        return [timed(lambda: invoke(self.runnable, {"value": value, "item": item}, item, seed, repeat))]


def timed(make: Callable[[], Any]) -> Answer:
    """What a call gives, as plain JSON, and how long it took.

    Raises:
        InvalidValue: It gives nothing, or what is no JSON.
        Exception: Whatever it raises.
    """
    started = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - started
    if made is None:
        raise InvalidValue("the output is None", field="output")
    return Answer(plain_output(made), seconds)


def is_runnable(thing: Any) -> bool:
    """Whether it is a Runnable, or behaves as one; told without importing LangChain."""
    return not inspect.isclass(thing) and callable(getattr(thing, "invoke", None))


def invoke(runnable: Any, given: Any, item: Item, seed: int, repeat: int) -> Any:
    """Invoke a Runnable; its tracers see which item it is for."""
    if not any(c.__module__.startswith("langchain_core.") for c in type(runnable).__mro__):
        return runnable.invoke(given)
    about = {"item": item.id, "repeat": repeat, "seed": seed}
    return runnable.invoke(given, {"metadata": about, "configurable": {"seed": seed}})


def maker_of_name(dotted: str) -> Maker:
    """The maker of `outputs.runnable: package.module:object`. Raises as `imported` and `maker_of`."""
    found = imported(dotted, field="outputs.runnable")
    source = source_behind(dotted, found)
    return maker_of(found, {"runnable": dotted, "source": source} if source else None, dotted)


def maker_of(thing: Any, identity: Mapping[str, Any] | None, told: str) -> Maker:
    """The maker for a function, a class or a Runnable.

    Args:
        thing: What a suite or a caller gives.
        identity: As `Maker.identity`.
        told: What to call it.

    Raises:
        InvalidValue: It is neither.
    """
    if is_runnable(thing):
        return Invoked(thing, identity, told)
    if callable(thing):
        return Called(thing, identity, told)
    raise InvalidValue(
        f"{told} is a {type(thing).__name__}, which gives no outputs",
        field="outputs",
        next_step="Give a function f(value, item), a factory f(value), a LangChain Runnable, or recorded outputs.",
    )


def identity_of(thing: Any) -> Mapping[str, Any] | None:
    """What a function given from Python is, if that can be told: one of a module's own, with nothing bound to it."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not inspect.isfunction(thing) or thing.__closure__ or not module or module == "__main__" or "<" in name:
        return None
    source = source_behind(f"{module}:{name}", thing)
    return {"runnable": f"{module}:{name}", "source": source} if source else None


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in ("value", "item")]
