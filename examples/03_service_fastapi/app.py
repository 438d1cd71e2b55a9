"""The service with FastAPI: `uvicorn app:app`, from this folder.

It starts from the `prod` alias of every component, as one verified set, and does not start without it. While it runs it
looks every $WATCH_SECONDS (30 by default) whether `prod` has moved, and swaps the new set in whole; requests that are
being answered keep theirs. `swap.py` shows that.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field
from rag import PythonHelp, answer

import llmartifacts as la
from llmartifacts.integrations.fastapi import GenerationMiddleware, generation, health, lifespan
from llmartifacts.integrations.prometheus import ResolverCollector

# Opens nothing yet. The registry is $LLMARTIFACTS_REGISTRY, or found from here upward.
resolver = la.Resolver(PythonHelp)
Serving = Annotated[la.Generation[PythonHelp], Depends(generation(resolver))]

app = FastAPI(
    title="Help with Python's standard library",
    lifespan=lifespan(resolver, interval=float(os.environ.get("WATCH_SECONDS", "30"))),
)
app.add_middleware(GenerationMiddleware, resolver=resolver)  # the header X-LLM-Artifacts names the exact versions
app.include_router(health(resolver))  # /healthz and /readyz

figures = CollectorRegistry()
figures.register(ResolverCollector(help=resolver))


class Question(BaseModel):
    """What is asked."""

    question: str = Field(min_length=1, max_length=2000)


@app.post("/ask")
def ask(question: Question, serving: Serving) -> dict[str, Any]:
    """Answer one question; all of the answer comes from one generation."""
    return answer(serving.value, question.question)


@app.get("/metrics")
def metrics() -> Response:
    """What Prometheus reads."""
    return Response(generate_latest(figures), media_type=CONTENT_TYPE_LATEST)
