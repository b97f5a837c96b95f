"""Following the uplink: whatever the host changes on the interface, natgw's picture of it changes too.

The kernel's notifications only say that something happened; then everything is read anew and compared. So a burst of them
costs one look, and nothing depends on interpreting each message rightly.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from natgw.errors import NotFound
from natgw.host.interfaces import UplinkState, read_uplink

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)."""
_SETTLE_S = 0.05
"""Changes come in bursts: setting a link down flushes its routes one by one."""

OnChange = Callable[[UplinkState | None], None]


class UplinkWatcher:
    """Calls `on_change` with the new state of an interface, or None when it is gone; only if the state differs."""

    def __init__(self, ifname: str, on_change: OnChange, initial: UplinkState | None = None, *, ipv6: bool = False) -> None:
        self._ipv6 = ipv6
        self._ifname = ifname
        self._on_change = on_change
        self._last = initial
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen from now on, on the running loop."""
        handle = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        handle.bind((0, _GROUPS))
        handle.setblocking(False)
        self._socket = handle
        asyncio.get_running_loop().add_reader(handle.fileno(), self._readable)
        self._soon()  # something may have changed between the caller's own look and now

    def follow_ipv6(self) -> None:
        """Look at what there is of IPv6 too, from now on."""
        self._ipv6 = True
        self._soon()

    async def stop(self) -> None:
        """Stop listening. Twice is once."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # the kernel dropped notifications: all the more reason to look
        self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._compare())
        else:
            self._soon()

    async def _compare(self) -> None:
        try:
            state: UplinkState | None = await asyncio.to_thread(read_uplink, self._ifname, ipv6=self._ipv6)
        except NotFound:
            state = None
        if state != self._last and self._socket is not None:
            self._last = state
            self._on_change(state)
