"""The keys of a login provider: fetched from where its discovery document says, kept, and fetched anew when needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from llmartifacts.client.address import Address
from llmartifacts.client.fetch import Fetched, check_url, fetch
from llmartifacts.errors import InvalidInput, LlmartifactsError, TooLarge, Unreachable

AGAIN = 30.0
"""Seconds in which the keys are fetched at most once, whatever keys are asked for."""
RETRY = 5.0
"""The same, while there are none at all."""
FRESH = 3_600.0
"""Seconds after which keys are fetched anew, so that one taken back is not trusted for ever."""
STALE = 86_400.0
"""Seconds after which keys are not used any more, if the provider cannot be had."""
MAX_KEYS = 100
_MAX_DOCUMENT = 512 * 1024
_SECONDS = 5.0
_MIN_RSA = 2048
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}


class Keys:
    """The public keys of one provider. Safe to use from several threads.

    Args:
        issuer: The provider.
        get: Fetches an address.
        clock: Seconds that go on.
    """

    def __init__(
        self,
        issuer: str,
        *,
        get: Callable[..., Fetched] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._get = get
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: list[dict[str, Any]] = []
        self._at: float | None = None
        self._tried: float | None = None
        self._failure: LlmartifactsError | None = None

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key that a signature names; None if the provider has none such.

        Args:
            kid: Id of the key; None where the token names none, which is good if there is only one that fits.
            algorithm: The signature's algorithm, one that is taken.

        Raises:
            Unreachable: The provider's keys cannot be had.
        """
        with self._lock:
            found = self._fitting(kid, algorithm)
            if (found is None or self._old(FRESH)) and self._may_fetch():
                self._fetch()
                found = self._fitting(kid, algorithm)
            if self._at is None or self._old(STALE):
                why = f": {self._failure.message}" if self._failure else ""
                raise Unreachable(
                    f"the keys of the login provider {self._issuer} cannot be had{why}",
                    next_step="Try again in a moment; the server's administrator sees more in its log.",
                )
            return found

    def _old(self, seconds: float) -> bool:
        return self._at is None or self._clock() - self._at >= seconds

    def _may_fetch(self) -> bool:
        pause = RETRY if self._at is None else AGAIN
        return self._tried is None or self._clock() - self._tried >= pause

    def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            self._keys = self._published()
        except LlmartifactsError as error:
            self._failure = error
        else:
            self._at, self._failure = self._clock(), None

    def _published(self) -> list[dict[str, Any]]:
        what = f"the login provider {self._issuer}"
        said = self._document(self._issuer.rstrip("/") + "/.well-known/openid-configuration", what)
        if said.get("issuer") != self._issuer:
            raise Unreachable(f"{what} does not answer as itself")
        local = Address.parse("/".join(self._issuer.split("/")[:3])).on_loopback
        try:
            url = check_url(said.get("jwks_uri", ""), field="jwks_uri", loopback=local)
        except InvalidInput:
            raise Unreachable(f"{what} names no usable address of its keys") from None
        keys = self._document(url, what).get("keys")
        if not isinstance(keys, list):
            raise Unreachable(f"{what} publishes no keys")
        if len(keys) > MAX_KEYS:
            raise TooLarge(f"{what} publishes {len(keys)} keys, the limit is {MAX_KEYS}")
        return [one for one in keys if isinstance(one, dict)]

    def _document(self, url: str, what: str) -> dict[str, Any]:
        answer = self._get(url, seconds=_SECONDS, limit=_MAX_DOCUMENT)
        if answer.status != 200:
            raise Unreachable(f"{what} answered {answer.status}")
        return answer.json(what)

    def _fitting(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The one key for an algorithm; a key never says itself what it may be used for."""
        fitting = [one for one in self._keys if _fits(one, algorithm) and (kid is None or one.get("kid") == kid)]
        if len(fitting) != 1:
            return None
        try:
            made = PyJWK.from_dict(fitting[0], algorithm)
        except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return made if getattr(made.key, "key_size", _MIN_RSA) >= (_MIN_RSA if made.key_type == "RSA" else 0) else None


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    if key.get("kty") != _FAMILIES[algorithm[:2]]:
        return False  # "oct", a shared secret, is of no family
    curve = _CURVES.get(algorithm)
    operations = key.get("key_ops")
    return (
        (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
    )
