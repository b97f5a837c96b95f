"""A published SCTP port on the host itself: taken, so that nobody else gets it, but not served.

Few kernels have SCTP at all, so a relay would serve nobody; what comes from outside is the datapath's. Where the kernel has it,
the port is bound.
"""

from __future__ import annotations

import errno
import socket

from natgw.errors import Conflict
from natgw.host.relay import Relay

EPHEMERAL = range(49153, 65536)
"""Docker's range for host ports that nobody named."""


class SctpPort(Relay):
    """Stands where a relay stands; what asks for `localhost` is not answered."""

    def bind(self) -> int:
        """Take the port; gives its number. Raises Conflict in Docker's words."""
        try:
            handle = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        except OSError:
            return self.host_port  # no SCTP in this kernel, and so nobody who could have the port
        try:
            handle.bind((str(self.host_ip), self.host_port))
        except OSError as error:
            handle.close()
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{self._name()}: address already in use") from None
            return self.host_port
        self._socket = handle
        return self.host_port

    async def start(self) -> None:
        """Nothing is to be served."""
