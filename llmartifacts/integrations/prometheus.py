"""Prometheus metrics of resolvers: what is served, how fresh it is, and how the looks at the registry went.

    from prometheus_client import REGISTRY
    REGISTRY.register(ResolverCollector(support=resolver))

Every sample has the label `resolver`, the name given here. Of one process: with several workers behind one port a
scrape meets one of them, and `prometheus_client`'s multiprocess mode leaves custom collectors out; give every worker a
port of its own for its metrics, or run one worker for each container.

    llmartifacts_resolver_state{state}                   1 for the state that it is in, 0 for the others
    llmartifacts_resolver_ready                          whether requests may be sent to it
    llmartifacts_resolver_generation                     number of the generation served; 0 before the first
    llmartifacts_resolver_revision                       the project's revision that it was read at
    llmartifacts_resolver_age_seconds                    since the registry confirmed the set; none if it never did
    llmartifacts_resolver_checks_total{result}           looks at the registry: unchanged, shared, swapped, failed
    llmartifacts_resolver_looks_total                    looks that this process began itself
    llmartifacts_resolver_last_swap_duration_seconds     from finding the newest generation to serving it
    llmartifacts_resolver_blobs_total{place}             blobs fetched from the registry, or found in the cache
    llmartifacts_resolver_stale_seconds_total            seconds served while STALE
    llmartifacts_resolver_set_info{project,set,source}   1; which set is served
    llmartifacts_resolver_component_info{component,name,version}      1; which versions
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llmartifacts.errors import InvalidInput, MissingExtra
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.stamp import parse_stamp
from llmartifacts.runtime.state import State, Status

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtra("metrics need Prometheus' client", extra="prometheus") from error

_PREFIX = "llmartifacts_resolver_"
_Samples = Iterable[tuple[Sequence[str], float]]
_Family = tuple[str, str, tuple[str, ...], bool, Callable[[Status], _Samples]]


class ResolverCollector(Collector):
    """Tells `resolver.status()` of resolvers at each scrape; nothing is counted here, and no registry is touched.

    Args:
        **resolvers: Label -> resolver; one collector takes all of a process, since two would name the same metrics
            twice.

    Raises:
        InvalidInput: None is given, or something else than a resolver.
    """

    def __init__(self, **resolvers: Resolver[Any]) -> None:
        if not resolvers:
            raise InvalidInput("no resolver was given", next_step="Write ResolverCollector(support=resolver).")
        for label, resolver in resolvers.items():
            if not isinstance(resolver, Resolver):
                raise InvalidInput(f"{label} is a {type(resolver).__name__}, not a resolver", field=label)
        self._resolvers = dict(resolvers)

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        statuses = {label: resolver.status() for label, resolver in self._resolvers.items()}
        for family, (*_, samples) in zip(self.describe(), _FAMILIES, strict=True):
            for label, status in statuses.items():
                for more, value in samples(status):
                    family.add_metric([label, *more], value)
            yield family

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics without a sample: their names, so that a clash is found when this is registered."""
        for name, told, labels, counts, _ in _FAMILIES:
            made = CounterMetricFamily if counts else GaugeMetricFamily
            yield made(_PREFIX + name, told, labels=["resolver", *labels])


def _one(value: float | None) -> _Samples:
    return () if value is None else [((), value)]


def _states(status: Status) -> _Samples:
    return [((state.value,), float(status.state is state)) for state in State]


def _checks(status: Status) -> _Samples:
    return [((name,), getattr(status.checks, name)) for name in ("unchanged", "shared", "swapped", "failed")]


def _blobs(status: Status) -> _Samples:
    return [(("registry",), status.checks.fetched), (("cache",), status.checks.cached)]


def _set(status: Status) -> _Samples:
    if not status.stamp:
        return ()
    stamp = parse_stamp(status.stamp)
    return [((stamp.project, stamp.set_short, stamp.source), 1)]


def _components(status: Status) -> _Samples:
    if not status.stamp:
        return ()
    components = parse_stamp(status.stamp).components
    return [((component, found.name, f"v{found.number}"), 1) for component, found in components.items()]


_FAMILIES: tuple[_Family, ...] = (
    ("state", "1 for the state that the resolver is in.", ("state",), False, _states),
    ("ready", "Whether requests may be sent to it.", (), False, lambda s: _one(s.ready)),
    ("generation", "Number of the generation that is served.", (), False, lambda s: _one(s.generation)),
    ("revision", "The project's revision that it was read at.", (), False, lambda s: _one(s.revision)),
    ("age_seconds", "Since the registry confirmed the set that is served.", (), False, lambda s: _one(s.age)),
    ("checks", "Looks at the registry by what came of them.", ("result",), True, _checks),
    ("looks", "Looks at the registry that this process began.", (), True, lambda s: _one(s.checks.made)),
    (
        "last_swap_duration_seconds",
        "From finding the newest generation to serving it.",
        (),
        False,
        lambda s: _one(s.checks.last_swap_seconds),
    ),
    ("blobs", "Blobs by where they were found.", ("place",), True, _blobs),
    ("stale_seconds", "Seconds served while STALE.", (), True, lambda s: _one(s.checks.stale_seconds)),
    ("set_info", "The set that is served.", ("project", "set", "source"), False, _set),
    ("component_info", "The versions that are served.", ("component", "name", "version"), False, _components),
)
"""Name, help, labels after `resolver`, whether it counts, and the samples of a status."""
