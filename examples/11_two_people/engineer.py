"""Bob, an engineer: logs what is to be served, tries it as `staging`, and asks what stands between it and `prod`.

$LLMARTIFACTS_REGISTRY is the address of the team's registry, $LLMARTIFACTS_TOKEN is his.
"""

import llmartifacts as la

registry = la.connect()

prompt = la.Prompt(
    "Answer in one sentence.\n\n{{ context }}\n\nQuestion: {{ question }}",
    template_format="jinja2",
    model=la.ModelSpec(provider="openai", name="gpt-4-turbo", parameters={"temperature": 0.2}),
)
documents = [
    {"id": "refunds", "text": "Refunds arrive within five days."},
    {"id": "shipping", "text": "We ship on weekdays."},
]
space = la.EmbeddingSpec("my-embedder", dimension=2, normalized=True)
registry.log("support-agent", prompt, message="one sentence")
registry.log("support-kb", la.VectorIndex.from_vectors([[1.0, 0.0], [0.0, 1.0]], documents, embedding=space))
wanted = ["support-agent:v1", "support-kb:v1"]
registry.promote(wanted, to="staging", reason="to be tried")
print(f"{registry.actor} logged {', '.join(wanted)}, and moved staging to them")

try:
    registry.promote(wanted, to="prod", reason="looks good to me")
except la.errors.NotAllowed as refusal:
    print(f"prod, by {registry.actor}: refused, {refusal.message}")
for result in registry.gate(wanted, to="prod", reason="launch").results:
    print(f"  {result}")
