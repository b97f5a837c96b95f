"""`network inspect`: the JSON that Docker prints, field by field and in its order."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

from natgw.control.inspect import network_record
from natgw.control.model import Container, Endpoint, IpamConfig, Network, PublishedPort
from natgw.control.netoptions import default_bridge_options

CREATED = "2023-11-14T22:13:20.123456789Z"

PRINTED = """
{
    "Name": "bridge",
    "Id": "1111111111111111111111111111111111111111111111111111111111111111",
    "Created": "2023-11-14T22:13:20.123456789Z",
    "Scope": "local",
    "Driver": "bridge",
    "EnableIPv6": false,
    "IPAM": {
        "Driver": "default",
        "Options": null,
        "Config": [
            {
                "Subnet": "172.17.0.0/16",
                "Gateway": "172.17.0.1"
            }
        ]
    },
    "Internal": false,
    "Attachable": false,
    "Ingress": false,
    "ConfigFrom": {
        "Network": ""
    },
    "ConfigOnly": false,
    "Containers": {
        "2222222222222222222222222222222222222222222222222222222222222222": {
            "Name": "web",
            "EndpointID": "3333333333333333333333333333333333333333333333333333333333333333",
            "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": ""
        }
    },
    "Options": {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": "natgw0",
        "com.docker.network.driver.mtu": "1500"
    },
    "Labels": {}
}
"""


def network() -> Network:
    return Network(id="1" * 64, name="bridge", created=CREATED, predefined=True, gateway_mac=bytes.fromhex("0242ac110001"),
                   ipam=IpamConfig(subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address("172.17.0.1")), device="natgw0",
                   options=default_bridge_options("natgw0", 1500, masquerade=True))


def endpoint(on: Network) -> Endpoint:
    return Endpoint(id="3" * 64, network=on, name="web", container_id="2" * 64, ip=IPv4Address("172.17.0.2"),
                    mac=bytes.fromhex("0242ac110002"), mtu=1500)


def container() -> Container:
    return Container(id="2" * 64, name="web", kind="run", created=CREATED, netns="/proc/1/fd/9")


def test_as_docker_prints_it() -> None:
    bridge = network()
    assert json.dumps(network_record(bridge, [endpoint(bridge)]), indent=4) == PRINTED.strip()


def test_one_that_was_created_with_all_there_is() -> None:
    made = Network(id="5" * 64, name="lab", created=CREATED, internal=True, attachable=True, labels={"a": "b"},
                   ipam=IpamConfig(subnet=IPv4Network("10.1.0.0/16"), gateway=IPv4Address("10.1.0.254"),
                                   ip_range=IPv4Network("10.1.5.0/24"), aux={"router": IPv4Address("10.1.5.1")}))
    record = network_record(made, [])
    assert record["IPAM"] == {"Driver": "default", "Options": {}, "Config": [{
        "Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.0.254",
        "AuxiliaryAddresses": {"router": "10.1.5.1"}}]}
    assert record["Internal"] and record["Attachable"] and record["Labels"] == {"a": "b"} and record["Containers"] == {}


def test_host_and_none_have_no_addresses() -> None:
    record = network_record(Network(id="6" * 64, name="none", created=CREATED, driver="null", predefined=True), [])
    assert record["Driver"] == "null" and record["IPAM"]["Config"] == [] and record["Options"] == {}


def test_containers_without_a_link() -> None:
    """As Docker shows them on `host` and `none`: a name, and an endpoint's id that stays the same and is nobody else's."""
    none = Network(id="6" * 64, name="none", created=CREATED, driver="null", predefined=True)
    host = Network(id="7" * 64, name="host", created=CREATED, driver="host", predefined=True)
    (shown,) = network_record(none, [], [container()])["Containers"].items()
    identity = shown[1]["EndpointID"]
    assert len(identity) == 64 and set(identity) <= set("0123456789abcdef")
    assert shown == ("2" * 64, {"Name": "web", "EndpointID": identity, "MacAddress": "", "IPv4Address": "", "IPv6Address": ""})
    assert network_record(none, [], [container()])["Containers"]["2" * 64]["EndpointID"] == identity
    assert network_record(host, [], [container()])["Containers"]["2" * 64]["EndpointID"] != identity


def test_options_say_what_is_asked_for() -> None:
    options = default_bridge_options("natgw0", 1400, masquerade=False)
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert options["com.docker.network.driver.mtu"] == "1400"


def test_the_record_is_a_copy() -> None:
    made = network()
    network_record(made, [])["Options"]["more"] = "x"
    assert "more" not in made.options


def test_a_container_without_and_with_an_address() -> None:
    one = container()
    record = one.record()
    assert record["ip"] is None and record["mac"] is None and record["ports"] == [] and record["state"] == "created"
    assert record["networks"] == {}
    first, second = endpoint(network()), endpoint(network())
    second.network.name, second.ifname, second.ip = "lab", "eth1", IPv4Address("172.18.0.2")
    first.ports = [PublishedPort("tcp", "::", 8080, 80)]
    one.endpoints += [first, second]
    record = one.record()
    assert record["ip"] == "172.17.0.2" and record["mac"] == "02:42:ac:11:00:02" and record["prefixlen"] == 16
    assert record["ports"] == [{"protocol": "tcp", "host_ip": "::", "host_port": 8080, "container_port": 80}]
    assert record["networks"]["lab"]["ip"] == "172.18.0.2" and record["networks"]["lab"]["ifname"] == "eth1"
    assert json.loads(json.dumps(record)) == record


def test_the_way_out_is_the_first_by_name_of_those_that_lead_out() -> None:
    one, ends = container(), {name: endpoint(network()) for name in ("zebra", "apple", "middle")}
    for name, each in ends.items():
        each.network.name = name
        one.endpoints.append(each)
    assert one.way_out is ends["apple"]
    ends["apple"].network.internal = True
    assert one.way_out is ends["middle"]
