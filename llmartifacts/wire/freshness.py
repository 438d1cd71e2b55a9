"""How a client knows that an answer was made for this very request, and is no older one that somebody kept.

    client: `Llmartifacts-Request: <random>`     server: the same header in its answer, with the same value

`X-Request-Id` carries the same value, and would do but for the proxies that replace it with one of their own.
"""

from __future__ import annotations

ECHO = "llmartifacts-request"
"""Header that a server gives back as it came."""
REQUEST_ID = "x-request-id"
"""Header by which a request is found in logs; given back too, where nobody in between replaced it."""
