"""One question to Docker's own API, by a unix socket: GET and JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import h11

READ_BYTES = 65536


async def get(socket: Path, path: str) -> Any:
    """What the JSON of the answer says; None for an answer that is not 200.

    Raises OSError if nobody answers, ValueError for what is no answer.
    """
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        http = h11.Connection(h11.CLIENT)
        asked = h11.Request(method="GET", target=path, headers=[("Host", "docker"), ("Connection", "close")])
        writer.write((http.send(asked) or b"") + (http.send(h11.EndOfMessage()) or b""))
        status, body = 0, bytearray()
        while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return json.loads(body) if status == 200 else None
    except h11.RemoteProtocolError as error:
        raise ValueError(str(error)) from None
    finally:
        writer.close()
