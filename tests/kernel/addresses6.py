"""The same laboratory with IPv6: what addresses.py has, and the MAC addresses from there."""

from __future__ import annotations

from tests.kernel.addresses import GATEWAY_MAC, HOSTS, OUTSIDE_MAC, UPLINK_MAC

__all__ = ["EXTERNAL6", "GATEWAY6", "GATEWAY_MAC", "HOSTS6", "OUTSIDE_MAC", "PREFIX6", "REMOTES6", "ROUTER6", "UPLINK_MAC"]

PREFIX6, GATEWAY6 = "fd00:1:2:3::/64", "fd00:1:2:3::1"
EXTERNAL6, ROUTER6 = "2001:db8:51::2", "2001:db8:51::1"
HOSTS6 = dict(zip(("fd00:1:2:3::2", "fd00:1:2:3::3"), HOSTS.values(), strict=True))
REMOTES6 = (ROUTER6, "2001:db8:113::9")
