"""Pure parts of networks with IPv6: requests in Docker's grammar, the record, ways out, the store."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from natgw.api import schema
from natgw.cli.dockerview import docker_view
from natgw.control import store as store_module
from natgw.control.inspect import network_record
from natgw.control.model import Container, Endpoint, Ipam6Config, IpamConfig, Network
from natgw.control.netrequest import parse_request
from natgw.control.store import UNIQUE_LOCAL_PREFIX, Store
from natgw.errors import NatgwError

pytestmark = pytest.mark.requirement("V2")

NET6, A6 = IPv6Network, IPv6Address


def network(name: str = "lab", number: int = 5, *, ipv6: bool = True, internal: bool = False) -> Network:
    return Network(
        id=f"{number}" * 64, name=name, created="2023-11-14T22:13:20.123456789Z", internal=internal, ipv6=ipv6,
        ipam=IpamConfig(subnet=IPv4Network(f"10.{number}.0.0/16"), gateway=IPv4Address(f"10.{number}.0.1")),
        ipam6=Ipam6Config(subnet=NET6(f"fd00:{number}::/64"), gateway=A6(f"fd00:{number}::fe"),
                          ip_range=NET6(f"fd00:{number}::1:0/112"), aux={"router": A6(f"fd00:{number}::ff")}) if ipv6 else None)


def endpoint(on: Network) -> Endpoint:
    number = on.id[0]
    return Endpoint(id=number * 64, network=on, name="web", ip=IPv4Address(f"10.{number}.0.2"), mac=bytes(6), mtu=1500,
                    ip6=A6(f"fd00:{number}::2") if on.ipv6 else None, container_id="2" * 64)


# ---- requests ------------------------------------------------------------------------------------------------------------


def test_what_belongs_to_which_subnet() -> None:
    asked = parse_request({
        "name": "x", "ipv6": True, "subnet": ["fd00:5::/64", "10.5.0.0/16"], "ip_range": ["10.5.1.0/24", "fd00:5::1:0/112"],
        "gateway": ["fd00:5::fe", "10.5.0.254"], "aux": {"a": "10.5.0.9", "b": "fd00:5::9"}})
    assert (asked.subnet, asked.ip_range, asked.gateway, asked.aux) == (
        IPv4Network("10.5.0.0/16"), IPv4Network("10.5.1.0/24"), IPv4Address("10.5.0.254"), {"a": IPv4Address("10.5.0.9")})
    assert (asked.ipv6, asked.subnet6, asked.ip_range6, asked.gateway6, asked.aux6) == (
        True, NET6("fd00:5::/64"), NET6("fd00:5::1:0/112"), A6("fd00:5::fe"), {"b": A6("fd00:5::9")})


def test_a_prefix_may_be_left_to_natgw() -> None:
    asked = parse_request({"name": "x", "ipv6": True, "subnet": "10.5.0.0/16"})
    assert (asked.ipv6, asked.subnet6, asked.gateway6) == (True, None, None)


@pytest.mark.parametrize(("body", "message"), [
    ({"subnet": ["10.5.0.0/16", "10.6.0.0/16"]}, "bridge driver doesn't support multiple subnets: give --subnet once for each "
                                                 "IP version"),
    ({"subnet": ["fd00::/64", "fd01::/64"], "ipv6": True}, "bridge driver doesn't support multiple subnets: give --subnet once "
                                                           "for each IP version"),
    ({"subnet": ["fd00::/64"]}, "subnet fd00::/64 is of IPv6, which the network has with --ipv6 only"),
    ({"subnet": ["fd00::1/64"], "ipv6": True}, "invalid subnet fd00::1/64: it should be fd00::/64"),
    ({"subnet": ["fd00::"], "ipv6": True}, "invalid subnet fd00:: : invalid CIDR block notation"),
    ({"subnet": "10.5.0.0/16", "ip_range": "fd00::/80", "ipv6": True}, "no matching subnet for range fd00::/80"),
    ({"subnet": "fd00::/64", "ip_range": "fd00::/48", "ipv6": True}, "no matching subnet for range fd00::/48"),
    ({"subnet": "fd00::/64", "gateway": ["fd01::1"], "ipv6": True}, "no matching subnet for gateway fd01::1"),
    ({"subnet": "fd00::/64", "gateway": ["fd00::1", "fd00::2"], "ipv6": True},
     "cannot configure multiple gateways (fd00::2, fd00::1) on the same subnet (fd00::/64)"),
    ({"subnet": "fd00::/64", "ip_range": ["fd00::/80", "fd00::/96"], "ipv6": True},
     "cannot configure multiple ranges (fd00::/96, fd00::/80) on the subnet (fd00::/64)"),
    ({"subnet": "fd00::/64", "aux": {"a": "fd01::1"}, "ipv6": True}, "no matching subnet for aux-address fd01::1")])
def test_a_request_without_sense_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        parse_request({"name": "x", **body})
    assert str(caught.value) == message


def test_a_body_may_have_one_or_several() -> None:
    accepts = schema.TEXT_OR_TEXTS.accepts
    assert accepts(None) and accepts("10.5.0.0/16") and accepts(["10.5.0.0/16", "fd00::/64"])
    assert not accepts(1) and not accepts([1]) and not accepts({})


# ---- records -------------------------------------------------------------------------------------------------------------


def test_the_network_as_docker_prints_it() -> None:
    on = network()
    record = network_record(on, [endpoint(on)])
    assert record["EnableIPv6"] is True
    assert record["IPAM"]["Config"] == [
        {"Subnet": "10.5.0.0/16", "Gateway": "10.5.0.1"},
        {"Subnet": "fd00:5::/64", "IPRange": "fd00:5::1:0/112", "Gateway": "fd00:5::fe",
         "AuxiliaryAddresses": {"router": "fd00:5::ff"}}]
    assert record["Containers"]["2" * 64]["IPv6Address"] == "fd00:5::2/64"


def test_the_container_as_docker_prints_it() -> None:
    ends = [endpoint(network("lab")), endpoint(network("hidden", 6, internal=True)), endpoint(network("old", 7, ipv6=False))]
    web = Container(id="2" * 64, name="web", kind="run", created="", network_mode="lab", endpoints=ends)
    shown = docker_view(web.record())["NetworkSettings"]["Networks"]
    keys = ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")
    assert [tuple(shown[name][key] for key in keys) for name in ("lab", "hidden", "old")] == [
        ("fd00:5::2", 64, "fd00:5::fe"), ("fd00:6::2", 64, ""), ("", 0, "")]


def test_the_way_out_of_ipv6_is_the_first_network_that_has_it() -> None:
    old, lab, hidden = (endpoint(network("a", 4, ipv6=False)), endpoint(network("b", 5)),
                        endpoint(network("0", 6, internal=True)))
    web = Container(id="2" * 64, name="web", kind="run", created="", endpoints=[lab, hidden, old])
    assert web.way_out is old and web.way_out6 is lab
    web.endpoints.remove(lab)
    assert web.way_out is old and web.way_out6 is None


# ---- the store -----------------------------------------------------------------------------------------------------------


def test_a_network_comes_back_with_both_subnets(tmp_path: Path) -> None:
    made = network()
    store = Store(tmp_path)
    store.save_network(made)
    store.save_endpoint(endpoint(made), [])
    store.close()
    again = Store(tmp_path)
    (request,), (stored,) = again.networks(), again.endpoints()
    assert request.ipv6 and request.subnet6 and request.gateway6
    assert Ipam6Config(subnet=request.subnet6, gateway=request.gateway6, ip_range=request.ip_range6,
                       aux=request.aux6) == made.ipam6
    assert stored.request["ip6"] == "fd00:5::2" and stored.as_request.ip6 == A6("fd00:5::2")
    again.close()


def test_a_file_from_before_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of Docker's could be asked for with IPv6, and had none of natgw's."""
    with monkeypatch.context() as before:
        before.setattr(store_module, "MIGRATIONS", store_module.MIGRATIONS[:3])
        Store(tmp_path).connection.close()
    with sqlite3.connect(tmp_path / store_module.FILE_NAME) as raw:
        raw.execute("INSERT INTO networks VALUES ('5', 'old', '', 'docker', '10.5.0.0/16', NULL, '10.5.0.1', '{}', 1, 0, 0, "
                    "'{}', '{}')")
    raw.close()
    store = Store(tmp_path)
    (request,) = store.networks()
    assert (request.name, request.ipv6, request.subnet6) == ("old", False, None)
    store.close()


def test_the_prefix_is_kept_with_the_networks_or_through_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.setting(UNIQUE_LOCAL_PREFIX) is None
    store.save_setting(UNIQUE_LOCAL_PREFIX, "fd01:203:405::/48")
    store.freeze()
    store.close()
    again = Store(tmp_path)
    assert again.setting(UNIQUE_LOCAL_PREFIX) == "fd01:203:405::/48"
    again.save_network(network())
    again.close()
    third = Store(tmp_path)
    assert third.setting(UNIQUE_LOCAL_PREFIX) == "fd01:203:405::/48"
    third.drop_network(network().id)
    third.close()
    assert list(tmp_path.iterdir()) == []
