"""What the service is made of and what it answers; nothing here knows of HTTP."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

import llmartifacts as la
from llmartifacts.integrations.hashing import HashingEmbeddings


@dataclass(frozen=True)
class PythonHelp:
    """The components, each by the alias it is served from; resolved together, at one revision."""

    prompt: Annotated[la.Prompt, "rag-answer:prod"]
    kb: Annotated[la.VectorIndex, "python-kb:prod"]
    models: Annotated[la.Bundle, "python-models:prod"]


def answer(serving: PythonHelp, question: str) -> dict[str, Any]:
    """Find passages and fill the prompt with them.

    A real service would now send the prompt to `model`. This one runs without a network, so it quotes the best passage
    instead; what it quotes still depends on the exact index, prompt and models that `prod` names.
    """
    embedder = HashingEmbeddings(serving.kb.embedding.dimension)
    hits = serving.kb.search(embedder.embed_array([question]), k=serving.models.parameters["passages"])
    found = [document for document in hits.documents[0] if document is not None]
    passages = [{"id": document.id, "text": document.text} for document in found]
    prompt = serving.prompt.format(question=question, passages=passages)
    llm = serving.models.model("llm")
    return {
        "answer": f"{passages[0]['text']} [{passages[0]['id']}]" if passages else "The documentation does not say.",
        "passages": [p["id"] for p in passages],
        "prompt": {"sha256": hashlib.sha256(prompt.encode()).hexdigest(), "characters": len(prompt)},
        "model": {"provider": llm.provider, "name": llm.name, "parameters": dict(llm.parameters)},
    }
