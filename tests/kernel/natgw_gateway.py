"""natgw as the gateway: its datapath in memory, set to behave as Linux does, behind the same two sides as the kernel's."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, PortKind, Route, UplinkConfig, Verdict
from natgw.datapath.behaviour import PRESETS
from natgw.wire import arp
from natgw.wire.ethernet import ETH
from tests.kernel.addresses import (
    EXTERNAL,
    GATEWAY,
    GATEWAY_MAC,
    HOSTS,
    OUTSIDE_MAC,
    OUTSIDE_MTU,
    ROUTER,
    UPLINK_MAC,
    mac_bytes,
)

STEP_S = 0.1
"""How much the clock goes on from packet to packet: enough that no ICMP error is one too many (ten a second for a host)."""


class NatgwGateway:
    """A new datapath for each sequence of packets."""

    macs = HOSTS

    def __init__(self) -> None:
        self.now = 100.0
        self.verdict = Verdict.ABSORBED
        self._sent: list[tuple[str, bytes]] = []
        self.datapath = dp = Datapath(DatapathConfig(
            port_range=(1024, 65535), exclusive=True, seed=7, coalesce=False, nat=PRESETS["linux"]))
        bridge = dp.add_network(NetworkConfig(name="bridge", subnet=IPv4Network("172.17.0.0/16"),
                                              gateway=IPv4Address(GATEWAY), gateway_mac=mac_bytes(GATEWAY_MAC)))
        self._ports = {ip: dp.add_port(bridge, ip, PortKind.ENDPOINT, transmit=self._collector("inside"), coalesces=False)
                       for ip in HOSTS}
        for ip, mac in HOSTS.items():
            dp.add_neighbour(bridge, IPv4Address(ip), mac_bytes(mac), self._ports[ip], self.now)
        self._outside = dp.set_uplink("outside", self._collector("outside"), UplinkConfig(
            mac=mac_bytes(UPLINK_MAC), addresses=(IPv4Interface(f"{EXTERNAL}/24"),), mtu=OUTSIDE_MTU,
            routes=(Route(IPv4Network("198.51.100.0/24")), Route(IPv4Network("0.0.0.0/0"), IPv4Address(ROUTER)))),
            coalesces=False)
        # The router asks for us, as routers do, and is known from then on.
        self._feed(self._outside.receive, arp.build_request(mac_bytes(OUTSIDE_MAC), IPv4Address(ROUTER).packed,
                                                            IPv4Address(EXTERNAL).packed, mac_bytes(UPLINK_MAC))[ETH:])
        self._sent.clear()

    def _collector(self, side: str) -> Callable[[memoryview], None]:
        return lambda frame: self._sent.append((side, bytes(frame[ETH:])))

    def _feed(self, receive: Callable[[bytearray, int, float], None], frame: bytes) -> None:
        before = list(self.datapath.verdicts)
        buf = bytearray(bytes(ETH) + frame + b"\xa5" * 256)
        receive(buf, ETH + len(frame), self.now)
        self.datapath.flush()
        (self.verdict,) = (each for each in Verdict if self.datapath.verdicts[each] > before[each])

    def send(self, side: str, frames: list[bytes]) -> list[tuple[str, bytes]]:
        """Let frames come in at a side; gives all that leaves because of them, as (side, frame), inside first."""
        self.now += STEP_S
        for frame in frames:
            by_mac = next((self._ports[ip] for ip, mac in self.macs.items() if frame[6:12] == mac_bytes(mac)), None)
            port = self._outside if side == "outside" else by_mac
            assert port is not None
            self._feed(port.receive, frame)
        sent, self._sent = sorted(self._sent, key=lambda each: each[0]), []
        return sent
