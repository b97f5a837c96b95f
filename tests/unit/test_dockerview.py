"""`natgw inspect`: what programs read of `docker inspect` is where they look for it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from natgw.cli.dockerview import docker_view
from natgw.control.model import Container, Endpoint, IpamConfig, Network, PublishedPort


def endpoint(name: str, number: int, *, internal: bool = False) -> Endpoint:
    network = Network(id=f"{number}" * 32, name=name, created="", ipam=IpamConfig(
        subnet=IPv4Network(f"172.{number}.0.0/16"), gateway=IPv4Address(f"172.{number}.0.1")), internal=internal)
    return Endpoint(id="3" * 64, network=network, name="web", ip=IPv4Address(f"172.{number}.0.2"),
                    mac=bytes([2, 0x42, 172, number, 0, 2]), mtu=1500, aliases=["db"] if number == 18 else [])


def test_where_docker_has_it() -> None:
    web = Container(id="2" * 64, name="web", kind="run", created="2023-11-14T22:13:20.123456789Z", netns="/proc/1/fd/9",
                    state="running", pid=77, command=["sleep", "1"], endpoints=[endpoint("bridge", 17), endpoint("lab", 18)])
    web.endpoints[0].ports = [PublishedPort("tcp", "0.0.0.0", 8080, 80), PublishedPort("tcp", "::", 8080, 80)]
    view = docker_view(web.record())
    assert (view["Id"], view["Name"], view["Path"], view["Args"]) == ("2" * 64, "/web", "sleep", ["1"])
    assert view["State"] == {"Status": "running", "Running": True, "Pid": 77, "ExitCode": 0}
    assert view["HostConfig"] == {"NetworkMode": "default"}
    settings = view["NetworkSettings"]
    assert settings["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}
    assert settings["IPAddress"] == "172.17.0.2" and settings["SandboxKey"] == "/proc/1/fd/9"
    assert settings["Networks"]["lab"] == {
        "IPAMConfig": None, "Links": None, "Aliases": ["db"], "NetworkID": "18" * 32, "EndpointID": "3" * 64,
        "Gateway": "172.18.0.1", "IPAddress": "172.18.0.2", "IPPrefixLen": 16, "IPv6Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:12:00:02", "DriverOpts": None}


def test_one_that_has_no_network_of_its_own() -> None:
    view = docker_view(Container(id="2" * 64, name="x", kind="attached", created="", network_mode="host").record())
    assert view["HostConfig"]["NetworkMode"] == "host" and view["NetworkSettings"]["Networks"] == {}
    assert view["NetworkSettings"]["IPAddress"] == "" and view["Path"] == "" and view["State"]["Pid"] == 0


def test_an_internal_network_has_no_gateway() -> None:
    inside = Container(id="2" * 64, name="x", kind="run", created="", network_mode="hidden",
                       endpoints=[endpoint("hidden", 19, internal=True)])
    assert docker_view(inside.record())["NetworkSettings"]["Networks"]["hidden"]["Gateway"] == ""
