"""What libnetwork sends, as dockerd 20.10 was seen to send it, and what it must not be able to send."""

from __future__ import annotations

import contextlib
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.control.docker import messages
from natgw.control.model import PublishedPort
from natgw.control.portspec import PortBinding
from natgw.errors import NatgwError

NETWORK: dict[str, Any] = {
    "NetworkID": "8be1a0219e3f", "IPv6Data": [],
    "Options": {"com.docker.network.enable_ipv6": False, "com.docker.network.internal": True,
                "com.docker.network.generic": {"com.docker.network.bridge.enable_icc": "false"}},
    "IPv4Data": [{"AddressSpace": "LocalDefault", "Gateway": "172.18.0.1/16", "Pool": "172.18.0.0/16",
                  "AuxAddresses": {"router": "172.18.0.5/16"}}],
}
ENDPOINT = {"NetworkID": "8be1", "EndpointID": "691e", "Options": {},
            "Interface": {"Address": "10.5.0.9/16", "AddressIPv6": "", "MacAddress": ""}}


def port(**fields: Any) -> dict[str, Any]:
    return {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080, **fields}


def port_map(*ports: dict[str, Any]) -> list[PortBinding]:
    return messages.port_map({"Options": {messages.PORT_MAP: list(ports)}})


def test_a_network() -> None:
    found = messages.create_network(NETWORK)
    assert (found.network_id, found.internal, found.ipv6) == ("8be1a0219e3f", True, False)
    assert found.options == {"com.docker.network.bridge.enable_icc": "false"}
    assert found.ipam == messages.IpamData(space="LocalDefault", subnet=IPv4Network("172.18.0.0/16"),
                                           gateway=IPv4Address("172.18.0.1"), aux={"router": IPv4Address("172.18.0.5")})
    assert found.ipam6 is None


def test_a_network_with_ipv6() -> None:
    found = messages.create_network({**NETWORK, "Options": {"com.docker.network.enable_ipv6": True}, "IPv6Data": [
        {"AddressSpace": "LocalDefault", "Gateway": "fd00:5::1/64", "Pool": "fd00:5::/64"}]})
    assert found.ipv6
    assert found.ipam6 is not None
    assert (found.ipam6.subnet, found.ipam6.gateway) == (IPv6Network("fd00:5::/64"), IPv6Address("fd00:5::1"))


@pytest.mark.parametrize("count", [0, 2])
def test_a_network_has_one_ipv4_subnet(count: int) -> None:
    with pytest.raises(NatgwError, match="one IPv4 subnet"):
        messages.create_network({**NETWORK, "IPv4Data": NETWORK["IPv4Data"] * count})


def test_an_endpoint() -> None:
    found = messages.create_endpoint(ENDPOINT)
    assert (found.ip, found.ip6, found.mac) == (IPv4Address("10.5.0.9"), None, None)
    found = messages.create_endpoint({**ENDPOINT, "Interface": {"Address": "10.5.0.9/16", "AddressIPv6": "fd00::9/64",
                                                                "MacAddress": "02:42:0a:05:00:09"}})
    assert (found.ip6, found.mac) == (IPv6Address("fd00::9"), bytes.fromhex("02420a050009"))


def test_ports() -> None:
    assert port_map(port(), port(Proto=17, HostPort=0, HostPortEnd=0), port(HostIP="127.0.0.1", HostPortEnd=0),
                    port(HostIP="::1", HostPort=8000, HostPortEnd=8010)) == [
        PortBinding("tcp", None, range(8080, 8081), 80),
        PortBinding("udp", None, range(0), 80),
        PortBinding("tcp", IPv4Address("127.0.0.1"), range(8080, 8081), 80),
        PortBinding("tcp", IPv6Address("::1"), range(8000, 8011), 80),
    ]
    assert port_map() == messages.port_map({"Options": None}) == messages.port_map({}) == []


@pytest.mark.parametrize(("fields", "says"), [
    ({"Proto": 132}, "SCTP"), ({"Proto": 1}, "protocol 1"), ({"Port": 65536}, "no port"), ({"HostPort": -1}, "no port"),
    ({"HostIP": "here"}, "HostIP"), ({"Port": "80"}, "Port"), ({"Proto": True}, "Proto"),
])
def test_ports_that_cannot_be(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(NatgwError, match=says):
        port_map(port(**fields))


def test_what_is_published_goes_back_in_the_same_form() -> None:
    told = messages.published([PublishedPort("udp", "0.0.0.0", 53, 5353)])
    assert messages.port_map({"Options": told}) == [PortBinding("udp", IPv4Address(0), range(53, 54), 5353)]


def test_addresses() -> None:
    assert messages.request_pool({"AddressSpace": "natgw", "Pool": "", "SubPool": "", "Options": {}, "V6": False}) == (
        messages.RequestPool(subnet=None, ip_range=None))
    assert messages.request_pool({"Pool": "10.5.0.0/16", "SubPool": "10.5.1.0/24"}) == messages.RequestPool(
        subnet=IPv4Network("10.5.0.0/16"), ip_range=IPv4Network("10.5.1.0/24"))
    assert messages.request_pool({"Pool": "fd00::/64", "SubPool": "fd00::/80", "V6": True}) == messages.RequestPool6(
        subnet=IPv6Network("fd00::/64"), ip_range=IPv6Network("fd00::/80"))
    wanted = messages.request_address({"PoolID": "p", "Address": "", "Options": {
        "RequestAddressType": "com.docker.network.gateway"}})
    assert (wanted.ip, wanted.for_gateway) == (None, True)
    wanted = messages.request_address({"PoolID": "p", "Address": "10.5.0.9", "Options": None})
    assert (wanted.ip, wanted.for_gateway) == (IPv4Address("10.5.0.9"), False)
    assert messages.address_of({"Address": "fd00::9/64"}) == IPv6Address("fd00::9")


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b"\xff", b"null"])
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(NatgwError):
        messages.decode(body)


def test_an_empty_body_is_a_request() -> None:
    assert messages.decode(b"") == {}


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["NetworkID", "EndpointID", "Options", "IPv4Data", "IPv6Data", "Interface", "Address", "Pool", "Gateway",
         "AuxAddresses", "PoolID", "V6", messages.PORT_MAP, messages.GENERIC, "Proto", "Port", "HostPort"]),
        inner, max_size=6), max_leaves=20)


@given(st.dictionaries(st.sampled_from(list({**NETWORK, **ENDPOINT, "PoolID": 0, "Pool": 0, "V6": 0})), json_values))
def test_nonsense_is_refused_and_nothing_else(request_: dict[str, Any]) -> None:
    request = messages.decode(json.dumps(request_).encode())
    for parse in (messages.create_network, messages.create_endpoint, messages.port_map, messages.request_pool,
                  messages.request_address):
        with contextlib.suppress(NatgwError):
            parse(request)
