"""A policy, a suite and two people: what is not measured and not approved does not reach `prod`."""

import os
from pathlib import Path

import llmartifacts as la

os.environ["LLMARTIFACTS_KEYS"] = str(Path("keys").absolute())  # else the keys of the user's own configuration
from llmartifacts.signing import key_files

registry = la.init("registry")
registry.actor = "bob"  # who logs; embedded, a name is what somebody says it is

# Bob's prompts, and 80 sums to measure them by.
sums = [{"id": f"q{i}", "input": f"What is {i} + {i}?", "expected_output": str(2 * i)} for i in range(80)]
registry.log("sums", la.EvalDataset(sums))
registry.log("adder", la.Prompt("Add. {{ input }}", template_format="jinja2"), aliases="prod", message="in use")
registry.log("adder", la.Prompt("Add carefully. {{ input }}", template_format="jinja2"), message="checks itself")


def answer(prompt: la.Prompt, item: la.EvalDataset) -> str:
    """Stands for the model: without `carefully` in its prompt it gets every third sum wrong."""
    text = prompt.format(input=item.input)
    number = int(item.input.split()[2])
    return str(2 * number) if "carefully" in text or number % 3 else "no idea"


suite = la.EvalSuite("adding", "sums:v1", ["equals"], thresholds={"equals": {"margin": 0.05}})
registry.set_policy(
    {
        "name": "production",
        "aliases": {"prod": {"reason": True, "kinds": {"prompt": [{"eval": {"suite": "adding"}}, "approvals"]}}},
    },
    message="measured, and read by somebody else",
)

print("What stands between adder:v2 and prod?\n")
for result in registry.gate("adder:v2", to="prod").results:
    print(f"  {result}\n      to do: {result.next_step or 'nothing'}")

# Bob measures it. The report names the digests of version, dataset, suite, scorer, and of what prod serves.
report = la.evaluate(registry, suite, "adder:v2", outputs=answer)
print(f"\n{report.metric('equals')}; against prod {report.metric('equals').comparison.delta:+.3f}")

# Ada has a key that the registry trusts. Her signature is for these digests, this alias, and what it serves now.
registry.trust_key(key_files.create("ada", "ada").public.text, person="ada", roles=["lead"])
registry.approve("adder:v2", to="prod", key="ada", reason="read it, and it is careful")

promotion = registry.promote("adder:v2", to="prod", reason="adds right")
print(f"\n{promotion}, approved by {', '.join(promotion.approvals)}")
assert registry.get("adder:prod").number == 2

# The way back asks for no evidence: it was served before. The way forth asks anew, for prod has moved since.
registry.rollback("adder:prod", reason="shows the way back")
try:
    registry.promote("adder:v2", to="prod", reason="once more")
except la.errors.GateRefused as refusal:
    print(f"\n{refusal.problems[0]}")
