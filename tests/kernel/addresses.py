"""Who is who in the tests that compare natgw with the kernel. Both gateways have the same addresses, at both layers."""

from __future__ import annotations

GATEWAY, GATEWAY_MAC = "172.17.0.1", "02:42:ac:11:00:01"
EXTERNAL, UPLINK_MAC = "198.51.100.2", "02:aa:00:00:00:01"
ROUTER, OUTSIDE_MAC = "198.51.100.1", "02:bb:00:00:00:01"
HOSTS = {"172.17.0.2": "02:42:ac:11:00:02", "172.17.0.3": "02:42:ac:11:00:03"}
REMOTES = (ROUTER, "203.0.113.9")
"""One on the link, one behind it."""
OUTSIDE_MTU = 1400
"""Smaller than inside, so that some packets have to be cut or refused."""


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
