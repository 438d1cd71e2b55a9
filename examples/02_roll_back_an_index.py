"""A vector index in two versions: build, search, promote, and roll back when the new one turns out worse."""

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings

PASSAGES = {
    "refunds": "A refund is paid to the card that was charged, within five working days.",
    "password": "To reset your password, follow the link on the sign-in page. It is valid for one hour.",
    "invoices": "Invoices are listed under Settings, Billing. Each can be downloaded as a PDF.",
}
embeddings = HashingEmbeddings(256)  # any LangChain embeddings; this one needs no model


def build(passages: dict[str, str]) -> la.VectorIndex:
    documents = [{"id": name, "text": text} for name, text in passages.items()]
    return la.VectorIndex.build(documents, embeddings=embeddings, model=embeddings.model, index="Flat")


def best(reference: str, question: str) -> str | None:
    """Id of the passage that the index finds first."""
    index = registry.resolve(reference, la.VectorIndex)
    return index.search(embeddings.embed_array([question]), k=1).ids[0][0]


registry = la.init("registry")
registry.log("support-kb", build(PASSAGES), message="the help pages")
registry.promote("support-kb:v1", to="prod", reason="first release")
question = "How do I get a refund?"
before = best("support-kb:prod", question)
print(f"v1 answers {question!r} with: {before}")

# The next build lost a page, and nobody noticed before it was promoted.
registry.log("support-kb", build({k: v for k, v in PASSAGES.items() if k != "refunds"}), message="nightly build")
registry.promote("support-kb:v2", to="prod", reason="nightly build")
print(f"v2 answers {question!r} with: {best('support-kb:prod', question)}")
print(registry.diff("support-kb:v1", "support-kb:v2"))

# Nothing is built again: v1 is still there, whole, and the alias moves back to it.
registry.rollback("support-kb:prod", reason="the refund page is missing")
after = best("support-kb:prod", question)
print(f"rolled back, it is again: {after}")
assert after == before == "refunds"

# LangChain's retriever over what prod serves.
retriever = registry.resolve("support-kb:prod", la.VectorIndex).as_retriever(embeddings)
print("as a retriever:", retriever.invoke("I forgot my password")[0].page_content)
