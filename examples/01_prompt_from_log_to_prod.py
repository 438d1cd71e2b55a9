"""A prompt from a file to production and back: log, promote, resolve, roll back."""

from pathlib import Path

import llmartifacts as la

registry = la.init("registry")  # a directory: a database and files. Later: la.connect("registry")

# Log. The version covers everything that changes the answer: the template, the model and its parameters.
template = Path("support_agent.j2")
template.write_text("You are the support agent of {{ company }}. Answer briefly.\n\n{{ question }}")
model = la.ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": 0.2, "top_p": 0.9})
first = registry.log("support-agent", la.Prompt.from_file(template, model=model), message="first draft")
print(f"logged      {first}  {first.digest}")

# The same content again is the same version.
again = registry.log("support-agent", la.Prompt.from_file(template, model=model))
assert again.digest == first.digest
assert not again.created

# Promote: `prod` now means v1, for whoever resolves it.
registry.promote("support-agent:v1", to="prod", reason="first release")
question = {"company": "Acme", "question": "Where is my order?"}
before = registry.resolve("support-agent:prod", la.Prompt).format(**question)
print("prod says  ", before.splitlines()[0])

# Change it. `expect` refuses the move if somebody else has moved prod meanwhile.
template.write_text("You are the support agent of {{ company }}. Answer in one sentence.\n\n{{ question }}")
second = registry.log("support-agent", la.Prompt.from_file(template, model=model), message="one sentence")
registry.promote("support-agent:v2", to="prod", reason="customers skim", expect={"support-agent": "v1"})
print(f"promoted    {second}")
print(registry.diff("support-agent:v1", "support-agent:v2"))

# And back, in one call.
registry.rollback("support-agent:prod", reason="one sentence was too short for refunds")
assert registry.resolve("support-agent:prod", la.Prompt).format(**question) == before

print("history of support-agent:prod, newest first:")
for entry in registry.history("support-agent:prod"):
    print(f"  {entry}: {entry.reason}")
