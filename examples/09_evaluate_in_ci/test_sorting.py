"""The same suite at a desk, with pytest. Logs the prompt as it stands here; keeps no report and moves no alias."""

from __future__ import annotations

from typing import Any

import llmartifacts as la


def test_the_prompt_as_it_stands_here_is_not_worse_than_prod(evaluate: Any, llmartifacts_registry: la.Registry) -> None:
    llmartifacts_registry.log("sorting-prompt", la.Prompt.from_file("prompts/sorting.j2"))
    evaluate("eval_suites/sorting.suite.yaml", target="sorting-prompt:latest").assert_passes()
