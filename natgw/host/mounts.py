"""A file of one's own in the place of another, for one process and its children: by a mount namespace, as `ip netns exec` does.

The mounts of the host are shared into it and stay visible as they change; what is mounted here is never seen outside
(mount_namespaces(7), MS_SLAVE). It lasts as long as a process is in it, and leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os

from natgw.errors import NatgwError

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
RESOLV_CONF = "/etc/resolv.conf"

_libc = ctypes.CDLL(None, use_errno=True)


def use_resolv_conf(path: str | None) -> None:
    """Have the file at `path` as /etc/resolv.conf, in this thread and what it starts; None: that of the host.

    To be called in a thread that ends soon (`netns.run_inside`): its view of the file system is its own from now on. A host
    without the file keeps being without. Raises NatgwError if it cannot be done.
    """
    if path is not None and os.path.exists(path) and os.path.exists(RESOLV_CONF):
        _call("unshare", _libc.unshare(CLONE_NEWNS))
        _call("mount", _libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None))
        _call("mount", _libc.mount(os.fsencode(path), RESOLV_CONF.encode(), None, MS_BIND, None))


def _call(name: str, result: int) -> None:
    if result:
        raise NatgwError(f"cannot give it a {RESOLV_CONF} of its own: {name}: {os.strerror(ctypes.get_errno())}")
