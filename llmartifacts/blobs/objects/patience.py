"""Trying again: until a deadline, with pauses that grow and that chance shortens, and with credentials read anew."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from llmartifacts.blobs.objects.failures import AGAIN, Failure, Kind, as_error, read_failure
from llmartifacts.errors import LlmartifactsError

T = TypeVar("T")
_FIRST = 0.05
_LONGEST = 4.0
_RATE = 512 * 1024
"""Bytes a second that a line has to carry at least, averaged; more time is given for more bytes."""


class Patience:
    """How often and how long one request is tried.

    Args:
        bucket: The store, for messages.
        seconds: How long requests are begun anew, for one that moves few bytes; the last of them may take its own time.
        renew: Makes the credentials be read anew; called once, when the store refuses those at hand.
    """

    def __init__(self, bucket: str, seconds: float, renew: Callable[[], None]) -> None:
        self._bucket = bucket
        self._seconds = seconds
        self._renew = renew

    def call(self, doing: str, where: str, work: Callable[[], T], *, size: int = 0) -> T:
        """What `work` gives, after as many tries as it takes.

        Args:
            doing: What is tried, such as `store`.
            where: The object.
            work: One request.
            size: Bytes that it moves.

        Raises:
            BlobMissing: There is no such object.
            NotAllowed: The credentials do not do, or the store is full.
            InvalidInput: The store does not understand what it is asked.
            DeadlineExceeded: It did not answer in time.
            Unreachable: It did not answer, or said that it cannot.
        """
        begun = time.monotonic()
        until = begun + self._seconds + size / _RATE
        tries, renewed = 0, False
        while True:
            try:
                return work()
            except BaseException as error:
                failure = read_failure(error)
                if failure is None:
                    raise
            tries += 1
            if failure.kind is Kind.DENIED and not renewed:
                renewed = True
                self._renew()
                continue
            pause = random.uniform(0, min(_LONGEST, _FIRST * 2**tries))  # noqa: S311 - no secret
            if failure.kind not in AGAIN:
                raise as_error(failure, doing, where, self._bucket) from None
            if time.monotonic() + pause > until:
                raise self._given_up(failure, doing, where, tries, time.monotonic() - begun) from None
            time.sleep(pause)

    def _given_up(self, failure: Failure, doing: str, where: str, tries: int, seconds: float) -> LlmartifactsError:
        told = f"{failure.reason}, after {tries} {'try' if tries == 1 else 'tries'} in {seconds:.0f} s"
        return as_error(Failure(failure.kind, told), doing, where, self._bucket)
