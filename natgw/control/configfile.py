"""The file of `natgw up --config`: TOML with a table [up], named as the command's options are, and a table [nat]."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

from natgw.control.natconfig import flag, one_of, unknown_key
from natgw.control.options import LINK_KINDS, check_lease, check_mtu, parse_port_range
from natgw.errors import NatgwError

Record = dict[str, Any]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{value}" is not a string')
    return value


def _mtu(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'"{value}" is not a number of bytes')
    return check_mtu(value)


def _lease(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'"{value}" is not a number of seconds')
    return check_lease(value)


def _resolvers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f'"{value}" is not a list of addresses')
    return tuple(str(ip_address(_text(each))) for each in value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f'"{value}" is neither true nor false')
    return flag(value)


UP: dict[str, Callable[[object], Any]] = {
    "uplink": _text,
    "subnet": lambda value: IPv4Network(_text(value)),
    "gateway": lambda value: IPv4Address(_text(value)),
    "mtu": _mtu,
    "link": lambda value: one_of(LINK_KINDS, value),
    "big_tcp": _flag,
    "port_range": lambda value: parse_port_range(_text(value)),
    "exclusive_uplink": _flag,
    "ipv6": _flag,
    "subnet6": lambda value: IPv6Network(_text(value)),
    "dns": _resolvers,
    "dhcp": _flag,
    "dhcp_lease": _lease,
}
"""The keys of [up], by what makes a field of DaemonOptions of them."""


def read(path: Path) -> tuple[Record, Record]:
    """Fields of DaemonOptions, and changes for natconfig. Raises NatgwError that names file and key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NatgwError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise NatgwError(f"{path}: not TOML: {error}") from None
    for name, table in content.items():
        if name not in ("up", "nat"):
            raise NatgwError(f"{path}: {unknown_key(name, ('up', 'nat'))}")
        if not isinstance(table, Mapping):
            raise NatgwError(f"{path}: {name} must be a table, [{name}]")
    return {key: _value(path, key, value) for key, value in content.get("up", {}).items()}, content.get("nat", {})


def _value(path: Path, key: str, value: object) -> Any:
    if key not in UP:
        raise NatgwError(f"{path}: [up] {unknown_key(key, UP)}")
    try:
        return UP[key](value)
    except (ValueError, NatgwError) as error:
        raise NatgwError(f"{path}: [up] {key}: {error}") from None
