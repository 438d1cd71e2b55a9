"""`python -m benchmarks.server_balance PORT TARGET…`: what a balancer does, and no more.

Each connection goes to one server in turn, or to the next that accepts it. A server that ends takes its connections
along.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import suppress


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.CancelledError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.close()


async def balance(port: int, targets: list[int]) -> None:
    """Listen until the process is ended."""
    turn = itertools.cycle(range(len(targets)))

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turn)
        for step in range(len(targets)):
            try:
                there = await asyncio.open_connection("127.0.0.1", targets[(first + step) % len(targets)])
            except OSError:
                continue
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
            return
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(balance(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
