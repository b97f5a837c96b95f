"""`network inspect`: the JSON that Docker prints, field by field and in its order."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

from natgw.control.inspect import default_bridge_options, network_record
from natgw.control.model import Container, Network, PublishedPort

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
    return Network(id="1" * 64, name="bridge", created=CREATED, subnet=IPv4Network("172.17.0.0/16"),
                   gateway=IPv4Address("172.17.0.1"), gateway_mac=bytes.fromhex("0242ac110001"), mtu=1500, device="natgw0",
                   options=default_bridge_options("natgw0", 1500, masquerade=True))


def container() -> Container:
    return Container(id="2" * 64, endpoint_id="3" * 64, name="web", kind="run", created=CREATED, netns="/proc/1/fd/9",
                     link="tap", mtu=1500, network="bridge", prefixlen=16, gateway=IPv4Address("172.17.0.1"))


def test_as_docker_prints_it() -> None:
    web, exited = container(), container()
    web.ip, web.mac = IPv4Address("172.17.0.2"), bytes.fromhex("0242ac110002")
    exited.id, exited.state = "4" * 64, "exited"
    assert json.dumps(network_record(network(), [web, exited]), indent=4) == PRINTED.strip()


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
    one.ip, one.mac, one.ports = IPv4Address("172.17.0.2"), b"\2\x42\xac\x11\0\2", [PublishedPort("tcp", "::", 8080, 80)]
    record = one.record()
    assert record["ip"] == "172.17.0.2" and record["mac"] == "02:42:ac:11:00:02" and record["prefixlen"] == 16
    assert record["ports"] == [{"protocol": "tcp", "host_ip": "::", "host_port": 8080, "container_port": 80}]
    assert json.loads(json.dumps(record)) == record
