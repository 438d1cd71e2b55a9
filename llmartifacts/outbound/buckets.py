"""`s3://`: objects of S3 and of stores that speak as S3 does, by obstore (extra `[s3]`).

Where the store is and who reads it is taken from the environment as everywhere (`AWS_ENDPOINT_URL`, `AWS_REGION`,
`AWS_ACCESS_KEY_ID`, …), never from the URL. Without credentials it is read as anybody may read it; where not everybody
may, by the role of the machine, if it has one.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmartifacts.errors import (
    BlobMissing,
    DeadlineExceeded,
    LlmartifactsError,
    MissingExtra,
    NotAllowed,
    TooLarge,
    Unreachable,
)
from llmartifacts.outbound.sockets import SLOWEST
from llmartifacts.outbound.source import PIECE, Opened
from llmartifacts.outbound.surroundings import user_agent
from llmartifacts.records.external import Place

if TYPE_CHECKING:
    from obstore.store import S3Store

_WHO = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables of which one says who reads."""
T = TypeVar("T")
Credentials = Callable[[], Any]
"""Gives credentials as obstore takes them."""
_CONNECT = 10.0
_CREDENTIAL = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) of somebody who may read it."
_REGION = "See whether AWS_REGION is the bucket's, and AWS_ENDPOINT_URL the address of its store."


@contextmanager
def opened(
    place: Place, *, start: int, limit: int, seconds: float, credentials: Credentials | None = None
) -> Iterator[Opened]:
    """Open an object.

    Args:
        place: Its `s3://` URL.
        start: First byte to read.
        limit: Bytes that it may have in all.
        seconds: Pause after which it is given up.
        credentials: Gives credentials where the environment has none.

    Raises:
        MissingExtra: obstore is not installed.
        BlobMissing: There is no such object, or no such version of it.
        NotAllowed: It may not be read.
        TooLarge: There is more than `limit`.
        Unreachable: The store cannot be had; another attempt may help.
        DeadlineExceeded: It came too slowly.
    """
    options: dict[str, Any] = {}
    if place.version:
        options["version"] = place.version
    if start:
        options["range"] = {"offset": start}

    def get(obstore: Any, store: S3Store) -> tuple[Any, int, str]:
        found = obstore.get(store, place.key, options=options)
        return found, found.meta["size"], found.meta.get("version") or ""

    found, size, version = _asked(place, get, seconds, limit, credentials)
    if size > limit:
        raise TooLarge(f"{place} has more than the {limit:,} bytes that it may have")
    yield Opened(_pieces(place, found, seconds, limit - start), size, version)


def _pieces(place: Place, found: Any, seconds: float, limit: int) -> Iterator[bytes]:
    begun, total = time.monotonic(), 0
    try:
        for data in found.stream(min_chunk_size=PIECE):
            piece = bytes(data)
            total += len(piece)
            if total > limit:
                raise TooLarge(f"{place} has more than the {limit:,} bytes that it may have")
            if time.monotonic() - begun > seconds + total / SLOWEST:
                raise DeadlineExceeded(f"{place} did not come in time")
            if piece:
                yield piece
    except LlmartifactsError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise _typed(place, error) from None


def keys_below(place: Place, *, most: int, seconds: float, credentials: Credentials | None = None) -> list[str]:
    """The keys of a bucket that lie below a place, sorted; keys that end in a slash are left out.

    Args:
        place: Its key is a prefix that ends in a slash, or nothing.
        most: How many there may be.
        seconds: Pause after which it is given up.
        credentials: As in `opened`.

    Raises:
        TooLarge: There are more.
        LlmartifactsError: As `opened`.
    """

    def listed(obstore: Any, store: S3Store) -> list[str]:
        found: list[str] = []
        for page in obstore.list(store, place.key.rstrip("/") or None, chunk_size=1000):
            found += [one["path"] for one in page if one["path"].startswith(place.key)]
            if len(found) > most:
                break
        return found

    found = _asked(place, listed, seconds, 0, credentials)
    if len(found) > most:
        raise TooLarge(f"below {place} there are more than {most:,} objects")
    return sorted(found)


def _asked(
    place: Place,
    ask: Callable[[Any, S3Store], T],
    seconds: float,
    limit: int,
    credentials: Credentials | None,
) -> T:
    """Ask a store as whoever reads here: with credentials, else as anybody, else by the role of the machine."""
    try:
        import obstore
    except ImportError:
        raise MissingExtra("to read s3:// the library obstore is wanted", extra="s3") from None
    if credentials is not None:
        credentials()  # what is wrong with them is told before the store is asked

    def asked(who: Mapping[str, Any]) -> T:
        try:
            store = _store(place.host, seconds, limit, who)
        except Exception:  # noqa: BLE001 - whatever obstore thinks of its variables
            raise NotAllowed(
                f"{place} cannot be asked for: the AWS_ variables of the environment do not go together",
                next_step=_CREDENTIAL,
            ) from None
        try:
            return _in_time(place, seconds, lambda: ask(obstore, store))
        except LlmartifactsError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever obstore raises
            raise _typed(place, error) from None

    if credentials is not None:
        return asked({"credential_provider": credentials})
    if any(os.environ.get(name) for name in _WHO):
        return asked({})
    try:
        return asked({"skip_signature": True})
    except NotAllowed as refused:
        try:
            return asked({})
        except LlmartifactsError:
            raise refused from None


def _in_time(place: Place, seconds: float, do: Callable[[], T]) -> T:
    """Do something, and wait for it no longer than it may take: obstore waits for ever in a process that was forked."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((do(), None))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answers.put((None, error))

    threading.Thread(target=run, daemon=True, name="llmartifacts-s3").start()
    try:
        made, error = answers.get(timeout=2 * seconds + _CONNECT)
    except queue.Empty:
        raise DeadlineExceeded(
            f"{place} did not come in time",
            next_step="A process that was forked after s3:// was read cannot read it: start processes by spawn.",
        ) from None
    if error is not None:
        raise error
    return cast(T, made)


def _store(bucket: str, seconds: float, limit: int, who: Mapping[str, Any]) -> S3Store:
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return S3Store(
        bucket,
        client_options={
            "connect_timeout": timedelta(seconds=min(_CONNECT, seconds)),
            "read_timeout": timedelta(seconds=seconds),
            "timeout": timedelta(seconds=seconds + min(limit / SLOWEST, 7 * 86_400.0)),
            "user_agent": user_agent(),
            # In the open only where the operator's own environment says so.
            "allow_http": endpoint.startswith("http://"),
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=seconds)},
        **who,
    )


def _typed(place: Place, error: Exception) -> LlmartifactsError:
    """What a store says, as an error of this package: its own text stays out, which may be anything."""
    from obstore import exceptions

    if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
        return BlobMissing(f"{place} is gone", file=str(place))
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return NotAllowed(f"{place} may not be read from here", next_step=_CREDENTIAL)
    text = str(error).lower()
    if "timed out" in text or "timeout" in text:
        return DeadlineExceeded(f"{place} did not come in time")
    if isinstance(error, exceptions.InvalidPathError):
        return NotAllowed(f"{place} has a key that cannot be asked for")
    return Unreachable(f"{place} cannot be had ({type(error).__name__})", next_step=_REGION)
