"""Who checks types sees the spec's own type through the integrations."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
USE = """
    from collections.abc import Sized
    from dataclasses import dataclass
    from typing import Annotated, Any, assert_type

    from fastapi import Depends, FastAPI
    from langchain_core.documents import Document
    from langchain_core.prompt_values import PromptValue
    from langchain_core.runnables import RunnableLambda

    import llmartifacts as la
    from llmartifacts.integrations.fastapi import GenerationMiddleware, generation, health, lifespan
    from llmartifacts.integrations.hashing import HashingEmbeddings
    from llmartifacts.integrations.langchain import Following, following, prompt, retriever
    from llmartifacts.integrations.prometheus import ResolverCollector
    from llmartifacts.runtime.pinned import pinned, serving

    @dataclass(frozen=True)
    class Support:
        agent: Annotated[la.Prompt, "agent:prod"]

    resolver = la.Resolver(Support)
    Serving = Annotated[la.Generation[Support], Depends(generation(resolver))]
    app = FastAPI(lifespan=lifespan(resolver))
    app.add_middleware(GenerationMiddleware, resolver=resolver)
    app.include_router(health(resolver))
    ResolverCollector(support=resolver)

    @app.get("/ask")
    async def ask(served: Serving) -> str:
        assert_type(served.value, Support)
        assert_type(await generation(resolver)(...), la.Generation[Support])  # type: ignore[arg-type]
        with pinned(resolver) as one:
            assert_type(one.value, Support)
        assert_type(serving(resolver), la.Generation[Support])
        assert_type(prompt(resolver, "agent"), Following[dict[str, Any], PromptValue])
        assert_type(retriever(resolver, "kb", HashingEmbeddings(64)).invoke("x"), list[Document])
        assert_type(following(resolver, RunnableLambda(len)), Following[Sized, int])
        following(resolver, lambda support: support.agent.to_langchain())
        following(resolver, lambda support: support.agnet)  # wrong
        served.value.agnet  # wrong
        return served.value.agent.template
"""


@pytest.mark.matrix
def test_a_type_checker_knows_what_is_served_and_finds_a_slip(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(textwrap.dedent(USE))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        "use.py",
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    wrong = [number for number, line in enumerate(USE.strip("\n").splitlines(), 2) if line.endswith("# wrong")]
    told = [line for line in done.stdout.splitlines() if ": error: " in line]

    assert [int(line.split(":")[1]) for line in told] == wrong, done.stdout + done.stderr
    assert all('"Support" has no attribute "agnet"' in line for line in told)
