"""Run one line of Python on a Jupyter server and print what it prints: REST to start a kernel, a websocket to use it.

    python -m tools.demolib.kernel http://198.51.100.2:1111 TOKEN 'print(6 * 7)'

The messages are those of Jupyter's messaging protocol 5.3, as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

import aiohttp


async def execute(server: str, token: str, code: str) -> str:
    """The kernel's standard output; RuntimeError with the kernel's own words if the code failed."""
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"Authorization": f"token {token}"}
    async with aiohttp.ClientSession(server, headers=headers, timeout=timeout, raise_for_status=True) as http:
        async with http.post("/api/kernels", json={"name": "python3"}) as response:
            kernel = (await response.json())["id"]
        async with http.ws_connect(f"/api/kernels/{kernel}/channels") as websocket:
            request = execute_request(code)
            await websocket.send_json(request)
            output = await read_output(websocket, request["header"]["msg_id"])
        async with http.delete(f"/api/kernels/{kernel}"):
            return output


def execute_request(code: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": uuid.uuid4().hex,
        "username": "outside",
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code}
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}


async def read_output(websocket: aiohttp.ClientWebSocketResponse, request_id: str) -> str:
    output = ""
    while True:
        message = await websocket.receive_json()
        if message["parent_header"].get("msg_id") != request_id:
            continue  # of the kernel's own start
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                output += content["text"]
            case "error":
                raise RuntimeError(f"{content['ename']}: {content['evalue']}")
            case "status" if content["execution_state"] == "idle":
                return output


if __name__ == "__main__":
    print(asyncio.run(execute(*sys.argv[1:4])), end="")
