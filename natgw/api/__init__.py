"""The control API: HTTP and JSON over a unix socket that only root can reach, its server and its client.

`client` is what commands import and needs only the standard library; `serve` puts the daemon, the server and the event
loop together, and is imported by `natgw up` alone. docs/cli.md describes the requests.
"""

from __future__ import annotations

import os
from pathlib import Path

from natgw.control.options import DEFAULT_SOCKET

SOCKET_VARIABLE = "NATGW_SOCKET"


def socket_path() -> str:
    """The socket that NATGW_SOCKET names, or the default one."""
    return os.environ.get(SOCKET_VARIABLE) or str(DEFAULT_SOCKET)


def state_directory(socket: str | Path) -> Path:
    """Where the daemon of this socket keeps its lock, its log and the files it needs: `natgw.sock` -> `natgw.d`."""
    path = Path(socket)
    return path.with_suffix(".d") if path.suffix == ".sock" else path.with_name(path.name + ".d")
