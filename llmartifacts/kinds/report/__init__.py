"""The kind `report`: what an evaluation found, bound to the digests of all that took part.

The config carries what a gate or a page needs (aggregates, intervals, sample sizes, digests), so that it is judged
without opening a file; the scores of each item are `items.jsonl`. **The times of the run are part of the identity**: a
report is evidence of one execution, and a second run that finds the same numbers is new evidence, as freshness needs.

Example:
    >>> from llmartifacts.records.digest import digest_of
    >>> report = Report(
    ...     suite="support-retrieval",
    ...     targets={"support-kb:v5": digest_of(b"index")},
    ...     dataset=digest_of(b"questions"),
    ...     metrics=[Metric("recall@5", value=0.5, lower=0.1, upper=0.9, n=2)],
    ...     items=[ItemScore("q1", {"recall@5": 1.0}), ItemScore("q2", {"recall@5": 0.0})],
    ... )
    >>> report.metric("recall@5").value
    0.5
"""

from llmartifacts.kinds.report.kind import ReportConfig as ReportConfig
from llmartifacts.kinds.report.kind import ReportKind as ReportKind
from llmartifacts.kinds.report.value import ItemScore as ItemScore
from llmartifacts.kinds.report.value import Metric as Metric
from llmartifacts.kinds.report.value import Report as Report
from llmartifacts.kinds.report.value import current_environment as current_environment
