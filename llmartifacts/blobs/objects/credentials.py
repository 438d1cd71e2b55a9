"""Credentials for S3 from the file that other tools share, read anew when it changes.

The environment comes first, as everywhere. A file is what a mounted secret is, and what lets a server go on after
its credentials were renewed.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llmartifacts.errors import NotAllowed

_KEPT = timedelta(minutes=1)
"""How long what was read is used before the file is looked at again."""
_MOST = 1 << 20
_ELSEWHERE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


def from_shared_file(environment: Mapping[str, str]) -> Callable[[], dict[str, Any]] | None:
    """What gives credentials from the shared file; None where they come from somewhere else.

    Args:
        environment: Variables: `AWS_SHARED_CREDENTIALS_FILE`, by default `~/.aws/credentials`, and `AWS_PROFILE`.
    """
    if any(environment.get(name) for name in _ELSEWHERE):
        return None
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE") or ""
    path = Path(named or "~/.aws/credentials").expanduser()
    profile = environment.get("AWS_PROFILE") or "default"
    if not (named or environment.get("AWS_PROFILE") or path.exists()):
        return None
    return lambda: read(path, profile)


def read(path: Path, profile: str) -> dict[str, Any]:
    """The credentials of a profile, and until when they are used without another look.

    Raises:
        NotAllowed: The file cannot be read, or has no such profile; nothing of it is told.
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(os.fspath(path), encoding="utf-8") as file:
            parser.read_string(file.read(_MOST))
        section = parser[profile]
        found: dict[str, Any] = {
            "access_key_id": section["aws_access_key_id"],
            "secret_access_key": section["aws_secret_access_key"],
        }
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise NotAllowed(
            f"there are no credentials for S3 in {path}, profile {profile}{reason}",
            next_step="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file and profile that has them.",
        ) from None
    token = section.get("aws_session_token")
    return {**found, **({"token": token} if token else {}), "expires_at": datetime.now(UTC) + _KEPT}
