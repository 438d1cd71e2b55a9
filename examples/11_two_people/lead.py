"""Ada, who leads the team: looks at what Bob asks for, signs it, and moves `prod`.

The signature is made here, with a key that never leaves this machine ($LLMARTIFACTS_KEYS). The server checks it, and
the policy, in the transaction that moves the aliases.
"""

import llmartifacts as la

registry = la.connect()

wanted = ["support-agent:staging", "support-kb:staging"]
for reference in wanted:
    version = registry.get(reference)
    print(f"  {version.reference} by {version.author}: {version.message or 'no message'}")
registry.approve(wanted, to="prod", key="ada", reason="read both")
promotion = registry.promote(wanted, to="prod", reason="launch")
print(f"{registry.actor} moved prod: {promotion}, approved by {', '.join(promotion.approvals)}")
