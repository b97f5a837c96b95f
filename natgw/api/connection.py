"""The client's connection, on its own: `natgw up`, which asks nobody, need not wait for http.client to be imported."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator

from natgw.api.client import NotRunning
from natgw.errors import NatgwError


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("natgw", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.close()
            raise


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the daemon, said in one line."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NotRunning(path) from None
    except PermissionError:
        raise NatgwError(f"permission denied on {path}: natgw's commands need root, try sudo") from None
    except TimeoutError:
        raise NatgwError(f"natgw on {path} does not answer") from None
    except (http.client.HTTPException, ConnectionError):
        raise NatgwError(f"natgw on {path} closed the connection without an answer") from None
    except OSError as error:
        raise NatgwError(f"cannot reach natgw on {path}: {error.strerror or error}") from None
