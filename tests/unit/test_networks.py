"""Pure parts of networks: pools, options, requests, events, the store."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from natgw.control import store as store_module
from natgw.control.events import MAX_WAITING, Event, Events
from natgw.control.ipam import AddressPool, Pools
from natgw.control.model import Endpoint, IpamConfig, Network
from natgw.control.netoptions import meaning_of
from natgw.control.netrequest import parse_request
from natgw.control.portspec import PortBinding, parse_port_spec
from natgw.control.store import Store
from natgw.errors import Conflict, NatgwError, NotFound

NET = IPv4Network
MAC = bytes.fromhex("02420a010502")


def network(name: str = "lab") -> Network:
    return Network(id="5" * 64, name=name, created="2023-11-14T22:13:20.123456789Z", internal=True, labels={"a": "b"},
                   ipam=IpamConfig(subnet=NET("10.1.0.0/16"), gateway=IPv4Address("10.1.0.254"),
                                   ip_range=NET("10.1.5.0/24"), aux={"router": IPv4Address("10.1.5.1")}))


def endpoint(on: Network, ip: str = "10.1.5.2") -> Endpoint:
    return Endpoint(id="3" * 64, network=on, name="web", container_id="2" * 64, ip=IPv4Address(ip), mac=MAC,
                    mtu=1400, aliases=["db"], ifname="eth1", netns="/run/netns/x")


# ---- pools -----------------------------------------------------------------------------------------------------------


def test_pools_in_dockers_order() -> None:
    pools = Pools()
    given = [str(pools.request().subnet) for _ in range(17)]
    assert given == [*(f"172.{number}.0.0/16" for number in range(17, 32)), "192.168.0.0/20", "192.168.16.0/20"]
    for _ in range(14):
        pools.request()
    with pytest.raises(Conflict, match="could not find an available, non-overlapping IPv4 address pool"):
        pools.request()


def test_what_a_route_of_the_host_overlaps_is_passed_over() -> None:
    pools, routes = Pools(), [NET("172.17.4.0/24"), NET("172.18.0.0/15")]
    assert str(pools.request(avoid=routes).subnet) == "172.20.0.0/16"
    with pytest.raises(Conflict, match=r"^Pool overlaps with other one on this address space: .* the host's route"):
        pools.request(NET("172.17.4.0/25"), avoid=routes)
    with pytest.raises(Conflict, match=r"^Pool overlaps with other one on this address space: .* another network"):
        pools.request(NET("172.20.1.0/24"))


def test_a_released_pool_is_given_again() -> None:
    pools = Pools()
    first, _ = pools.request(), pools.request()
    assert pools.find(first.id) is first and pools.of_subnet(first.subnet) is first
    pools.release(first.id)
    with pytest.raises(NotFound):
        pools.release(first.id)
    assert pools.request().subnet == first.subnet


def test_addresses_come_from_the_range_and_others_by_asking() -> None:
    pool = AddressPool(NET("10.0.0.0/24"), "x (y)", NET("10.0.0.8/30"))
    assert [str(pool.allocate()) for _ in range(2)] == ["10.0.0.8", "10.0.0.9"]
    pool.reserve(IPv4Address("10.0.0.10"))
    pool.reserve(IPv4Address("10.0.0.200"))
    assert str(pool.allocate()) == "10.0.0.11"
    with pytest.raises(Conflict, match=r"^no available IPv4 addresses on this network's address pools: x \(y\)$"):
        pool.allocate()
    pool.release(IPv4Address("10.0.0.200"))  # outside the range: not one that is given
    pool.release(IPv4Address("10.0.0.9"))
    assert str(pool.allocate()) == "10.0.0.9"
    with pytest.raises(NatgwError, match="invalid ip-range"):
        AddressPool(NET("10.0.0.0/24"), "x", NET("10.0.1.0/28"))


def test_a_range_at_the_edges_has_no_network_and_broadcast_address() -> None:
    pool = AddressPool(NET("10.0.0.0/29"), "x", NET("10.0.0.0/29"))
    assert [str(pool.allocate()) for _ in range(6)] == [f"10.0.0.{number}" for number in range(1, 7)]
    with pytest.raises(Conflict):
        pool.allocate()


# ---- options and requests ------------------------------------------------------------------------------------------------


def test_options_mean_something() -> None:
    bridge = "com.docker.network.bridge."
    meaning = meaning_of({bridge + "enable_icc": "false", bridge + "enable_ip_masquerade": "0", bridge + "name": "br9",
                          bridge + "host_binding_ipv4": "127.0.0.1", "com.docker.network.driver.mtu": "9000", "else": "x"})
    assert (meaning.icc, meaning.masquerade, meaning.device, meaning.mtu) == (False, False, "br9", 9000)
    assert meaning.host_binding == IPv4Address("127.0.0.1")
    plain = meaning_of({})
    assert (plain.icc, plain.masquerade, plain.device, plain.mtu, str(plain.host_binding)) == (
        True, True, None, None, "0.0.0.0")


@pytest.mark.parametrize(("key", "value"), [
    ("com.docker.network.bridge.enable_icc", "maybe"), ("com.docker.network.bridge.enable_ip_masquerade", ""),
    ("com.docker.network.bridge.host_binding_ipv4", "::1"), ("com.docker.network.driver.mtu", "big"),
    ("com.docker.network.driver.mtu", "67"), ("com.docker.network.bridge.name", "much-too-long-for-linux")])
def test_an_option_without_sense_is_refused(key: str, value: str) -> None:
    with pytest.raises(NatgwError):
        meaning_of({key: value})


@pytest.mark.parametrize(("body", "message"), [
    ({"subnet": "10.0.0.0"}, "invalid subnet 10.0.0.0 : invalid CIDR block notation"),
    ({"subnet": "10.0.0.1/24"}, "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
    ({"ip_range": "10.0.0.0/24"}, "no matching subnet for range 10.0.0.0/24"),
    ({"subnet": "10.0.0.0/24", "ip_range": "10.0.0.0/16"}, "no matching subnet for range 10.0.0.0/16"),
    ({"gateway": "10.0.0.1"}, "no matching subnet for gateway 10.0.0.1"),
    ({"subnet": "10.0.0.0/24", "gateway": "nonsense"}, "invalid gateway nonsense: not an IP address"),
    ({"subnet": "10.0.0.0/24", "aux": {"a": "10.0.1.1"}}, "no matching subnet for aux-address 10.0.1.1")])
def test_a_request_without_sense_is_refused(body: dict[str, object], message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        parse_request({"name": "x", **body})
    assert str(caught.value) == message


def test_ports_without_an_address_get_the_networks() -> None:
    (plain,), (chosen,) = parse_port_spec("8080:80"), parse_port_spec("0.0.0.0:8080:80")
    local = IPv4Address("127.0.0.1")
    assert plain.at_host(local).host_ip == local and chosen.at_host(local) == chosen
    assert plain.at_host(IPv4Address(0)) == plain


# ---- events ----------------------------------------------------------------------------------------------------------------


def test_an_event_as_docker_prints_it() -> None:
    on = network()
    event = Event(action="connect", network=on, endpoint=endpoint(on), time_ns=1_700_000_000_123_456_789)
    assert event.record() == {
        "Type": "network", "Action": "connect", "scope": "local", "time": 1_700_000_000, "timeNano": 1_700_000_000_123_456_789,
        "Actor": {"ID": "5" * 64, "Attributes": {"container": "2" * 64, "name": "lab", "type": "bridge"}}}


async def test_listeners_and_subscriptions_hear_all_until_they_end() -> None:
    hub, heard = Events(), list[str]()
    end = hub.listen(lambda event: heard.append(event.action))
    subscription = hub.subscribe()
    hub.emit("create", network())
    end()
    hub.emit("destroy", network())
    hub.close()
    hub.emit("create", network())
    assert heard == ["create"] and [event.action async for event in subscription] == ["create", "destroy"]


async def test_a_reader_that_is_too_slow_is_ended_rather_than_lied_to() -> None:
    hub = Events()
    subscription = hub.subscribe()
    for _ in range(MAX_WAITING + 5):
        hub.emit("create", network())
    assert len([event async for event in subscription]) == MAX_WAITING


# ---- the store -----------------------------------------------------------------------------------------------------------


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    made, bindings = network(), [PortBinding("tcp", IPv4Address("127.0.0.1"), range(8080, 8081), 80),
                                 PortBinding("udp", None, range(53, 54), 53)]
    first = Store(tmp_path)
    first.save_network(made)
    first.save_endpoint(endpoint(made), bindings)
    first.save_endpoint(endpoint(made, "10.1.5.3"), bindings, holds_address=True)  # the same one: it has changed
    first.close()
    again = Store(tmp_path)
    (request,), (stored,) = again.networks(), again.endpoints()
    assert (request.id, request.name, request.created, request.internal, request.labels) == (
        made.id, made.name, made.created, True, {"a": "b"})
    assert IpamConfig(subnet=request.subnet or NET("0.0.0.0/0"), gateway=request.gateway or IPv4Address(0),
                      ip_range=request.ip_range, aux=request.aux) == made.ipam
    assert stored.bindings == bindings and stored.row["ip"] == "10.1.5.3" and stored.row["network"] == "lab"
    asked = stored.as_request
    assert (asked.id, asked.ip, asked.mac, asked.aliases, asked.mtu, asked.holds_address) == (
        "3" * 64, IPv4Address("10.1.5.3"), MAC, ("db",), 1400, True)
    assert stored.request == {"endpoint_id": "3" * 64, "ip": "10.1.5.3", "ip6": None, "mac": "02:42:0a:01:05:02",
                              "aliases": ["db"], "ifname": "eth1"}
    again.close()


def test_an_empty_store_leaves_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_network(network())
    store.drop_network(network().id)
    store.close()
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_before_a_restart_nothing_is_dropped(tmp_path: Path) -> None:
    store, one = Store(tmp_path), endpoint(network())
    store.save_endpoint(one, [])
    store.freeze()
    one.netns = None
    store.save_endpoint(one, [])
    store.drop_endpoint(one.id)
    assert store.endpoints()[0].row["netns"] == "/run/netns/x"
    store.close()


def test_a_file_of_a_newer_natgw_or_of_somebody_else_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_network(network())
    store.connection.execute(f"PRAGMA user_version = {len(store_module.MIGRATIONS) + 1}")
    store.close()
    with pytest.raises(NatgwError, match="written by a newer natgw"):
        Store(tmp_path)
    store.path.write_bytes(b"no database" * 100)
    with pytest.raises(NatgwError, match="move it away"):
        Store(tmp_path)


def test_an_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.save_network(network())
    store.close()
    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, "CREATE TABLE more (id TEXT);"))
    again = Store(tmp_path)
    assert again.connection.execute("SELECT count(*) FROM more").fetchone()[0] == 0 and len(again.networks()) == 1
    again.close()
    with sqlite3.connect(again.path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone()[0] == len(store_module.MIGRATIONS)
