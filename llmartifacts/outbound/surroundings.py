"""What connections take from the environment: the time they may take, authorities and proxies."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

import requests.utils

from llmartifacts.errors import InvalidInput
from llmartifacts.outbound.addresses import is_loopback

TIMEOUT = "LLMARTIFACTS_TIMEOUT"
DEFAULT_TIMEOUT = 30.0
_MAX_TIMEOUT = 7 * 86_400.0


def default_timeout() -> float:
    """Seconds that an operation may take: `$LLMARTIFACTS_TIMEOUT`, else 30.

    Raises:
        InvalidInput: The variable is no such number.
    """
    given = os.environ.get(TIMEOUT, "").strip()
    if not given:
        return DEFAULT_TIMEOUT
    try:
        return seconds(float(given), field=f"${TIMEOUT}")
    except ValueError:
        raise InvalidInput(f"{given[:40]!r} is no number of seconds", field=f"${TIMEOUT}") from None


def seconds(value: float, *, field: str = "timeout") -> float:
    """A time, if it is one.

    Raises:
        InvalidInput: It is not above 0, or beyond a week.
    """
    if isinstance(value, bool) or not 0 < value <= _MAX_TIMEOUT:  # NaN fails too
        raise InvalidInput("a time is a number of seconds above 0 and up to a week", field=field)
    return float(value)


def authorities() -> str | bool:
    """Who vouches for certificates: `$REQUESTS_CA_BUNDLE` or `$CURL_CA_BUNDLE`, else those that `requests` brings.

    Raises:
        InvalidInput: The file is not there.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if given := os.environ.get(name):
            if not os.path.exists(given):
                raise InvalidInput("there is no such file of certificates", field=f"${name}", origin=given)
            return given
    return True


def proxies(url: str) -> dict[str, str]:
    """The proxies of the environment, but none on the way to this machine."""
    if is_loopback(urlsplit(url).hostname or ""):
        return {}
    return dict(requests.utils.get_environ_proxies(url, no_proxy=None))


@cache
def user_agent() -> str:
    """`llmartifacts/VERSION`."""
    return f"llmartifacts/{version('llmartifacts')}"
