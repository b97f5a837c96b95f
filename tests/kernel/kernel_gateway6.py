"""Linux as the gateway for IPv6: as kernel_gateway.py, with ip6tables."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import ClassVar

from tests.kernel.addresses import OUTSIDE_MTU, mac_bytes
from tests.kernel.addresses6 import EXTERNAL6, GATEWAY6, GATEWAY_MAC, HOSTS6, OUTSIDE_MAC, PREFIX6, ROUTER6, UPLINK_MAC
from tests.kernel.kernel_gateway import MARKER_MAC, KernelGateway
from tests.kernel.packets6 import ip6_header

MARKER_INSIDE6, MARKER_OUTSIDE6 = "fd00:1:2:3::fffe", "2001:db8:51::fffe"

_RULES = f"""\
*raw
-A PREROUTING -s {MARKER_INSIDE6} -j CT --notrack
-A PREROUTING -s {MARKER_OUTSIDE6} -j CT --notrack
COMMIT
*nat
-A POSTROUTING -s {PREFIX6} -o outside -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
-A INPUT -p icmpv6 --icmpv6-type echo-request -j ACCEPT
-A INPUT -j DROP
-A FORWARD -s {MARKER_OUTSIDE6} -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i inside -j ACCEPT
-A FORWARD -i outside -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""


class KernelGateway6(KernelGateway):
    """The namespace, whose interfaces have no link-local addresses: nothing is said but what packets cause."""

    rules = ("ip6tables-restore", _RULES)
    family = socket.AF_INET6
    sysctls: ClassVar[Mapping[str, str]] = {
        "net/ipv6/conf/all/forwarding": "1",
        **{f"net/ipv6/conf/{name}/{key}": value for name in ("default", "inside", "outside")
           for key, value in (("accept_dad", "0"), ("accept_ra", "0"), ("addr_gen_mode", "1"), ("router_solicitations", "0"))},
        "net/ipv6/icmp/ratelimit": "0",
        "net/ipv6/auto_flowlabels": "0",
        "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
        "net/netfilter/nf_conntrack_checksum": "0",
    }

    def commands(self) -> list[str]:
        commands = []
        for name, mac, address, mtu in (("inside", GATEWAY_MAC, f"{GATEWAY6}/64", 1500),
                                        ("outside", UPLINK_MAC, f"{EXTERNAL6}/64", OUTSIDE_MTU)):
            commands += [f"link set {name} address {mac} mtu {mtu} up", f"addr add {address} dev {name} nodad"]
        commands += ["link set lo up", f"route add default via {ROUTER6}"]
        for name, neighbours in (("inside", {**HOSTS6, MARKER_INSIDE6: MARKER_MAC}),
                                 ("outside", {ROUTER6: OUTSIDE_MAC, MARKER_OUTSIDE6: MARKER_MAC})):
            commands += [f"neigh replace {ip} lladdr {mac} dev {name} nud permanent" for ip, mac in neighbours.items()]
        return commands

    def markers(self, count: int) -> dict[str, bytes]:
        made = {}
        for side, mac, src, dst in (("inside", GATEWAY_MAC, MARKER_INSIDE6, MARKER_OUTSIDE6),
                                    ("outside", UPLINK_MAC, MARKER_OUTSIDE6, MARKER_INSIDE6)):
            body = struct.pack("!HHHH", 9, 9, 16, 0xFFFF) + count.to_bytes(8, "big")
            made[side] = mac_bytes(mac) + mac_bytes(MARKER_MAC) + b"\x86\xdd" + ip6_header(src, dst, 17, len(body)) + body
        return made

    def is_marker(self, frame: bytes) -> bool:
        return frame[22:38] in (socket.inet_pton(socket.AF_INET6, each) for each in (MARKER_INSIDE6, MARKER_OUTSIDE6))

    def send(self, side: str, frames: list[bytes]) -> list[tuple[str, bytes]]:
        # A host that has joined groups says so from time to time (RFC 3810), whatever comes.
        return [(name, frame) for name, frame in super().send(side, frames) if frame[:2] != b"\x33\x33"]
