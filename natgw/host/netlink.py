"""pyroute2, as little of it as natgw needs.

`import pyroute2` loads every protocol it knows (nftables, WireGuard, its database, ...), which takes longer than all the rest
of natgw's start. Only IPRoute is wanted here. So the package is entered into `sys.modules` without running its
`__init__`, and IPRoute's own module is imported from it. Whoever asks the package for more gets more: the first unknown
attribute runs `__init__` after all. If somebody imported pyroute2 before, nothing of this happens.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from natgw.errors import NatgwError


def _enter_package(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise NatgwError(f"the Python package {name} is missing: install natgw with its requirements")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def get(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        try:
            return importlib.import_module(f"{name}.{attribute}")
        except ModuleNotFoundError:
            vars(module).pop("__getattr__", None)
            loader.exec_module(module)
            return getattr(module, attribute)

    vars(module)["__getattr__"] = get
    sys.modules[name] = module


if "pyroute2" not in sys.modules:
    _enter_package("pyroute2")

from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402

__all__ = ["IPRoute", "NetlinkError", "netlink"]


_IFLA_DEVLINK_PORT = 62
# pyroute2 0.9 knows the attributes of a link up to the one before; what follows is from linux/if_link.h.
if len(ifinfmsg.nla_map) == _IFLA_DEVLINK_PORT:
    ifinfmsg.nla_map = (*ifinfmsg.nla_map, ("IFLA_DEVLINK_PORT", "hex"), ("IFLA_GSO_IPV4_MAX_SIZE", "uint32"))


@contextmanager
def netlink() -> Iterator[Any]:
    """A netlink socket in the namespace of the calling thread. Not for a coroutine: it runs an event loop of its own."""
    with IPRoute() as ipr:
        yield ipr
