"""A service: starts from what `prod` names, and answers a question for each line that it reads.

Its token may read and nothing else. Where the registry cannot be had it starts from the last set that it knows to be
good, which lies in its cache, every byte of it verified again.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import llmartifacts as la

VECTORS = {"refund": [[0.9, 0.1]], "ship": [[0.1, 0.9]]}  # an embedder in place of this


@dataclass(frozen=True)
class Support:
    """What it needs."""

    agent: Annotated[la.Prompt, "support-agent:prod"]
    kb: Annotated[la.VectorIndex, "support-kb:prod"]


with la.Resolver(Support, startup_timeout=10) as resolver:
    print(f"from the {resolver.current.source}: {resolver.current.stamp()}", flush=True)
    for line in sys.stdin:
        support = resolver.current.value
        hits = support.kb.search(VECTORS["refund" if "refund" in line else "ship"], k=1)
        context = hits.documents[0][0].text
        prompt = support.agent.format(question=line.strip(), context=context)
        print(prompt.splitlines()[2], flush=True)  # a model would get all of it
