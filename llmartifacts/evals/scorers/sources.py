"""The source of the code that a suite names, found without running it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from llmartifacts.errors import InvalidValue
from llmartifacts.limits import check_function
from llmartifacts.records.digest import digest_of


def source_digest(dotted: str, *, field: str) -> str:
    """Digest of the source of the module that `package.module:name` lies in, taken whole.

    The module is looked for in the working directory too; neither it nor a package around it is imported. What the
    module imports is not in it.

    Args:
        dotted: The name.
        field: Field of the scorer's options, for messages.

    Returns:
        `sha256:` and 64 hex digits; empty for a module of the interpreter itself, which has no file.

    Raises:
        InvalidValue: There is no such module.
    """
    module = check_function(dotted, field=field).partition(":")[0]
    found: ModuleSpec | None = None
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    name = ""
    for part in module.split("."):
        if places is None:
            break
        name = f"{name}.{part}" if name else part
        found = PathFinder.find_spec(name, places)
        if found is None:
            break
        places = list(found.submodule_search_locations) if found.submodule_search_locations is not None else None
    if name != module or found is None:
        if module in sys.builtin_module_names:
            return ""
        raise InvalidValue(
            f"there is no module {name if found is None else module!r}",
            field=field,
            next_step="Read the suite where the application runs: in its environment and from its directory.",
        )
    if not found.origin or not found.has_location:
        return ""
    try:
        return digest_of(Path(found.origin).read_bytes())
    except OSError as error:
        raise InvalidValue(f"{found.origin} cannot be read: {error.strerror}", field=field) from None
