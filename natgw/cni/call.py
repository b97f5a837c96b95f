"""What an engine asks for: the command and its parameters from the environment, the network's configuration from stdin.

Everything is checked here that can be without knowing what the daemon has, and refused with the specification's error codes.
A key that natgw does not know is refused too: a mistyped one that is passed over looks like a setting that does not work.
Keys with a dot or a slash belong to somebody's name space ("cni.dev/attachments") and are passed over.
"""

from __future__ import annotations

import json
import re

from natgw.cni import errors
from natgw.cni.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
VERSION_ALONE = "0.1.0"
"""What a configuration without a version has (the specification's default since the beginning)."""

DEFAULT_SOCKET = "/run/natgw/natgw.sock"
SOCKET_VARIABLE = "NATGW_SOCKET"
VALID_ATTACHMENTS = "cni.dev/valid-attachments"

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_CONFIG_KEYS = {
    "cniVersion": str, "name": str, "type": str, "args": dict, "capabilities": dict, "runtimeConfig": dict, "prevResult": dict,
    "dns": dict, "ipam": dict, "ipMasq": bool, "isGateway": bool, "isDefaultGateway": bool, "internal": bool, "icc": bool,
    "ipv6": bool,
    "mtu": int, "link": str, "network": str, "socket": str,
}
_IPAM_KEYS = {"type": str, "subnet": str, "gateway": str, "ipRange": str, "subnet6": str, "gateway6": str, "ipRange6": str}
_DNS_KEYS = {"nameservers": list, "domain": str, "search": list, "options": list}
_RUNTIME_KEYS = {"portMappings": list, "ips": list, "mac": str, "bandwidth": dict, "dns": dict, "aliases": dict}
_MAPPING_KEYS = {"hostPort": int, "containerPort": int, "protocol": str, "hostIP": str}
_BANDWIDTH_KEYS = {"ingressRate": int, "ingressBurst": int, "egressRate": int, "egressBurst": int}
_RUNTIME_DNS_KEYS = {"servers": list, "searches": list, "options": list}
_WORDS = {str: "a string", dict: "an object", list: "a list", bool: "true or false", int: "a whole number"}


class Call:
    """One call, all of it checked. `version` is the one to answer in."""

    def __init__(self, environment: Mapping[str, str], config: Mapping[str, Any]) -> None:
        """Raises CniError: 1 for a version, 2 and 7 for the configuration, 4 for the environment."""
        self.command = environment.get("CNI_COMMAND", "")
        config = _without_nulls(config)
        self.version: str = config.get("cniVersion") or VERSION_ALONE
        _check_version(self.command, self.version)
        _check_keys(config, _CONFIG_KEYS, "")
        self.config = config
        self.container_id, self.ifname, self.netns = _attachment(self.command, environment)
        self.args = _arguments(environment.get("CNI_ARGS", ""))
        self.name = _network_name(config.get("name"))
        self.network = _network_name(config.get("network", self.name))
        self.socket: str = config.get("socket") or environment.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
        self.dns = _dns(config)
        self.previous = _previous(config)

    def request(self) -> dict[str, Any]:
        """The body of the daemon's POST /v1/cni/attachments. Raises CniError (2, 7)."""
        config, runtime = self.config, _section(self.config, "runtimeConfig", _RUNTIME_KEYS)
        ipam = _section(config, "ipam", _IPAM_KEYS)
        if ipam.get("type", "natgw") != "natgw":
            raise _unsupported("ipam.type", ipam["type"], "natgw gives addresses itself: leave it out")
        if not config.get("isGateway", True):
            raise _unsupported("isGateway", False, "there is always a gateway; internal: true keeps containers inside")
        return {
            **self.key(), "netns": self.netns,
            "name": self._container_name(), "aliases": _aliases(runtime, self.name),
            "subnet": ipam.get("subnet"), "gateway": ipam.get("gateway"), "ip_range": ipam.get("ipRange"),
            "ipv6": config.get("ipv6", False), "subnet6": ipam.get("subnet6"), "gateway6": ipam.get("gateway6"),
            "ip_range6": ipam.get("ipRange6"),
            "mtu": config.get("mtu") or None, "link": config.get("link"), "internal": config.get("internal", False),
            "masquerade": config.get("ipMasq", True), "icc": config.get("icc", True),
            "default_route": config.get("isDefaultGateway", True),
            **_wanted(runtime, _section(_section(config, "args", {"cni": dict}, known=False), "cni",
                                        {"ips": list, "mac": str}, known=False), self.args),
            "publish": [_port_spec(mapping) for mapping in runtime.get("portMappings", [])],
            **_bandwidth(runtime),
        }

    def key(self) -> dict[str, str]:
        """What tells an attachment from all others, in the specification's words."""
        return {"network": self.network, "container_id": self.container_id, "ifname": self.ifname}

    def valid_attachments(self) -> list[dict[str, str]]:
        """Those that GC is to keep. Raises CniError (7): without the list, nothing may be taken for left over."""
        listed = self.config.get(VALID_ATTACHMENTS)
        if not isinstance(listed, list):
            raise CniError(errors.INVALID_CONFIG, f"GC needs the list {VALID_ATTACHMENTS}")
        kept = []
        for one in listed:
            if not (isinstance(one, dict) and isinstance(one.get("containerID"), str) and isinstance(one.get("ifname"), str)):
                raise CniError(errors.INVALID_CONFIG,
                               f"{VALID_ATTACHMENTS} holds {json.dumps(one)}: it needs containerID and ifname")
            kept.append({"container_id": one["containerID"], "ifname": one["ifname"]})
        return kept

    def _container_name(self) -> str | None:
        """The container's name, from engines that say it in Kubernetes' way (podman does); a pod's has its name space."""
        pod, space = self.args.get("K8S_POD_NAME"), self.args.get("K8S_POD_NAMESPACE")
        return pod if not pod or space in (None, "", pod) else f"{pod}.{space}"


def decode(content: bytes) -> dict[str, Any]:
    """The configuration as it came in on standard input. Raises CniError (6)."""
    try:
        config = json.loads(content)
    except ValueError as error:
        raise CniError(errors.CANNOT_DECODE, "the network configuration on standard input is not JSON", str(error)) from None
    if not isinstance(config, dict):
        raise CniError(errors.CANNOT_DECODE, "the network configuration on standard input is not a JSON object")
    return config


def _check_version(command: str, version: object) -> None:
    supported = ", ".join(VERSIONS)
    if version not in VERSIONS:
        raise CniError(errors.INCOMPATIBLE_VERSION, f"incompatible CNI version {version}", f"natgw-cni supports {supported}")
    if command in ("GC", "STATUS") and version != "1.1.0":
        raise CniError(errors.INCOMPATIBLE_VERSION, f"CNI version {version} has no {command}", "it came with 1.1.0")


def _attachment(command: str, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Container id, interface name, namespace; all empty for commands that are about none."""
    if command in ("GC", "STATUS"):
        return "", "", ""
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    netns = environment.get("CNI_NETNS", "")
    wrong = []
    if not _ID.fullmatch(container_id):
        wrong.append("CNI_CONTAINERID")
    if not 1 <= len(ifname.encode()) <= 15 or ifname in (".", "..") or any(sign in "/:" or sign.isspace() for sign in ifname):
        wrong.append("CNI_IFNAME")
    if not netns and command != "DEL":
        wrong.append("CNI_NETNS")
    if wrong:
        said = ", ".join(f"{name}={environment[name]!r}" if name in environment else f"{name} is not set" for name in wrong)
        raise CniError(errors.INVALID_ENVIRONMENT, f"invalid environment variables: {said}")
    return container_id, ifname, netns


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: `KEY=VALUE;KEY=VALUE`."""
    found = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CniError(errors.INVALID_ENVIRONMENT, f"invalid environment variables: CNI_ARGS={text!r}",
                           f"{pair!r} has no value")
        found[key] = value
    return found


def valid_network_name(name: object) -> bool:
    """Whether the specification allows it."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def _network_name(name: Any) -> str:
    if not valid_network_name(name):
        raise CniError(errors.INVALID_CONFIG, f"invalid network name {json.dumps(name)}: letters, digits, dots, dashes and "
                                              "underscores, a letter or digit first")
    return str(name)


def _without_nulls(value: Any) -> Any:
    """A null is what is not there: engines in Go write one for an empty list."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _section(config: Mapping[str, Any], key: str, keys: Mapping[str, type], *, known: bool = True) -> dict[str, Any]:
    """An object in the configuration, checked; with `known` False, keys beside the expected ones are nobody's business."""
    found: dict[str, Any] = config.get(key, {})
    found = found if known else {name: found[name] for name in keys if name in found}
    _check_keys(found, keys, f"{key}.")
    return found


def _check_keys(config: Mapping[str, Any], keys: Mapping[str, type], where: str) -> None:
    for key, value in config.items():
        if "." in key or "/" in key:
            continue
        if key not in keys:
            raise _unsupported(where + key, value, f"known are {', '.join(keys)}")
        kind = keys[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CniError(errors.INVALID_CONFIG, f"{where}{key} must be {_WORDS[kind]}, not {json.dumps(value)}")


def _unsupported(key: str, value: object, why: str) -> CniError:
    return CniError(errors.UNSUPPORTED_FIELD, f"unsupported field {key}: {json.dumps(value)}", why)


def _previous(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of the plugin before this one, or of the ADD that is checked; what will be read of it is as it should be."""
    found: dict[str, Any] | None = config.get("prevResult")
    if found is not None:
        for key in ("interfaces", "ips", "routes"):
            listed = found.get(key, [])
            if not (isinstance(listed, list) and all(isinstance(one, dict) for one in listed)):
                raise CniError(errors.INVALID_CONFIG, f"prevResult.{key} must be a list of objects")
        if not all(isinstance(one.get("address"), str) for one in found.get("ips", [])):
            raise CniError(errors.INVALID_CONFIG, "prevResult.ips has one without an address")
        if not isinstance(found.get("dns", {}), dict):
            raise CniError(errors.INVALID_CONFIG, "prevResult.dns must be an object")
    return found


def _dns(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the result says of names: the runtime's wish (Kubernetes' words) comes before the configuration's."""
    dns = dict(_section(config, "dns", _DNS_KEYS))
    wish = _section(_section(config, "runtimeConfig", _RUNTIME_KEYS), "dns", _RUNTIME_DNS_KEYS)
    for ours, theirs in (("nameservers", "servers"), ("search", "searches"), ("options", "options")):
        if wish.get(theirs):
            dns[ours] = wish[theirs]
    return dns


def _wanted(runtime: Mapping[str, Any], conventional: Mapping[str, Any], args: Mapping[str, str]) -> dict[str, Any]:
    """The addresses asked for: by capability, else by the convention for args, else by the old one for CNI_ARGS."""
    ips = runtime.get("ips") or conventional.get("ips") or ([args["IP"]] if args.get("IP") else [])
    if not all(isinstance(one, str) for one in ips):
        raise CniError(errors.INVALID_CONFIG, f"ips must be a list of strings, not {json.dumps(ips)}")
    return {"ips": [one.partition("/")[0] for one in ips],
            "mac": runtime.get("mac") or conventional.get("mac") or args.get("MAC") or None}


def _aliases(runtime: Mapping[str, Any], network: str) -> list[str]:
    """podman's capability: names by network."""
    found = runtime.get("aliases", {}).get(network, [])
    if not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise CniError(errors.INVALID_CONFIG, f"runtimeConfig.aliases of {network} must be a list of strings")
    return found


def _port_spec(mapping: object) -> str:
    """A port mapping in the words of `natgw publish`."""
    if not isinstance(mapping, dict):
        raise CniError(errors.INVALID_CONFIG, f"runtimeConfig.portMappings holds {json.dumps(mapping)}: it must be an object")
    _check_keys(mapping, _MAPPING_KEYS, "runtimeConfig.portMappings.")
    for key in ("hostPort", "containerPort"):
        if not 1 <= mapping.get(key, 0) <= 65535:
            raise CniError(errors.INVALID_CONFIG, f"invalid {key} in {json.dumps(mapping)}: a port is a number from 1 to 65535")
    host_ip = mapping.get("hostIP") or ""
    front = f"[{host_ip}]:" if ":" in host_ip else f"{host_ip}:" if host_ip else ""
    return f"{front}{mapping['hostPort']}:{mapping['containerPort']}/{(mapping.get('protocol') or 'tcp').lower()}"


def _bandwidth(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Rates in bits per second, bursts in bits; 0 and nothing both mean no limit."""
    found = _section(runtime, "bandwidth", _BANDWIDTH_KEYS)
    for key, value in found.items():
        if value < 0:
            raise CniError(errors.INVALID_CONFIG, f"runtimeConfig.bandwidth.{key} must not be negative: {value}")
    return {ours: found.get(theirs) or None for ours, theirs in (
        ("ingress_rate", "ingressRate"), ("ingress_burst", "ingressBurst"),
        ("egress_rate", "egressRate"), ("egress_burst", "egressBurst"))}
