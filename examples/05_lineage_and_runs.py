"""Where a version came from, and what depends on it: inputs, runs, lineage up and down."""

import json

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings

registry = la.init("registry")
embeddings = HashingEmbeddings(128)


def build_index(docs: str) -> la.Version:
    """Build the index from one version of the documents, as a run that remembers both."""
    with registry.run("build-index", parameters={"dimension": 128, "docs": docs}) as run:
        texts = json.loads(run.use(docs, la.Files).read("pages.json"))
        kb = la.VectorIndex.build(texts, embeddings=embeddings, model=embeddings.model, index="Flat")
        return run.log("support-kb", kb)  # derived from everything the run used


registry.log("support-docs", la.Files({"pages.json": json.dumps(["Refunds take five days."]).encode()}))
build_index("support-docs:v1")
pages = ["Refunds take ten days.", "Invoices are PDFs."]
registry.log("support-docs", la.Files({"pages.json": json.dumps(pages).encode()}), inputs=["support-docs:v1"])
kb = build_index("support-docs:v2")
registry.log("support-agent", la.Prompt("{{ question }}", template_format="jinja2"))
registry.log("support-stack", la.Bundle({"prompt": "support-agent:v1", "index": "support-kb:v2"}))
registry.promote("support-stack:v1", to="prod", reason="first release")

print("What is in production, and where did it come from?\n")
print(registry.lineage("support-stack:prod", "up").to_text())

print("\nThe first pages were wrong. What came of them?\n")
affected = registry.lineage("support-docs:v1", "down")
print(affected.to_text())
assert "support-stack:v1" in affected.nodes

# A run that raises is kept as failed, with what it had used.
try:
    with registry.run("build-index") as run:
        run.use("support-docs:v1", la.Files)
        raise RuntimeError("out of memory")
except RuntimeError:
    pass
print("\nRuns, newest first:")
for record in registry.runs():
    used, made = (
        ", ".join(f"{r.name}:v{r.number}" for r in side) or "nothing" for side in (record.used, record.produced)
    )
    print(f"  {record.name}, {record.status}: {used} -> {made} {record.error}".rstrip())
assert registry.runs()[0].status == "failed"
