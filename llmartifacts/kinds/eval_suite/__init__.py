"""The kind `eval_suite`: what is measured, on which items, by which scorers, and what must hold.

Example:
    >>> suite = EvalSuite("support", "support-questions", ["recall@5"], thresholds={"recall@5": {"margin": 0.05}})
    >>> suite.dataset, suite.scorers[0]["options"]["k"], suite.thresholds["recall@5"].min_samples
    ('support-questions:latest', 5, 60)
"""

from llmartifacts.kinds.eval_suite.kind import EvalSuiteKind as EvalSuiteKind
from llmartifacts.kinds.eval_suite.value import EvalSuite as EvalSuite
from llmartifacts.records.evidence import Threshold as Threshold
