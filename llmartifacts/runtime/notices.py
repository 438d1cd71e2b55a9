"""Why the newest set is not what is served: errors, told in one code and one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from llmartifacts.errors import NotAllowed, NotFound, ResolutionError, Unreachable
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.revisions import WentBack

Code = Literal["registry-unreachable", "registry-refused", "newer-set-refused", "revision-went-back", "alias-missing"]

_OF_A_SET = frozenset({"registry-unreachable", "registry-refused", "newer-set-refused", "revision-went-back"}) | {
    "registry-replaced",
    "yanked",
}
_MAX_REASON = 2000


def code_of(error: BaseException) -> Code:
    """What sort of trouble an error is."""
    if isinstance(error, WentBack):
        return "revision-went-back"
    if isinstance(error, ResolutionError):
        inner = list(error.failures.values())
        if inner and all(_of_the_registry(one) for one in inner):
            return "registry-refused"
        if inner and all(isinstance(one, Unreachable) for one in inner):
            return "registry-unreachable"
        return "alias-missing" if any(_is_missing(one) for one in inner) else "newer-set-refused"
    if _of_the_registry(error):  # it is there and well: somebody must look at the token or its rights
        return "registry-refused"
    return "alias-missing" if _is_missing(error) else "registry-unreachable"


def reason_of(error: BaseException) -> str:
    """The same in a sentence."""
    code = code_of(error)
    each = _each(error) if isinstance(error, ResolutionError) else ""
    said = each or str(error) or type(error).__name__
    told = {
        "registry-unreachable": f"the registry cannot be had: {said}",
        "registry-refused": f"the registry refuses: {said}",
        "newer-set-refused": f"the registry's set cannot be served: {said}",
        "revision-went-back": said,
        "alias-missing": f"the registry does not have it any more: {said}",
    }[code]
    return _short(told)


def in_a_line(error: ResolutionError) -> str:
    """Why a start failed, and of which component, in one line for a log."""
    where = f" ({error.origin})" if error.origin else ""
    each = _each(error)
    return _short(f"{error.message}{where}: {each}" if each else f"{error.message}{where}")


def stood_in(error: BaseException) -> Notice:
    """Why something else than the registry's set is served."""
    return Notice(code_of(error), reason_of(error))


def lasting(warnings: Iterable[Notice]) -> tuple[Notice, ...]:
    """Those that are about the components themselves: not about how the set was had, nor about withdrawals."""
    return tuple(w for w in warnings if w.code not in _OF_A_SET)


def _each(error: ResolutionError) -> str:
    return "; ".join(f"{name}: {inner}" for name, inner in error.failures.items())


def _short(told: str) -> str:
    line = " ".join(told.split())
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"


def _of_the_registry(error: BaseException) -> bool:
    # The same class tells of a full disk or a read-only folder here, which has the system's error below it.
    return isinstance(error, NotAllowed) and not isinstance(error.__cause__, OSError)


def _is_missing(error: BaseException) -> bool:
    return isinstance(error, NotFound) and error.what != "registry"
