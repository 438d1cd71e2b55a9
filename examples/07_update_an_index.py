"""A knowledge base from day to day: only what changed is embedded, the training stays, the diff says what changed."""

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings


class Counting(HashingEmbeddings):
    """An embedder that counts the texts it was asked for; a hosted one sends a bill for them."""

    texts = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """As ever, and counted."""
        self.texts += len(texts)
        return super().embed_documents(texts)


def page(number: int, text: str) -> dict[str, str]:
    return {"id": f"help/{number}", "text": text}


topics = ("refunds", "invoices", "passwords", "shipping", "returns", "taxes", "accounts", "orders")
pages = [page(i, f"Page {i} says what to do about {topics[i % 8]} in case {i}.") for i in range(400)]
embeddings = Counting(256)  # any LangChain embeddings; this one needs no model

registry = la.init("registry")
first = la.VectorIndex.build(pages, embeddings=embeddings, model=embeddings.model, index="IVF16,Flat", nprobe=4)
registry.log("support-kb", first, aliases=["prod"], message="every page")
print(f"built from {len(pages)} pages: {embeddings.texts} embedded")

# A day later: one page rewritten, two new, one gone. The job knows the pages of now, and which ids are there no longer.
today = [*pages[:-1], page(400, "How to change an address."), page(401, "How to delete an account.")]
today[7] = page(7, "Orders are shown for two years.")
embeddings.texts = 0
served = registry.resolve("support-kb:prod", la.VectorIndex)
later = served.updated(add=today, remove="help/399", embeddings=embeddings)
checked = len(served.probes.file.texts)
print(f"updated: {embeddings.texts} embedded, {checked} of them to check the embedder")

# Another way to the same: built whole, over the centroids of the version that is served.
whole = la.VectorIndex.build(
    today, embeddings=embeddings, model=embeddings.model, index="IVF16,Flat", nprobe=4, train_from=served
)
question = embeddings.embed_query("Where do I delete my account?")
assert later.search(question, k=3).ids.tolist() == whole.search(question, k=3).ids.tolist()

registry.log("support-kb", later, message="daily update")
difference = registry.diff("support-kb:v1", "support-kb:v2")
print(", ".join(f"{name}: {value:g}" for name, value in (difference.numbers or {}).items()))
registry.promote("support-kb:v2", to="prod", reason="daily update")
print("prod finds:", registry.resolve("support-kb:prod", la.VectorIndex).search(question, k=1).ids[0][0])
