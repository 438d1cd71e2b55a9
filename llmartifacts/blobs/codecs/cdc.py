"""`cdc`: any bytes, cut where their content says so, about 64 KiB each.

FastCDC (Xia et al., 2016 and 2020) by the library pyfastcdc: bytes that come or go change the chunk they are in, and
all others are found again.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from llmartifacts.blobs.codecs.stream import StreamCodec

MEAN = 64 * 1024


class CdcCodec(StreamCodec):
    """The codec `cdc`."""

    name: ClassVar[str] = "cdc"
    longest: ClassVar[int] = 4 * MEAN

    def suits(self, head: bytes) -> bool:
        """Yes: any bytes."""
        return True

    def cuts(self, data: memoryview) -> list[int]:
        """Where the chunks end."""
        return [chunk.offset + chunk.length for chunk in self._cutter.cut_buf(data)]

    @cached_property
    def _cutter(self) -> Any:
        from pyfastcdc import FastCDC

        return FastCDC(avg_size=MEAN, min_size=MEAN // 4, max_size=4 * MEAN)
