"""A container as `docker inspect` shows it: the keys that say something of its network, made of natgw's own record."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]


def docker_view(container: Record) -> Record:
    """The part of Docker's JSON (moby, api/types.ContainerJSON) that natgw has an answer to, for a container record."""
    command = container["command"] or []
    first = container["networks"].get(container["network"], {})
    return {
        "Id": container["id"],
        "Created": container["created"],
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": {
            "Status": container["state"], "Running": container["state"] == "running", "Pid": container["pid"] or 0,
            "ExitCode": container["exit_code"] or 0,
        },
        "Name": "/" + container["name"],
        "HostConfig": {"NetworkMode": "default" if container["network"] == "bridge" else container["network"]},
        "NetworkSettings": {
            "SandboxKey": container["netns"],
            "Ports": _ports(container),
            # Those of the default bridge stand here too, for programs from before there were networks.
            **_address(first if container["network"] == "bridge" else {}),
            "Networks": {name: _network(endpoint) for name, endpoint in container["networks"].items()},
        },
    }


def _ports(container: Record) -> Record:
    ports: Record = {}
    for port in container["ports"]:
        ports.setdefault(f"{port['container_port']}/{port['protocol']}", []).append(
            {"HostIp": port["host_ip"], "HostPort": str(port["host_port"])})
    return ports


def _network(endpoint: Record) -> Record:
    return {"IPAMConfig": None, "Links": None, "Aliases": endpoint["aliases"] or None, "NetworkID": endpoint["network_id"],
            **_address(endpoint), "DriverOpts": None}


def _address(endpoint: Record) -> Record:
    return {
        "EndpointID": endpoint.get("endpoint_id", ""), "Gateway": endpoint.get("gateway") or "",
        "IPAddress": endpoint.get("ip", ""), "IPPrefixLen": endpoint.get("prefixlen", 0),
        "IPv6Gateway": endpoint.get("gateway6") or "", "GlobalIPv6Address": endpoint.get("ip6") or "",
        "GlobalIPv6PrefixLen": endpoint.get("prefixlen6") or 0, "MacAddress": endpoint.get("mac", ""),
    }
