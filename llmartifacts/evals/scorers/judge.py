"""Scorer `judge`: a model grades the output by a prompt, on a declared scale.

**The prompt** is a template in the suite (text, or the messages of a chat), or a reference to a `prompt` of the
registry by version or digest, such as `judge-prompt:v2`; an alias is refused, since what it names may change. Its
variables come from the item and the output: `output`, `input`, `expected_output`, `metadata`, `id`, or the name of a
column; `variables` says others, such as `{answer: output.text, reference: expected_output}`. At least one must come
from the output. What is null is left out, so a template can ask `is defined`; no output (None) is empty text.

**The reply** is read strictly. It is a JSON object that has the grade under `grade`, or text in which exactly one line
is `grade: N`, with `score` for `grade` unless the suite says otherwise. Anything else, or a grade off the scale, is an
error: a judge that does not do as it is told has not judged.

The model runs in this process, where its keys are, and is trusted like the application; the reply is not. It is asked
once for each answer and prompt, also where several scorers of a suite read several grades out of one
reply (`share`); replies are not kept beyond that. The SHA-256 of the model's module is part of the scorer's identity;
which weights stand behind a model's name is not known to anybody here.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictStr, field_validator

from llmartifacts import plugins
from llmartifacts.errors import InvalidInput, InvalidReference, InvalidValue, LlmartifactsError
from llmartifacts.evals.scorers.base import Answer, Options, OptionScorer, Scorer
from llmartifacts.evals.scorers.function import on_scale
from llmartifacts.evals.scorers.named import NamedObject
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.evals.scorers.sources import source_digest
from llmartifacts.evals.scorers.texts import Text
from llmartifacts.kinds.base import Config
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.config import Dotted, Number
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.reference import Reference

MAX_REPLY = 1024 * 1024
KEPT = 10_000
"""Answers whose replies are shared at a time."""
OUTPUT = "output"

Resolve = Callable[[str, type[Any]], Any]

_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


class Message(Config):
    """One message of an inline chat prompt."""

    role: Text
    content: StrictStr


class JudgeOptions(Options):
    """Options of `judge`.

    Attributes:
        model: A LangChain Runnable or chat model, its class or a function that makes it, as `package.module:name`.
        arguments: Keyword arguments for the class or the function, JSON.
        prompt: The template, the messages of a chat, or a reference by version or digest.
        template_format: Format of a template in the suite.
        variables: Variable -> where it comes from.
        grade: Name of the grade in the reply.
        lo: Lowest grade.
        hi: Highest grade.
        higher_is_better: Whether more is better.
    """

    model: Dotted
    arguments: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    prompt: Annotated[StrictStr, Field(min_length=1)] | Annotated[list[Message], Field(min_length=1, max_length=100)]
    template_format: Literal["jinja2", "f-string", "mustache"] = "jinja2"
    variables: Annotated[dict[StrictStr, Text], Field(max_length=100)] = Field(default_factory=dict)
    grade: Annotated[Text, Field(max_length=100)] = "score"
    lo: Number
    hi: Number
    higher_is_better: StrictBool = True

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_form(cls, given: Any) -> Any:
        if not isinstance(given, str | list):
            raise ValueError("the prompt is text, a list of messages, or a reference")
        return given


class Judge(OptionScorer[JudgeOptions]):
    """A model that grades.

    Attributes:
        resolve: `(reference, class) -> value` for a prompt of the registry; by default the registry that `connect()`
            finds. Set it before the first score.
    """

    type = "judge"
    Model = JudgeOptions
    resolve: Resolve | None = None

    def own_metric(self) -> str:
        """`judge`, or the name of the grade."""
        return self.type if self.given.grade == "score" else self.given.grade

    def prepare(self) -> None:
        """Read the prompt, if it is here, and find the model's source; nothing is imported or asked."""
        given = self.given
        self.set_scale(given.lo, given.hi, given.higher_is_better)
        self.reference = _pinned(given.prompt)
        self._prompt = None if self.reference else self._inline()
        self.source = source_digest(given.model, field="model")
        self._model = NamedObject(given.model, given.arguments, method="invoke", field="model")
        self._replies = Replies()
        self._lock = threading.Lock()

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float:
        """The grade that the model gives."""
        reply = self._replies.get(answer, lambda: self._ask(item, answer))
        return grade_in(reply, self.given.grade, self.lo, self.hi)

    def asks(self) -> bytes:
        """What decides the reply to an answer; judges in which this is equal can share it."""
        return canonical_bytes({n: v for n, v in self.options().items() if n not in _READING})

    def _ask(self, item: Item, answer: Answer) -> Any:
        prompt = self._loaded()
        values = {name: self._value(name, item, answer) for name in prompt.variables}
        given = {name: value for name, value in values.items() if value is not None}
        asked = prompt.format_messages(**given) if prompt.is_chat else prompt.format(**given)
        return reply_text(self._model.get().invoke(asked))

    def _value(self, variable: str, item: Item, answer: Answer) -> Any:
        place = self.given.variables.get(variable, variable)
        head, _, rest = place.partition(".")
        if head != OUTPUT:
            return wanted(item, place)
        found = inside(answer.output, rest or None)
        return "" if found is None else found

    def _loaded(self) -> Any:
        with self._lock:
            if self._prompt is None:
                from llmartifacts.kinds.prompt.value import Prompt

                resolve = self.resolve or plugins.load("references", "registry")
                found = resolve(self.reference, Prompt)
                self._check_variables(found)
                self._prompt = found
            return self._prompt

    def _inline(self) -> Any:
        from llmartifacts.kinds.prompt.value import Prompt

        given = self.given
        written = given.prompt
        template = written if isinstance(written, str) else [(m.role, m.content) for m in written]
        try:
            prompt = Prompt(template, template_format=given.template_format)
        except InvalidInput as error:
            raise InvalidValue.of(error, field="prompt", next_step=error.hint()) from None
        self._check_variables(prompt)
        return prompt

    def _check_variables(self, prompt: Any) -> None:
        known = prompt.variables
        for name in self.given.variables:
            if name not in known:
                told = f"the prompt has no variable {name!r:.80}"
                raise InvalidValue(told, field="variables", next_step=f"It has: {', '.join(known) or 'none'}.")
        if not any(self.given.variables.get(name, name).partition(".")[0] == OUTPUT for name in known):
            raise InvalidValue(
                "no variable of the prompt comes from the output, so every answer would look the same to the judge",
                field="prompt",
                next_step="Use {{ output }}, or say where a variable comes from: variables: {answer: output}.",
            )


_READING = ("grade", "lo", "hi", "higher_is_better")
"""Options that say how a reply is read, not what is asked."""


class Replies:
    """The replies to the newest answers, each asked for once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Answer, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, answer: Answer, ask: Callable[[], Any]) -> Any:
        """The reply to this very answer; an equal answer of another repeat is asked anew."""
        with self._lock:
            known = self._kept.get(id(answer))
        if known is not None:  # the answer is held here, so its id is nobody else's
            return known[1]
        reply = ask()
        with self._lock:
            self._kept[id(answer)] = (answer, reply)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return reply


def share(scorers: Iterable[Scorer]) -> None:
    """Let judges that ask the same of the same model read their grades out of one reply."""
    first: dict[bytes, Judge] = {}
    for scorer in scorers:
        if isinstance(scorer, Judge):
            scorer._replies = first.setdefault(scorer.asks(), scorer)._replies


def reply_text(reply: Any) -> Any:
    """The text of a model's reply, or the object that it was parsed to.

    Raises:
        TypeError: It is neither.
    """
    content = getattr(reply, "content", reply)
    if isinstance(content, list):  # blocks, of which those of text count
        texts = [b if isinstance(b, str) else b.get("text", "") for b in content if isinstance(b, str | Mapping)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str | Mapping) and callable(getattr(content, "model_dump", None)):
        content = content.model_dump()
    if not isinstance(content, str | Mapping):
        raise TypeError(f"the judge gave a {type(reply).__name__}, neither text nor an object")
    return content


def grade_in(reply: str | Mapping[str, Any], name: str, lo: float, hi: float) -> float:
    r"""The grade in a reply.

    Args:
        reply: Text or a JSON object.
        name: Name of the grade.
        lo: Lowest grade.
        hi: Highest grade.

    Raises:
        ValueError: There is not exactly one, or it is off the scale.
        TypeError: It is no number.

    Example:
        >>> grade_in("It names the passage.\nScore: 4", "score", 1, 5), grade_in('{"score": 2}', "score", 1, 5)
        (4.0, 2.0)
    """
    if isinstance(reply, str):
        if len(reply) > MAX_REPLY:
            raise ValueError(f"the judge's reply has {len(reply):,} characters")
        text = reply.strip()
        if not text.startswith("{"):
            found = re.findall(rf"^[ \t]*{re.escape(name)}[ \t]*:[ \t]*({_NUMBER})[ \t]*\r?$", text, re.I | re.M)
            if len(found) != 1:
                told = "no line" if not found else f"{len(found)} lines"
                raise ValueError(f"the judge's reply has {told} of the form '{name}: N': {reply[:200]!r}")
            return on_scale(float(found[0]), lo, hi, "the judge gave")
        try:
            reply = parse_json(text)
        except LlmartifactsError as error:
            raise ValueError(f"the judge's reply is no JSON: {error}") from None
    if not isinstance(reply, Mapping) or name not in reply:
        raise ValueError(f"the judge's reply has no {name!r:.60}")
    grade = reply[name]
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not math.isfinite(grade):
        raise TypeError(f"the judge's {name} is {grade!r:.60}, not a number")
    return on_scale(grade, lo, hi, "the judge gave")


def _pinned(prompt: str | list[Message]) -> str:
    """The reference that a prompt is, by version or digest; empty if it is the template itself."""
    if not isinstance(prompt, str):
        return ""
    try:
        reference = Reference.parse(prompt)
    except InvalidReference:
        return ""
    if reference.number is None and reference.digest is None:
        raise InvalidValue(
            f"the judge's prompt {prompt!r:.120} is not pinned",
            field="prompt",
            next_step=f"Write a version, such as {reference.name}:v1, or the template itself.",
        )
    return str(reference)
