"""What is sent up from a file: the same bytes, as often as they are asked for."""

from __future__ import annotations

import os
from typing import BinaryIO

from llmartifacts.errors import InvalidInput


class Rewindable:
    """A file to send, from where it stands to its end, as often as needed.

    Args:
        file: The file.

    Raises:
        InvalidInput: It cannot be rewound.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            if not file.seekable():
                raise OSError
            self._start = file.tell()
            self._size = file.seek(0, os.SEEK_END) - self._start
        except (OSError, AttributeError, ValueError):
            raise InvalidInput("what is sent must be a file that can be rewound", field="body") from None
        self._file = file
        self._left = 0

    def rewound(self) -> Rewindable:
        """Itself, at its beginning."""
        self._file.seek(self._start)
        self._left = self._size
        return self

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`; all that is left if that is negative."""
        wanted = self._left if size < 0 else min(size, self._left)
        got = self._file.read(wanted)
        if wanted and not got:
            raise InvalidInput("the file became shorter while it was sent", field="body")
        self._left -= len(got)
        return got
