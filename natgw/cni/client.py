"""The daemon's control socket, spoken to by hand: one HTTP request, one answer, the connection closed.

`natgw.api.client` does the same for people at a terminal; what http.client imports alone costs more time than the plugin.
"""

from __future__ import annotations

import json
import socket

from natgw.cni import errors
from natgw.cni.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_TIMEOUT_S = 60.0
_CHUNK_BYTES = 65536
_CODES = {404: errors.NOT_FOUND, 409: errors.TAKEN, 422: errors.INVALID_CONFIG, 500: errors.INTERNAL}


class NoDaemon(CniError):
    """Nothing listens on the socket, or does not answer: engines may try again later."""

    def __init__(self, message: str) -> None:
        super().__init__(errors.TRY_AGAIN, message)


def ask(path: str, method: str, target: str, body: object = None) -> Any:
    """What the JSON of the answer says, None if there is none. Raises CniError with the daemon's message."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: natgw\r\nConnection: close\r\nContent-Length: {len(content)}\r\n"
    if content:
        head += "Content-Type: application/json\r\n"
    status, answer = _parse(path, _exchange(path, head.encode() + b"\r\n" + content))
    try:
        value = json.loads(answer) if answer else None
    except ValueError:
        raise CniError(errors.INTERNAL, f"natgw on {path} did not answer in JSON") from None
    if 200 <= status < 300:
        return value
    message = value.get("message") if isinstance(value, dict) else None
    raise CniError(_CODES.get(status, errors.REFUSED), str(message or f"natgw answered with HTTP status {status}"))


def _exchange(path: str, request: bytes) -> bytes:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect(path)
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(_CHUNK_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoDaemon(f"natgw is not running on {path}: start it with `natgw up`") from None
    except TimeoutError:
        raise NoDaemon(f"natgw on {path} does not answer") from None
    except ConnectionError:
        raise NoDaemon(f"natgw on {path} closed the connection without an answer") from None
    except OSError as error:
        raise CniError(errors.IO_FAILURE, f"cannot reach natgw on {path}: {error.strerror or error}") from None
    finally:
        connection.close()


def _parse(path: str, answer: bytes) -> tuple[int, bytes]:
    """Status and body. The body ends with the connection; a length that was announced and not met is a daemon that died."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not (words[0].startswith("HTTP/1.") and len(words) > 1 and words[1].isdecimal()):
        raise NoDaemon(f"natgw on {path} closed the connection without an answer")
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and len(body) != int(value):
            raise NoDaemon(f"natgw on {path} closed the connection in the middle of its answer")
    return int(words[1]), body
