"""Objects that a suite names as `package.module:object`: imported when somebody runs the suite, and never otherwise.

Importing runs the module. So what a suite names as outputs is imported only by `eval run` and `la.evaluate`, which a
person or a job calls; showing, resolving, promoting or judging by a gate imports nothing that a suite names. As with
pytest and uvicorn, the working directory comes first.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
import typing
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from llmartifacts.errors import InvalidInput, NotFound
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.names import near_names

_MOST = 1000
"""Parts of a chain, or modules of an application, that are looked at."""
_NOTED = "__llmartifacts_source__"
_FORM = "Write package.module:name, such as my_app.chains:answer."


def imported(dotted: str, *, field: str) -> Any:
    """The object that `package.module:object` names.

    Args:
        dotted: The name; the object may lie deeper, `module:Class.method`.
        field: Field of the suite, for messages.

    Raises:
        NotFound: There is no such module, or nothing of that name in it; near names are given.
        InvalidInput: The module cannot be imported, or the text is no such name.
    """
    module_name, colon, path = dotted.partition(":")
    if not colon or not module_name or not path or module_name.startswith("."):
        raise InvalidInput(f"{dotted!r:.200} names no object of a module", field=field, next_step=_FORM)
    found: Any
    try:
        with working_directory_first():
            found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotFound(
            f"no module {error.name!r}",
            what="module",
            name=error.name or module_name,
            field=field,
            next_step="Run this where the application runs: in its environment and from its directory.",
        ) from error
    except Exception as error:  # a module is code, and may raise anything
        raise InvalidInput(f"{module_name} cannot be imported: {type(error).__name__}: {error}", field=field) from error
    for part in path.split("."):
        inner = getattr(found, part, None)
        if inner is None:
            near = (
                near_names(part, [n for n in vars(found) if not n.startswith("_")])
                if hasattr(found, "__dict__")
                else ()
            )
            raise NotFound(f"{module_name} has no {path!r}", what="object", name=path, field=field, near=near)
        found = inner
    return found


@contextmanager
def working_directory_first() -> typing.Iterator[None]:
    """Import from the working directory too, inside the block."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
        importlib.invalidate_caches()  # a module that was written a moment ago
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def source_of(thing: Any) -> str:
    """SHA-256 of the source of the module that an object comes from, as hex; empty if it has none.

    A module is taken whole, for a function is rarely all of what it does. What the module imports is not in it. It is
    the source as it was when it was first asked for: a file that was edited since is not what runs here, until it is
    loaded again.
    """
    return _source(module_of(thing))


def source_behind(dotted: str, thing: Any) -> str:
    """SHA-256 of all the code of an application that an object named `package.module:object` may run, as hex.

    That is the named module, whatever defines the object (a chain that is put together in a module is an object of a
    class of LangChain's, and the module is what makes it this chain), and the modules of the application that these
    import, and those that those import. Of an installed package only the module of the object itself counts; what is
    imported only when a function is called is not in it.

    Args:
        dotted: The name; its module is imported already.
        thing: The object.

    Returns:
        64 hex digits; empty if the source of the named module or of the object's own cannot be read.
    """
    named, own = sys.modules.get(dotted.partition(":")[0]), module_of(thing)
    if named is None or not (_source(named) and (own is None or _source(own) or own.__name__ == "builtins")):
        return ""
    found: dict[str, str] = {}
    waiting = [named] if own is None else [named, own]
    while waiting and len(found) < _MOST:
        module = waiting.pop()
        if module.__name__ not in found:
            found[module.__name__] = _source(module)
            if _is_local(module):
                waiting += _local_modules(module)
    return hashlib.sha256(canonical_bytes(found)).hexdigest()


def _local_modules(module: ModuleType) -> list[ModuleType]:
    """Modules of the application that a module uses: imported whole, or a function, a class or an object of them."""
    used = [v if isinstance(v, ModuleType) else module_of(v) for v in list(vars(module).values())]
    return [one for one in used if one is not None and _is_local(one)]


def _is_local(module: ModuleType) -> bool:
    """Whether it is of an application, and not installed; of this package, the version counts."""
    file = getattr(module, "__file__", None)
    if not file or module.__name__.partition(".")[0] == __name__.partition(".")[0]:
        return False
    places = sysconfig.get_paths()
    return not any(file.startswith(places[name] + os.sep) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _source(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    if module is None or not file:
        return ""
    noted = module.__dict__.get(_NOTED)
    if noted is None or noted[0] is not module.__spec__:  # a reload makes another spec
        try:
            noted = (module.__spec__, hashlib.sha256(Path(file).read_bytes()).hexdigest())
        except OSError:
            return ""
        module.__dict__[_NOTED] = noted
    return str(noted[1])


def module_of(thing: Any) -> ModuleType | None:
    """The module of a function or a class, or of an object's class."""
    named = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    return sys.modules.get(getattr(named, "__module__", "") or "")


def distributions(*things: Any) -> list[str]:
    """Names of the installed packages that objects come from, sorted; those of local files have none.

    Args:
        *things: Functions, classes, objects; names `package.module:object`; Runnables, whose steps count too.
    """
    from importlib.metadata import packages_distributions

    tops: set[str] = set()
    waiting = list(things)
    for _ in range(_MOST):
        if not waiting:
            break
        thing = waiting.pop()
        module = module_of(thing)
        name = thing.partition(":")[0] if isinstance(thing, str) else module.__name__ if module is not None else ""
        tops.add(name.partition(".")[0])
        # Of a chain `prompt | model | parser`, the model; of `model.bind(…)` too.
        inner = [getattr(thing, "bound", None), *(getattr(thing, "steps", None) or ())] if _is_chain(thing) else []
        waiting += [one for one in inner if one is not None]
    tops -= {"", "builtins", "__main__"}
    known = packages_distributions() if tops else {}
    return sorted({name for top in tops for name in known.get(top, ())})


def _is_chain(thing: Any) -> bool:
    return type(thing).__module__.startswith("langchain_core.runnables")
