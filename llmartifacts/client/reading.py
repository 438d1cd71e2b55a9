"""Reading references through HTTP: one round trip, nothing twice, and every manifest held against its digest.

A manifest is kept by its digest and asked for once. A whole answer is kept with its entity tag: while nothing in it has
changed, the server says so in a few bytes; after `keep_in`, to other processes of this host too. What an answer says is
held against what was asked: a digest that was named is the digest that comes, or the item is an error. And it is held
against when it was asked: each request has a random name that its answer repeats, so that an answer that something in
between kept from earlier confirms nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmartifacts.client.answers import Answer
from llmartifacts.client.calls import Calls
from llmartifacts.client.kept import Kept
from llmartifacts.errors import DigestMismatch, LlmartifactsError, NotFound, Unreachable
from llmartifacts.records.backend import Reading
from llmartifacts.records.canonical import parse_json
from llmartifacts.records.digest import Digest
from llmartifacts.records.forks import renew_after_fork
from llmartifacts.records.manifest import MAX_BYTES, Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.wire.bodies import reading as bodies
from llmartifacts.wire.bodies import versions
from llmartifacts.wire.bodies.base import read_answer
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.freshness import ECHO, REQUEST_ID

if TYPE_CHECKING:
    from llmartifacts.blobs.cache import BlobCache

K = TypeVar("K")
V = TypeVar("V")

MAX_READINGS = 256
"""Answers kept with their entity tags."""
MAX_KEPT = 64 * 1024 * 1024
"""Bytes of manifests that are kept."""
MAX_ADDRESS = 4_000
"""Characters of references that are asked for in an address; more of them go in a body, which has no entity tag."""


class Readings:
    """What one server says of references; safe to use from several threads."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._manifests: _Recent[Digest, Manifest] = _Recent(MAX_KEPT)
        self._readings: _Recent[tuple[str, tuple[str, ...]], tuple[str, Reading]] = _Recent(MAX_READINGS)
        self._kept: Kept | None = None

    def keep_in(self, cache: BlobCache) -> None:
        """Keep answers in a folder of a cache too, and look for manifests in it before they are asked for."""
        self._kept = Kept(cache, self._calls.session.address.url)

    def read(self, project: str, references: Sequence[Reference]) -> Reading:
        """Look up any number of references at one revision.

        Raises:
            Unreachable: What came is no answer to this very request.
        """
        texts = tuple(str(reference) for reference in references)
        if not texts or len(texts) > 100 or sum(map(len, texts)) > MAX_ADDRESS:
            return self._read_many(project, references)
        known = self._readings.get((project, texts))
        kept = None if known else self._recall(project, texts)
        tag = known[0] if known else kept[0] if kept else ""
        answer = self._ask(
            "read",
            query=versions.ReferencesQuery.known(ref=list(references)),
            headers={"If-None-Match": tag} if tag else {},
            path={"project": project},
        )
        if answer.status == 304:
            if known is not None:
                return known[1]
            if kept is None:
                raise Unreachable("the server says that nothing changed, of what it was not asked before")
            body, tag = kept[1], kept[0]
        else:
            body, tag = self._calls.read(bodies.Reading, "read", answer), answer.headers.get("etag", "")
        made = self._made(project, references, body)
        if tag and len(tag) < 128 and tag.isascii() and tag.isprintable():
            self._readings.put((project, texts), (tag, made), 1)
            if self._kept is not None and answer.status != 304 and _is_tag_of(tag, answer.body, made.revision):
                self._kept.keep(project, texts, answer.body)
        return made

    def manifests(self, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Manifests by digest, verified; one that is not there is left out.

        Raises:
            DigestMismatch: The server sent another manifest.
        """
        made = {digest: known for digest in digests if (known := self._known(digest)) is not None}
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in made]
        for start in range(0, len(wanted), bodies.MAX_DIGESTS):
            part = wanted[start : start + bodies.MAX_DIGESTS]
            answer = self._calls.ask(bodies.Manifests, "manifests", body=bodies.Digests(digests=tuple(part)))
            for item in answer.manifests:
                if item.digest in part:
                    made[item.digest] = self._manifest(item.digest, item.manifest)
        return {digest: made[digest] for digest in digests if digest in made}

    def _read_many(self, project: str, references: Sequence[Reference]) -> Reading:
        path = {"project": project}
        if not references:
            answer = self._ask("revision", path=path)
            return Reading(project, self._calls.read(versions.Revision, "revision", answer).revision, ())
        answer = self._ask("read_many", body=versions.References(references=tuple(references)), path=path)
        return self._made(project, references, self._calls.read(bodies.Reading, "read_many", answer))

    def _ask(self, name: str, *, headers: Mapping[str, str] | None = None, **asked: Any) -> Answer:
        """Call a route; its answer, which was made for this very call."""
        number = secrets.token_hex(16)
        answer = self._calls.answer(name, headers={ECHO: number, REQUEST_ID: number, **(headers or {})}, **asked)
        told = answer.headers.get(ECHO) or answer.headers.get(REQUEST_ID)
        if told == number:
            return answer
        what = "does not say which request it is for" if told is None else "is for another request"
        raise Unreachable(
            f"the answer of {self._calls.session.address} to {name!r} {what}: does a cache in between repeat old ones?",
            field=ECHO,
            next_step=f"A proxy must pass the header {ECHO} both ways, and keep no answers.",
        )

    def _recall(self, project: str, texts: tuple[str, ...]) -> tuple[str, bodies.Reading] | None:
        """The answer that another process kept, by the tag that its bytes have now; None if there is none."""
        data = None if self._kept is None else self._kept.recall(project, texts)
        if data is None:
            return None
        try:
            body = read_answer(bodies.Reading, parse_json(data))
        except LlmartifactsError:
            return None
        return bodies.etag(data, body.revision), body

    def _made(self, project: str, references: Sequence[Reference], body: bodies.Reading) -> Reading:
        if len(body.items) != len(references) or body.project != project:
            raise Unreachable(f"{self._calls.session.address} answered something else than it was asked")
        items = zip(references, body.items, strict=True)
        return Reading(project, body.revision, tuple([self._item(project, asked, item) for asked, item in items]))

    def _item(self, project: str, asked: Reference, item: bodies.Found | Problem) -> Found | LlmartifactsError:
        if isinstance(item, Problem):
            return item.record()
        version = item.version.record()
        same = (version.project, version.name) == (asked.project or project, asked.name)
        if not same or asked.number not in (None, version.number) or asked.digest not in (None, version.digest):
            return DigestMismatch(
                f"{self._calls.session.address} answered {version.pinned} for {asked}", digest=asked.digest or ""
            )
        try:
            return Found(version, self._manifest(version.digest, item.manifest), item.move)
        except (DigestMismatch, NotFound) as error:
            return error

    def _manifest(self, digest: Digest, body: versions.Manifest | None) -> Manifest:
        """A manifest, known already or verified now.

        Raises:
            DigestMismatch: It is another.
            NotFound: It is not there any more.
        """
        known = self._known(digest) if body is None else self._manifests.get(digest)
        if known is not None:
            return known
        origin = str(self._calls.session.address)
        try:
            if body is None:
                data = self._calls.answer("manifest", limit=MAX_BYTES, path={"digest": digest}).body
                manifest = Manifest.from_bytes(data, expect=digest, origin=origin)
            else:
                manifest = body.record()
        except (DigestMismatch, NotFound, Unreachable):
            raise
        except LlmartifactsError as error:
            raise DigestMismatch(f"the manifest is none: {error.message}", digest=digest, file=origin) from None
        if manifest.digest != digest:
            raise DigestMismatch(f"the manifest has digest {manifest.digest}, not {digest}", digest=digest, file=origin)
        self._manifests.put(digest, manifest, len(manifest.to_bytes()))
        return manifest

    def _known(self, digest: Digest) -> Manifest | None:
        """A manifest that is here: in memory, or in the cache."""
        known = self._manifests.get(digest)
        if known is None and self._kept is not None:
            known = self._kept.manifest(digest)
            if known is not None:
                self._manifests.put(digest, known, len(known.to_bytes()))
        return known


def _is_tag_of(tag: str, data: bytes, revision: int) -> bool:
    return tag.removeprefix("W/") == bodies.etag(data, revision)


class _Recent(Generic[K, V]):
    """A bounded memory; what was used longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most, self._weight = most, 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew and empty: another thread may have been in the middle of a change."""
        self._values, self._weight = OrderedDict(), 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        with self._lock:
            old = self._values.pop(key, None)
            self._weight += weight - (old[1] if old else 0)
            self._values[key] = value, weight
            while self._weight > self._most and len(self._values) > 1:
                self._weight -= self._values.popitem(last=False)[1][1]
