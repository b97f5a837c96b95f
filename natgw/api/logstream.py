"""A container's log, sent while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

CHUNK_BYTES = 65536
LOOK_AGAIN_S = 0.1


async def pieces(path: Path, over: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes, None]:
    """What is in the file, and then what is added to it, until `over()` says that nothing more will come."""
    with path.open("rb", buffering=0) as file:
        while True:
            last_look = await over()  # asked before the read: what was written by then is still sent
            while piece := file.read(CHUNK_BYTES):
                yield piece
            if last_look:
                return
            await asyncio.sleep(LOOK_AGAIN_S)
