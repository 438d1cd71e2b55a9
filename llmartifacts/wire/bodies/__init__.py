"""Bodies of requests and answers: one pydantic model for each record, with `of(record)` and `record()`.

Strict and closed: an unknown field, a value of another type or NaN is refused with the field named. Requests are
bounded; answers say what the registry holds, and are bounded as a whole by whoever reads them.
"""
