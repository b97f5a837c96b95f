"""What ADD answers, and whether what it answered is still so: records of the daemon, in the words of each version of CNI.

An attachment's record has two interfaces: the network's device on the host, and the container's. The addresses belong to the
second. With a plugin before this one, its result stays, and ours follows.
"""

from __future__ import annotations

from natgw.cni import errors
from natgw.cni.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]


def added(version: str, attachment: Record, dns: Record, previous: Record | None) -> Record:
    """The result of ADD in the words of `version`."""
    before = previous or {}
    interfaces = list(before.get("interfaces", []))
    own = len(interfaces) + 1
    interfaces += [
        {"name": attachment["bridge"], "mac": attachment["bridge_mac"]},
        {"name": attachment["ifname"], "mac": attachment["mac"], "sandbox": attachment["netns"]},
    ]
    if version == "1.1.0":
        for interface in interfaces[-2:]:
            interface["mtu"] = attachment["mtu"]
    ips = list(before.get("ips", []))
    for address in attachment["addresses"]:
        ips.append({"interface": own, "address": address["address"]}
                   | ({"gateway": address["gateway"]} if address["gateway"] else {}))
    result = {
        "cniVersion": version, "interfaces": interfaces, "ips": [_ip(version, ip) for ip in ips],
        "routes": [*before.get("routes", []), *attachment["inside"]["routes"]],
        "dns": before.get("dns") or _names(attachment, dns),
    }
    return {key: value for key, value in result.items() if value or key in ("cniVersion", "dns")}


def _ip(version: str, ip: Record) -> Record:
    """An address: up to 0.4.0 with the version of IP, from 1.0.0 on without."""
    bare = {key: value for key, value in ip.items() if key != "version"}
    return {"version": "6" if ":" in ip["address"] else "4", **bare} if version == "0.4.0" else bare


def _names(attachment: Record, dns: Record) -> Record:
    """The configured DNS, or natgw's own where it serves the network."""
    if dns.get("nameservers") or not attachment["nameservers"]:
        return dns
    return {**dns, "nameservers": attachment["nameservers"]}


def check(previous: Record, ifname: str, attachment: Record) -> None:
    """Whether the container has what ADD said it has. Raises CniError (103) with all that is missing or otherwise.

    `attachment["inside"]` is what the daemon has just seen in the namespace. Other plugins may have added to it: only what is
    missing counts.
    """
    inside = attachment["inside"]
    wrong = list(attachment["faults"])
    index, expected = _own_interface(previous, ifname, attachment)
    if inside is None:
        wrong.append(f"interface {ifname} is missing")
    else:
        if expected.get("mac") and str(expected["mac"]).lower() != inside["mac"]:
            wrong.append(f"{ifname} has the MAC address {inside['mac']}, not {expected['mac']}")
        if expected.get("mtu") and expected["mtu"] != inside["mtu"]:
            wrong.append(f"{ifname} has an MTU of {inside['mtu']}, not {expected['mtu']}")
        if not inside["up"]:
            wrong.append(f"{ifname} is down")
        wrong += [f"{ifname} does not have the address {ip['address']}" for ip in previous.get("ips", [])
                  if ip.get("interface") == index and ip["address"] not in inside["addresses"]]
        gateways = {address["gateway"] for address in attachment["addresses"]}
        wrong += [f"there is no route to {route['dst']} by {ifname}" for route in previous.get("routes", [])
                  if route.get("gw") in gateways and route not in inside["routes"]]
    if wrong:
        raise CniError(errors.NOT_AS_ADDED, f"container {attachment['container_id'][:12]} is not as it was added to network "
                                            f"{attachment['network']}", "; ".join(wrong))


def _own_interface(previous: Record, ifname: str, attachment: Record) -> tuple[int, Record]:
    """Where in the result of ADD our interface is."""
    for index, interface in enumerate(previous.get("interfaces", [])):
        if interface.get("name") == ifname and interface.get("sandbox"):
            return index, interface
    raise CniError(errors.INVALID_CONFIG, f"prevResult has no interface {ifname}: it is not what natgw-cni answered to ADD")
