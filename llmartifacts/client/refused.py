"""What to do about a server that does not take the token, or that is not there: here token and address are known."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from llmartifacts.client.address import Address
from llmartifacts.errors import LlmartifactsError
from llmartifacts.records.places import config_directory
from llmartifacts.records.rights import token_id

_VARIABLE = "LLMARTIFACTS_TOKEN"


def explained(error: LlmartifactsError, status: int, address: Address, token: str | None) -> LlmartifactsError:
    """The error of an answer; of one that takes no token (401), with where the token came from and how to get another.

    The server does not say what is wrong with a token. Whether it was copied whole, its checksum says here.

    Args:
        error: What the server says.
        status: HTTP status.
        address: The server.
        token: What was sent; None if nothing was.
    """
    if status != 401:
        return error
    login = f"llmartifacts login {address.url}"
    if token is None:
        return replace(error, next_step=f"Log in: {login}; or set ${_VARIABLE}.")
    place, step = _source(address, token, login)
    if token.startswith("lla_") and token_id(token) is None:
        told = "the token is mistyped or cut off: its checksum is wrong"
        return replace(error, message=told, next_step=f"{place}Copy it again. {step}")
    return replace(error, next_step=f"{place}{step}")


def nobody_there(address: Address) -> str:
    """What to do where nobody answers at an address."""
    return (
        f"See whether the server runs ({address.url}/healthz), and whether the address is right: --registry, or"
        " $LLMARTIFACTS_REGISTRY."
    )


def _source(address: Address, token: str, login: str) -> tuple[str, str]:
    """Where a token came from, in a sentence, and how to have another there."""
    from llmartifacts.client import credentials, workload  # they import the session, which imports this

    kept = None
    with suppress(LlmartifactsError):
        kept = credentials.find(address)
    file = config_directory() / credentials.FILE
    if token == os.environ.get(_VARIABLE, "").strip():
        if kept is not None and kept.token != token:
            return (
                f"It came from ${_VARIABLE}, which goes before the login in {file}. ",
                f"Set another, or unset it to use that login ({kept.account or 'somebody'}).",
            )
        return f"It came from ${_VARIABLE}. ", f"Set another there; or unset it, and log in: {login}."
    if kept is not None and kept.token == token:
        return f"It came from {file}. ", f"Log in again: {login}."
    if workload.names_file():
        return f"It was had for the login provider's token in ${workload.FILE}. ", "See the account of this program."
    return "", f"Log in again: {login}."
