"""Objects in S3, Google Cloud Storage or Azure, through obstore (the extra `s3`).

    s3://bucket/prefix?endpoint=https://s3.example.org&region=…    gs://bucket/prefix    az://container/prefix

What the store has to keep: a put on condition that there is no such object (`If-None-Match: *`), which is tried out
before the first one, and reads that see what was put. Every object is one put, never one in parts: on some stores the
condition is not looked at for those.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NoReturn, TypeVar, cast

from llmartifacts.blobs.base import PIECE, Driver, Source, check_key
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.objects.address import NOT_PUBLIC, Place, parse_endpoint, parse_place
from llmartifacts.blobs.objects.credentials import from_shared_file
from llmartifacts.blobs.objects.failures import CutShort, Kind, Unsettled, as_error, read_failure
from llmartifacts.blobs.objects.patience import Patience
from llmartifacts.blobs.objects.reading import PART, ObjectStream, Part, fetch_each
from llmartifacts.errors import (
    BlobMissing,
    InvalidInput,
    LlmartifactsError,
    MissingExtra,
    NotAllowed,
    TooLarge,
    Unreachable,
)
from llmartifacts.records.forks import renew_after_fork

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Store = AzureStore | GCSStore | S3Store

T = TypeVar("T")
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(/[a-z0-9][a-z0-9._-]{0,127}){0,7}")
_PROBE = ".conditional"
"""Name of an object, no key of anybody's, that shows whether conditions are kept."""
_PROBE_TEXT = b"llmartifacts tries out here whether this store keeps the condition of a put. It may be removed.\n"
_WRITE = "writeid"
"""Metadata of an object: which call stored it."""
_LARGEST = 5_000_000_000
"""Bytes of one put, which all three services take."""
_THREADS = 12
_PUTS = 6
_IN_FLIGHT = 256 * 1024 * 1024
"""Bytes that are sent at once at most; a larger object goes alone."""
_SECONDS = 60.0
_CONNECT, _STALL, _REQUEST = 5.0, 20.0, 300.0
_PAGE = 1000
_BATCH = 1000
"""Objects that one request deletes; S3 takes no more."""
_UNUSED = timedelta(seconds=30)
_MOST_PEM = 1 << 24


class ObjectStoreDriver(Driver):
    """Objects in a bucket, shared by any number of processes and machines.

    Credentials come from the environment: for S3 `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`,
    a role of the machine or container, or the shared credentials file, which is read anew when the store refuses what
    was in it; for the others as their vendors do. A child made by `fork` cannot use it.

    Args:
        url: The address; see `llmartifacts.blobs.objects.address`.
        seconds: How long a request that moves few bytes is tried anew. One that is under way then may end by itself: it
            is broken off after 20 s without a byte, and after 300 s in any case.

    Raises:
        InvalidInput: The address is none, or has credentials in it.
        MissingExtra: obstore is not installed.
    """

    _began_in: ClassVar[int | None] = None  # the library has one set of threads, in the process that began with it

    def __init__(self, url: str, *, seconds: float = _SECONDS) -> None:
        self.place = parse_place(url)
        try:
            import obstore
        except ImportError as error:
            raise MissingExtra(f"a place at {self.place.scheme}:// needs obstore", extra="s3") from error
        self._obstore = obstore
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: Store | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._conditional = False
        self._signs: Store | None = None
        self._signs_not = False
        self._deletes: Store | None = None
        self._batches = self.place.scheme == "s3"
        self._sending = _Room(_IN_FLIGHT)
        self._patience = Patience(str(self.place), seconds, self._renew)
        self._store()  # an address that cannot be used is told now
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget what has threads; the library's own are gone in a child, and it would wait for them for ever."""
        self._lock = threading.Lock()
        self._pool = None

    # --- read

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open an object for reading; what is read is fetched in ranges, each checked to be whole."""
        check_key(key)
        if length == 0:
            if self.size(key) is None:
                raise BlobMissing(f"there is no object {self.where(key)}", file=self.where(key))
            return io.BytesIO()
        first = self._part(key, start, PART if length is None else min(length, PART))
        end = first.total if length is None else min(start + length, first.total)
        if start + len(first.data) >= end:
            return io.BytesIO(first.data)
        return cast(
            BinaryIO,
            ObjectStream(key, first, start, end, self._part, self._threads(), lambda: self._replaced(key)),
        )

    def get_each(self, ranges: Sequence[tuple[str, int, int]]) -> Iterator[BinaryIO]:
        """Open several ranges in order; neighbours are fetched with one request, and several requests ahead."""
        for key, _, _ in ranges:
            check_key(key)
        if len(ranges) == 1:
            yield self.get(*ranges[0])
            return
        yield from fetch_each(ranges, self._part, self._threads())

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None."""
        check_key(key)
        try:
            return int(self._call("look at", key, lambda store: self._obstore.head(store, key))["size"])
        except BlobMissing:
            return None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key begins with a prefix, sorted by key; other names are passed over."""
        folder = prefix.rpartition("/")[0]
        pages: Any = None
        last: str | None = None

        def page(store: Store) -> Any:
            nonlocal pages
            if pages is None:
                pages = self._obstore.list(store, folder or None, offset=last, chunk_size=_PAGE)
            try:
                return next(pages, None)
            except BaseException:
                pages = None  # begun again behind what came
                raise

        while found := self._call("list", folder, page):
            for one in found:
                key = one["path"]
                if last is not None and key <= last:
                    raise InvalidInput(
                        f"{self.place} does not list its objects in the order of their names",
                        field="blobs",
                        next_step="Use a bucket of the usual kind, not one of directories.",
                    )
                last = key
                if key.startswith(prefix) and _KEY.fullmatch(key):
                    yield key, int(one["size"])

    def signed(self, key: str, start: int, length: int, seconds: int) -> str | None:
        """An address of an object that clients can reach; None where they cannot, or nothing signs here.

        It is good for the whole object: services that sign addresses do not sign ranges.
        """
        check_key(key)
        if self._signs_not:
            return None
        try:
            store = self._signing()
            if store is None:
                return None
            return str(self._obstore.sign(store, "GET", key, timedelta(seconds=seconds)))
        except LlmartifactsError:
            raise
        except BaseException as error:
            failure = read_failure(error)
            if failure is None and not isinstance(error, ValueError | NotImplementedError):
                raise
            # Credentials that cannot sign, such as a user's own on Google Cloud: downloads pass through the server.
            self._signs_not = failure is None or failure.kind in (Kind.MISUSED, Kind.BROKEN)
            return None

    def where(self, key: str) -> str:
        """Scheme, bucket and name."""
        return f"{self.place}/{key}"

    # --- write

    def put_if_absent(self, key: str, source: Source) -> bool:
        """Store an object unless there is one."""
        check_key(key)
        self._require_conditions()
        with _body(source, self.where(key)) as (body, size), self._sending.take(size):
            return self._create(key, body, size)

    def put_many(self, items: Sequence[tuple[str, Source]]) -> Sequence[bool]:
        """Store objects unless they are there, several at once."""
        for key, _ in items:
            check_key(key)
        if len(items) < 2:
            return [self.put_if_absent(key, source) for key, source in items]
        self._require_conditions()
        with ThreadPoolExecutor(min(_PUTS, len(items)), "llmartifacts-put") as pool:
            try:
                return list(pool.map(self.put_if_absent, *zip(*items, strict=True)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def replace(self, key: str, source: Source) -> None:
        """Store an object in place of a damaged one."""
        check_key(key)

        with _body(source, self.where(key)) as (body, size), self._sending.take(size):
            self._call("store", key, lambda store: self._put(store, key, body, "overwrite", ""), size=size)

    def delete(self, key: str) -> bool:
        """Remove an object; tells whether there was one."""
        if self.size(key) is None:
            return False
        try:
            self._call("delete", key, lambda store: self._obstore.delete(store, key))
        except BlobMissing:
            return False
        return True

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects: on S3 up to a thousand with one request, elsewhere or where that is refused several at once.

        Google Cloud Storage has no request for many, and of Azure's the first key that is not there, or cannot be
        removed, is all that the library tells; so both are asked object by object.
        """
        for key in keys:
            check_key(key)
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            if len(batch) == 1 or not self._batches:
                self._delete_each(batch)
                continue
            try:
                self._delete_at_once(batch)
            except (BlobMissing, InvalidInput, NotAllowed) as error:
                # Which one it is about is not told, or the store knows no such request: the answer for each one tells.
                self._delete_each(batch)
                self._batches = isinstance(error, BlobMissing)

    def _delete_at_once(self, keys: Sequence[str]) -> None:
        what = f"{self.where(keys[0])} and {len(keys) - 1} others"
        self._patience.call("delete", what, lambda: self._obstore.delete(self._many(), list(keys)))

    def _delete_each(self, keys: Sequence[str]) -> None:
        def gone(key: str) -> None:
            with suppress(BlobMissing):
                self._call("delete", key, lambda store: self._obstore.delete(store, key))

        pool = self._threads()
        asked = [pool.submit(gone, key) for key in keys]
        try:
            for one in asked:
                one.result()
        finally:
            for one in asked:
                one.cancel()
            wait(asked)  # one that is under way must not come after its key was stored again

    # --- one request

    def _call(self, doing: str, key: str, work: Callable[[Store], T], *, size: int = 0) -> T:
        return self._patience.call(doing, self.where(key), lambda: work(self._store()), size=size)

    def _part(self, key: str, start: int, count: int) -> Part:
        """A range of an object: all of it, or as far as the object goes."""

        def work(store: Store) -> Part:
            if not count:
                return Part(b"", int(self._obstore.head(store, key)["size"]), "")
            try:
                answer = self._obstore.get(store, key, options={"range": (start, start + count)})
            except BaseException as error:
                failure = read_failure(error)
                if failure is None or failure.kind is not Kind.RANGE:
                    raise
                meta = self._obstore.head(store, key)
                if int(meta["size"]) > start:
                    raise CutShort from None
                return Part(b"", int(meta["size"]), str(meta["e_tag"]))
            total = int(answer.meta["size"])
            told = (start, min(start + count, total))
            if tuple(answer.range) != told:
                raise CutShort
            return Part(_whole(answer, told[1] - told[0]), total, str(answer.meta["e_tag"]))

        return self._call("read", key, work, size=count)

    def _put(self, store: Store, key: str, body: Any, mode: Any, write: str) -> None:
        told: Any = {_WRITE: write} if write else None
        self._obstore.put(store, key, body, mode=mode, use_multipart=False, attributes=told)

    def _create(self, key: str, body: Any, size: int) -> bool:
        """Put an object on condition that there is none; tells whether this call did so, also if an answer got lost."""
        write = secrets.token_hex(8)
        tries = 0

        def work(store: Store) -> bool:
            nonlocal tries
            tries += 1
            try:
                self._put(store, key, body, "create", write)
            except BaseException as error:
                failure = read_failure(error)
                if failure is None or failure.kind is not Kind.EXISTS:
                    raise
                return (tries > 1 and self._written(store, key) == write) or self._is_there(store, key)
            return True

        return self._call("store", key, work, size=size)

    def _is_there(self, store: Store, key: str) -> bool:
        """False. Raises where there is no object after all: whoever was storing one did not."""
        try:
            self._obstore.head(store, key)
        except FileNotFoundError:
            raise Unsettled from None
        return False

    def _written(self, store: Store, key: str) -> str:
        """Which call stored an object."""
        try:
            answer = self._obstore.get(store, key, options={"head": True})
        except FileNotFoundError:
            raise Unsettled from None
        return str(answer.attributes.get(_WRITE, ""))

    def _require_conditions(self) -> None:
        """Find out, once, whether the store keeps the condition of a put: without, writers would undo each other."""
        if self._conditional:
            return
        for _ in range(2):  # the first may be the one that stores it
            if not self._create(_PROBE, _PROBE_TEXT, len(_PROBE_TEXT)):
                self._conditional = True
                return
        raise InvalidInput(
            f"{self.place} overwrites an object that is put on condition that there is none",
            field="blobs",
            next_step="Use a store that keeps `If-None-Match: *`, as S3, Google Cloud Storage, Azure and Ceph do.",
        )

    def _replaced(self, key: str) -> NoReturn:
        raise Unreachable(
            f"{self.where(key)} was replaced while it was read", next_step="Try again: what is there now is whole."
        )

    # --- the library

    def _store(self) -> Store:
        with self._lock:
            if ObjectStoreDriver._began_in is None:
                ObjectStoreDriver._began_in = os.getpid()
            elif ObjectStoreDriver._began_in != os.getpid():
                raise InvalidInput(
                    f"{self.place} cannot be used in a process that was forked from one that uses an object store",
                    field="blobs",
                    next_step="Start the process anew: multiprocessing's `spawn`, or no preloading.",
                )
            if self._kept is None:
                self._kept = _opened(self.place, self.place.endpoint, self._seconds)
            return self._kept

    def _signing(self) -> Store | None:
        """What signs addresses that clients can reach; None where they cannot, or not by TLS."""
        public = self.place.public
        if not public and _endpoint(self.place).startswith("http://"):
            public = NOT_PUBLIC
        if public == NOT_PUBLIC:
            self._signs_not = True
            return None
        if not public:
            return self._store()
        self._store()
        with self._lock:
            if self._signs is None:
                self._signs = _opened(self.place, public, self._seconds)
            return self._signs

    def _many(self) -> Store:
        """What deletes many at once; it waits as long as a request may take, since nothing comes until all are gone."""
        self._store()
        with self._lock:
            if self._deletes is None:
                self._deletes = _opened(self.place, self.place.endpoint, self._seconds, many=True)
            return self._deletes

    def _renew(self) -> None:
        with self._lock:
            self._kept = self._signs = self._deletes = None

    def _threads(self) -> ThreadPoolExecutor:
        self._store()
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, "llmartifacts-object")
            return self._pool


class _Room:
    """Bytes that may be under way at once."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._freed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many, or, if they are more than that ever is, until nothing is under way."""
        taken = min(size, self._most)
        with self._freed:
            self._freed.wait_for(lambda: self._left >= taken)
            self._left -= taken
        try:
            yield
        finally:
            with self._freed:
                self._left += taken
                self._freed.notify_all()


def _whole(answer: Any, size: int) -> bytes:
    """The body of an answer; one that goes on after its end is left alone there, however long it is."""
    pieces, done = [], 0
    for piece in answer.stream(min_chunk_size=size):
        pieces.append(piece)
        done += len(piece)
        if done > size:
            break
    if done != size:
        raise CutShort
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def _body(source: Source, where: str) -> Iterator[tuple[Any, int]]:
    """What is sent, and its bytes; a file is mapped, so that its pages, and no copy of it, are what memory holds."""
    if isinstance(source, bytes):
        yield source, len(source)
        return
    with storage_errors("read", source), open(source, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise TooLarge(f"{where} would have {size:,} bytes, more than one put takes", field="blobs")
        body: bytes | mmap = file.read() if size < PIECE else mmap(file.fileno(), size, access=ACCESS_READ)
    yield body, size  # a map is let go with its last user, which may be a request that was given up


def _endpoint(place: Place) -> str:
    """The address of the service: the one that was told, else that of the environment; empty for the vendor's own."""
    if place.endpoint or place.scheme != "s3":
        return place.endpoint
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if found := os.environ.get(name):
            return parse_endpoint(found, name)
    return ""


def _authorities() -> Mapping[str, bytes]:
    """Who vouches for certificates beside those whom the system knows, where somebody said so."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if path := os.environ.get(name):
            try:
                with open(path, "rb") as file:
                    return {"root_certificate": file.read(_MOST_PEM)}
            except OSError as error:
                raise InvalidInput(
                    f"cannot read the certificates that {name} names: {error.strerror}",
                    field=name,
                    next_step="Name a file of certificates in PEM form, or unset it.",
                ) from None
    return {}


def _opened(place: Place, endpoint: str, seconds: float, *, many: bool = False) -> Store:
    """The library's view of a place.

    Args:
        place: Which one.
        endpoint: The service; may be another than the place's, to sign for.
        seconds: As of the driver.
        many: Whether it is for requests that delete many objects.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    endpoint = endpoint or _endpoint(place)
    told: dict[str, Any] = {
        "prefix": place.prefix or None,
        "client_options": {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(_CONNECT, seconds)),
            "read_timeout": timedelta(seconds=max(_REQUEST, seconds) if many else min(_STALL, seconds)),
            "timeout": timedelta(seconds=max(_REQUEST, seconds)),
            "pool_idle_timeout": _UNUSED,
            **_authorities(),
        },
        # It is tried again here, where the deadline is known, and each try is signed anew.
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=seconds)},
    }
    try:
        if place.scheme == "s3":
            provider = from_shared_file(os.environ)
            if provider is not None:
                told["credential_provider"] = provider
            return S3Store(place.bucket, config=cast(Any, _s3(place, endpoint, many)), **told)
        if place.scheme == "gs":
            return GCSStore(place.bucket, config=cast(Any, {"base_url": endpoint} if endpoint else {}), **told)
        azure = {"account_name": place.account, "endpoint": endpoint, "disable_tagging": "true"}
        return AzureStore(place.bucket, config=cast(Any, {k: v for k, v in azure.items() if v}), **told)
    except (BaseError, ValueError, OSError) as error:
        failure = read_failure(error)
        if failure is not None and failure.kind is Kind.DENIED and place.scheme == "s3":
            raise as_error(failure, "open", str(place), str(place)) from None
        step = "Look at the variables that docs/object-store.md names."
        if place.scheme == "az" and not (place.account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")):
            step = "Name the account: az://container/prefix?account=… or $AZURE_STORAGE_ACCOUNT_NAME."
        raise InvalidInput(
            f"{place} cannot be used with what the environment of this process says of it",
            field="blobs",
            next_step=step,
        ) from None


def _s3(place: Place, endpoint: str, many: bool) -> Mapping[str, str]:
    style = place.style or ("path" if endpoint or "." in place.bucket else "virtual")
    if endpoint and style == "virtual":
        scheme, _, host = endpoint.partition("://")
        endpoint = f"{scheme}://{place.bucket}.{host}"
    told = {
        "endpoint": endpoint,
        "region": place.region,
        "virtual_hosted_style_request": "true" if style == "virtual" else "false",
        "conditional_put": "etag",
        "disable_bulk_delete": "false" if many else "true",
        "disable_tagging": "true",
    }
    return {name: value for name, value in told.items() if value}
