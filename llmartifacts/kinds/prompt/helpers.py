"""The safe helpers: names that a template may use and plain Jinja2 does not have, or has in another form.

A prompt says which ones its templates need: found in the syntax tree, kept in its config, read as `prompt.helpers`.
`Prompt(helpers=…)` names the ones it may use; a template that needs another is then refused when the prompt is made.
What depends on the moment or on chance takes it from `render(now=…, seed=…)`.

| helper | what | as in |
| --- | --- | --- |
| `raise_exception(text)` | refuses to render | transformers' chat templates |
| `strftime_now(format)` | the time now, or the one that `render(now=…)` gives | transformers' chat templates |
| `tojson` | JSON; `jinja="transformers"` writes it plain, else as Jinja2 does, safe in HTML | both |
| `zip(a, b)` | pairs | promptsource |
| `choice` | one item by chance, from `render(seed=…)` | promptsource |
| `most_frequent` | the items that appear most often | promptsource |
| `random` | as `choice` | Jinja2 |
| `mutation` | `.append()`, `.update()` and the like, which the sandbox refuses otherwise | plain Jinja2 |

Values are private copies, so `mutation` changes nothing outside the template.
"""

from __future__ import annotations

MUTATION = "mutation"
FUNCTION_HELPERS = frozenset({"raise_exception", "strftime_now", "zip"})
FILTER_HELPERS = frozenset({"choice", "most_frequent", "random", "tojson"})
HELPERS = FUNCTION_HELPERS | FILTER_HELPERS | {MUTATION}
