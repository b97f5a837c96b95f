"""natgw as the gateway for IPv6, set to behave as Linux does, behind the same two sides as the kernel's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, PortKind, Route, UplinkConfig, Verdict
from natgw.datapath.behaviour import PRESETS
from tests.kernel.addresses import OUTSIDE_MTU, mac_bytes
from tests.kernel.addresses6 import EXTERNAL6, GATEWAY6, GATEWAY_MAC, HOSTS6, OUTSIDE_MAC, PREFIX6, ROUTER6, UPLINK_MAC
from tests.kernel.natgw_gateway import NatgwGateway
from tests.unit.lab6 import advertisement


class NatgwGateway6(NatgwGateway):
    """A new datapath for each sequence of packets."""

    macs = HOSTS6

    def __init__(self) -> None:
        self.now = 100.0
        self.verdict = Verdict.ABSORBED
        self._sent = []
        self.datapath = dp = Datapath(DatapathConfig(
            port_range=(1024, 65535), exclusive=True, seed=7, coalesce=False, nat=PRESETS["linux"]))
        bridge = dp.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address("172.17.0.1"),
            gateway_mac=mac_bytes(GATEWAY_MAC), subnet6=IPv6Network(PREFIX6), gateway6=IPv6Address(GATEWAY6)))
        self._ports = {ip: dp.add_port(bridge, ip, PortKind.ENDPOINT, transmit=self._collector("inside"), coalesces=False)
                       for ip in HOSTS6}
        for ip, mac in HOSTS6.items():
            dp.add_neighbour(bridge, IPv6Address(ip), mac_bytes(mac), self._ports[ip], self.now)
        self._outside = dp.set_uplink("outside", self._collector("outside"), UplinkConfig(
            mac=mac_bytes(UPLINK_MAC), mtu=OUTSIDE_MTU,
            addresses=(IPv4Interface("198.51.100.2/24"), IPv6Interface(f"{EXTERNAL6}/64")),
            routes=(Route(IPv6Network("2001:db8:51::/64")), Route(IPv6Network("::/0"), IPv6Address(ROUTER6)))),
            coalesces=False)
        # The router says where it is, and is known from then on.
        assert dp.uplink is not None
        dp.uplink.neighbours.resolve(IPv6Address(ROUTER6).packed, self.now)
        self._feed(self._outside.receive, bytes(advertisement(ROUTER6, OUTSIDE_MAC, to=EXTERNAL6, to_mac=UPLINK_MAC)))
        self._sent.clear()
