"""Two login providers, one for people and one for jobs: what a server is told of them, as its file says it."""

from __future__ import annotations

CORP, CI = "https://login.example.com", "https://ci.example.com"
CLIENT, AUDIENCE = "llmartifacts", "https://registry.example.com"
CONFIG = {
    "providers": [
        {
            "name": "corp",
            "issuer": CORP,
            "client_id": CLIENT,
            "rules": [
                {"claims": {"sub": "boss-1"}, "account": "root"},
                {"claims": {"email": "*@partner.example"}, "user": "email", "teams": ["partners"], "life": "1h"},
                {"claims": {"groups": "ml-*"}, "user": "preferred_username"},
                {"claims": {"role": "impostor"}, "account": "root"},
            ],
        },
        {
            "name": "ci",
            "issuer": CI,
            "audience": AUDIENCE,
            "rules": [
                {
                    "claims": {
                        "repository": "acme/agent",
                        "ref": "refs/heads/main",
                        "environment": ["prod", "staging"],
                    },
                    "account": "ci-agent",
                    "scope": {"projects": ["default"], "roles": ["writer"]},
                    "life": "30m",
                }
            ],
        },
    ]
}
