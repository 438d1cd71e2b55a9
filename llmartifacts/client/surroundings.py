"""The token, if it is one that can be sent."""

from __future__ import annotations

from llmartifacts.errors import InvalidInput

_MAX_TOKEN = 16_384


def check_token(token: str) -> str:
    """The token, if it can be sent.

    Raises:
        InvalidInput: It is empty, too long, or has spaces or other characters that no token has.
    """
    if not token or len(token) > _MAX_TOKEN or not token.isascii() or not all("!" <= c <= "~" for c in token):
        raise InvalidInput(
            "the token is empty, too long, or has characters that no token has",
            field="token",
            next_step="Copy it again, without spaces or quotes.",
        )
    return token
