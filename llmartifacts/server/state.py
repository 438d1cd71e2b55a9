"""What the requests of one process share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from llmartifacts.server.auth import Identities
from llmartifacts.server.config import Settings
from llmartifacts.server.limits import Bytes, Rate, Room
from llmartifacts.server.logs import Log
from llmartifacts.server.metrics import Metrics
from llmartifacts.server.preview import Previews
from llmartifacts.server.reading import Readings
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.wire.bodies.base import MAX_PARTS
from llmartifacts.wire.bodies.server import LoginProvider
from llmartifacts.wire.bodies.transfer import MAX_PIECE

PART_BYTES = 160
"""Memory that a value of a large JSON body may take once it is read."""


@dataclass
class State:
    """What the requests of one process share.

    Attributes:
        settings: What the server was told.
        backend: The registry.
        log: Where lines go.
        metrics: Figures.
        identities: Who asked within the last seconds.
        providers: Login providers, as clients are told of them.
        login: Takes tokens of login providers; None where there are none.
        ending: Whether the server was told to end: `/readyz` says no.
        places: Where it keeps things; what only its log may name.
    """

    settings: Settings
    backend: EmbeddedBackend
    log: Log
    metrics: Metrics
    providers: tuple[LoginProvider, ...] = ()
    login: Any = None
    ending: bool = False
    previews: Previews = field(default_factory=Previews)
    identities: Identities = field(default_factory=Identities)
    room: Room = field(init=False)
    bodies: Bytes = field(init=False)
    rate: Rate = field(init=False)
    rate_address: Rate = field(init=False)
    failures: Rate = field(init=False)
    readings: Readings = field(init=False)
    places: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        given = self.settings
        # The longer ones first: a folder may lie in another.
        named = {given.registry, given.blobs.removeprefix("file://"), self.backend.location}
        named |= {os.path.abspath(name) for name in named if name and "://" not in name}
        self.places = tuple(sorted((name for name in named if "/" in name), key=len, reverse=True))
        self.room = Room(given.max_concurrent, given.max_waiting)
        largest = 2 * max(given.max_json, MAX_PIECE) + PART_BYTES * MAX_PARTS
        self.bodies = Bytes(largest * 4 // 3 + 2)  # one of the largest always fits
        self.rate = Rate(given.rate)
        self.rate_address = Rate(given.rate_address)
        self.readings = Readings(given.cache_bytes)
        self.failures = Rate(given.rate_failures / 60, max(1.0, given.rate_failures / 2))
