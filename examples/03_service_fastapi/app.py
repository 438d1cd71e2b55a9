"""The service with FastAPI: `uvicorn app:app`, from this folder.

It resolves the `prod` alias of every component when it starts, as one verified set, and does not start without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel, Field
from rag import PythonHelp, answer

import llmartifacts as la

resolver = la.Resolver(
    PythonHelp
)  # opens nothing yet; the registry is $LLMARTIFACTS_REGISTRY or found from here upward


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Resolve before the first request, let go after the last."""
    with resolver:
        yield


app = FastAPI(title="Help with Python's standard library", lifespan=lifespan)


class Question(BaseModel):
    """What is asked."""

    question: str = Field(min_length=1, max_length=2000)


@app.post("/ask")
def ask(question: Question, response: Response) -> dict[str, Any]:
    """Answer one question; the header `Stamp` names the exact versions that did it."""
    generation = resolver.current  # once per request: the whole answer comes from one set
    response.headers["Stamp"] = generation.stamp()
    return answer(generation.value, question.question)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Which versions are served."""
    return {"stamp": resolver.current.stamp()}
