"""The administrator: makes accounts, gives roles, and says what `prod` asks for. Prints a token for each account, once.

The same by hand: `llmartifacts user add bob`, `llmartifacts grant add bob writer`, `llmartifacts token create …`.
"""

import json
import sys

import llmartifacts as la

registry = la.connect()
accounts = registry.backend.accounts

accounts.create_account("bob")
accounts.grant("bob", "writer", project="default")
accounts.grant("bob", "promoter", project="default", aliases=["*", "!prod"])  # any alias but prod
accounts.create_account("ada")
accounts.grant("ada", "promoter", project="default")
accounts.create_account("support", "service")
accounts.grant("support", "reader", project="default")

registry.set_policy(
    {"name": "production", "aliases": {"prod": {"reason": True, "kinds": {"*": ["approvals"]}}}},
    message="somebody else reads it",
)
registry.trust_key(sys.argv[1], person="ada", roles=["lead"])  # the public half; the other stays with her
print(json.dumps({name: accounts.create_token("first", account=name).text for name in ("bob", "ada", "support")}))
