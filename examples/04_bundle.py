"""A bundle: a prompt, an index and three models frozen as one set, promoted and rolled back as one reference."""

from dataclasses import dataclass

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings

embeddings = HashingEmbeddings(256)
space = {"dimension": 256, "metric": "inner_product", "normalized": True}


def index(*texts: str) -> la.VectorIndex:
    return la.VectorIndex.build(list(texts), embeddings=embeddings, model=embeddings.model, index="Flat")


def models(temperature: float) -> dict[str, la.ModelSpec]:
    return {
        "llm": la.ModelSpec("openai", "gpt-4-turbo", parameters={"temperature": temperature}),
        "embedder": la.ModelSpec("llmartifacts", embeddings.model, parameters=space),
        "classifier": la.ModelSpec("huggingface", "cardiffnlp/twitter-roberta-base-sentiment", revision="daefdd1"),
    }


registry = la.init("registry")
prompt = la.Prompt("{{ passages | join('\n') }}\n\n{{ question }}", template_format="jinja2")
registry.log("support-agent", prompt)
registry.log("support-kb", index("Refunds take five days.", "Passwords are reset on the sign-in page."))

# The parts are pinned to digests when the bundle is logged: moving an alias later changes nothing in it.
parts = {"prompt": "support-agent:v1", "index": "support-kb:v1"}
inputs = ["passages", "question"]
registry.log("support-stack", la.Bundle(parts, models(0.2), inputs=inputs), message="careful")
registry.log("support-stack", la.Bundle(parts, models(0.9), inputs=inputs), message="lively")
print(registry.diff("support-stack:v1", "support-stack:v2"))

registry.promote("support-stack:v1", to="prod", reason="first release")
registry.promote("support-stack:v2", to="prod", reason="try the lively one")
registry.rollback("support-stack:prod", reason="too lively")


@dataclass(frozen=True)
class Stack:
    """What the service needs; each field is a role of the bundle."""

    prompt: la.Prompt
    index: la.VectorIndex
    llm: la.ModelSpec


with la.Resolver(Stack, "support-stack:prod", registry=registry) as resolver:
    stack = resolver.current.value
    found = stack.index.search(embeddings.embed_array(["How do refunds work?"]), k=1).documents[0][0]
    print(stack.prompt.format(passages=[found.text], question="How do refunds work?"))
    print("to be sent to", stack.llm.name, dict(stack.llm.parameters))
    print(resolver.current.stamp())

# An index of another dimension does not fit the bundle's embedder, and is refused before anything is written.
other = HashingEmbeddings(64)
registry.log("support-kb", la.VectorIndex.build(["One."], embeddings=other, model=other.model, index="Flat"))
try:
    registry.log("support-stack", la.Bundle({**parts, "index": "support-kb:v2"}, models(0.2), inputs=inputs))
except la.errors.Incompatible as refused:
    print("refused:", "; ".join(refused.problems))
else:
    raise AssertionError("a bundle that does not fit was logged")
