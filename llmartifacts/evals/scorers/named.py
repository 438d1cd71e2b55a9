"""Objects that a suite names: an embedder or a model, as `package.module:name`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from llmartifacts.errors import InvalidInput, InvalidValue, LlmartifactsError


class NamedObject:
    """An object that is imported, and made if need be, at the first use; by one thread.

    Args:
        dotted: `package.module:name` of the object, of its class, or of a function that makes it.
        arguments: Keyword arguments for the class or the function.
        method: What the object must be able to do, such as `invoke`; what cannot is called to make one that can.
        field: The option that names it, for messages.
    """

    def __init__(self, dotted: str, arguments: Mapping[str, Any], *, method: str, field: str) -> None:
        self._dotted, self._arguments, self._method, self._field = dotted, dict(arguments), method, field
        self._lock = threading.Lock()
        self._found: Any = None

    def get(self) -> Any:
        """The object.

        Raises:
            InvalidValue: It cannot be made, or cannot do what it must.
            LlmartifactsError: It cannot be imported.
        """
        with self._lock:
            if self._found is None:
                self._found = self._make()
            return self._found

    def _make(self) -> Any:
        from llmartifacts.evals.importing import imported

        found = imported(self._dotted, field=self._field)
        if isinstance(found, type) or not callable(getattr(found, self._method, None)):
            if not callable(found):
                raise InvalidValue(f"{self._dotted} has no {self._method}()", field=self._field)
            try:
                found = found(**self._arguments)
            except LlmartifactsError as error:
                raise InvalidInput.of(error, field=self._field) from error
            except Exception as error:  # it is code, and may raise anything
                told = f"{self._dotted} cannot be made: {type(error).__name__}: {error}"
                raise InvalidValue(told[:500], field=self._field) from error
        elif self._arguments:
            raise InvalidValue(f"{self._dotted} is made already and takes no arguments", field="arguments")
        if not callable(getattr(found, self._method, None)):
            raise InvalidValue(
                f"{self._dotted} gives a {type(found).__name__} without {self._method}()", field=self._field
            )
        return found
