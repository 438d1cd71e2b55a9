"""OpenTelemetry: the versions that serve a request are on every span of it, also those loaded at start-up.

    provider.add_span_processor(GenerationSpanProcessor(resolver))        # before the exporters' processors

Which generation a span is of, in this order: the one that `generation.traced()` says; the one that its parent span is
of, so that a request in flight keeps its own while another one is swapped in; the one that the resolver serves now.
The attributes are those of `llmartifacts.runtime.trace`; what whoever made the span set itself is never replaced.
With a resolver there is also `llmartifacts.state`, and the reasons are `STALE` while it cannot tell whether what it
serves is still what the references mean.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from llmartifacts.errors import LlmartifactsError, MissingExtra
from llmartifacts.runtime import trace
from llmartifacts.runtime.state import State

try:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import get_current_span
except ImportError as error:
    raise MissingExtra("tracing needs the OpenTelemetry SDK", extra="otel") from error

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from llmartifacts.runtime.generation import Generation
    from llmartifacts.runtime.resolver import Resolver

_UNSURE = (State.STALE, State.ERROR)
_log = logging.getLogger("llmartifacts.opentelemetry")


class GenerationSpanProcessor(SpanProcessor):
    """Puts the attributes of the generation that serves on every span, as it starts.

    It takes some ten microseconds, makes no call to a registry, and never raises: what goes wrong is logged once.

    Args:
        resolver: Whose current generation spans are of that nothing else speaks for; None leaves those as they are.
        details: Whether to put name, version, digest, kind, alias and reason of each component on every span, besides
            the stamp and the list that name them all; each attribute costs a third of a microsecond.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> provider = TracerProvider()
        >>> provider.add_span_processor(GenerationSpanProcessor())
    """

    def __init__(self, resolver: Resolver[Any] | None = None, *, details: bool = True) -> None:
        self._resolver = resolver
        self._left_out = () if details else (trace.COMPONENT,)
        self._of_spans: MutableMapping[Any, trace.Attributes] = WeakKeyDictionary()
        self._failed = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Put the attributes on a span that begins."""
        try:
            said = trace.current_attributes()
            if said is not None:
                said = self._as_it_stands(said, trace.current())
            else:
                said = self._of_parent(parent_context) or self._of_resolver()
            if said is None:
                return
            self._of_spans[span] = said
            known, left_out = span.attributes, self._left_out
            if known or left_out:
                said = {k: v for k, v in said.items() if k not in (known or ()) and not k.startswith(left_out)}
            span.set_attributes(said)
        except Exception:  # noqa: BLE001 - a request never fails for its trace
            if not self._failed:
                self._failed = True
                _log.warning("spans do not tell what serves them", exc_info=True)

    def shutdown(self) -> None:
        """Let go of the resolver; it goes on."""
        self._resolver = None

    def _of_parent(self, context: Context | None) -> trace.Attributes | None:
        return self._of_spans.get(get_current_span(context))

    def _of_resolver(self) -> trace.Attributes | None:
        served = self._served()
        return None if served is None else self._as_it_stands(trace.shared(served), served)

    def _served(self) -> Generation[Any] | None:
        if self._resolver is None:
            return None
        try:
            return self._resolver.current
        except LlmartifactsError:  # it has not started
            return None

    def _as_it_stands(self, said: trace.Attributes, generation: Generation[Any] | None) -> trace.Attributes:
        """With the resolver's state, where it is what that serves; the reasons too, while it cannot be sure of them."""
        if self._resolver is None or generation is not self._served():
            return said
        state = self._resolver.state
        more: dict[str, trace.Value] = {f"{trace.PREFIX}state": state.value}
        if state in _UNSURE:
            more |= {key: trace.Reason.STALE.value for key, value in said.items() if _is_static(key, value)}
        return {**said, **more}


def _is_static(key: str, value: trace.Value) -> bool:
    return value == trace.Reason.STATIC.value and key.startswith(trace.COMPONENT) and key.endswith(".reason")
