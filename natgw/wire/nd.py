"""Neighbour discovery (RFC 4861): IPv6's ARP, and how hosts learn of routers. All of it is ICMPv6 with hop limit 255.

    solicitation, advertisement of a neighbour      a router's advertisement
     0    1    2     4        8        24           0    1    2     4       5     6        8         12      16
    +----+----+-----+--------+--------+--------     +----+----+-----+-------+-----+--------+---------+-------+--------
    |type|code|csum |flags   | target | options     |type|code|csum |hop lim|flags|lifetime|reachable|retrans| options
    +----+----+-----+--------+--------+--------     +----+----+-----+-------+-----+--------+---------+-------+--------

An option is type, length in units of 8 bytes, and its contents.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Network

from natgw.wire.checksum import fold, ones_sum, pseudo_sum
from natgw.wire.ethernet import L3, is_group
from natgw.wire.icmpv6 import build_message
from natgw.wire.ip import ALL_NODES, UNSPECIFIED6, group_mac, is_multicast, solicited_node
from natgw.wire.ipv4 import ICMPV6
from natgw.wire.ipv6 import IPV6_BYTES

TYPE = L3 + IPV6_BYTES
"""Offset of a message's type in a buffer."""
TARGET = TYPE + 8
"""Offset of the target address."""

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136
REDIRECT = 137
_MINIMUM_BYTES = {ROUTER_SOLICITATION: 8, ROUTER_ADVERTISEMENT: 16, NEIGHBOUR_SOLICITATION: 24, NEIGHBOUR_ADVERTISEMENT: 24,
                  REDIRECT: 40}
TYPES = frozenset(_MINIMUM_BYTES)

SOURCE_LINK_ADDRESS = 1
TARGET_LINK_ADDRESS = 2
_PREFIX_INFORMATION = 3
_MTU = 5

_HOP_LIMIT = 255
_SOLICITED, _OVERRIDE, _ROUTER = 0x40, 0x20, 0x80
_ON_LINK, _AUTONOMOUS = 0x80, 0x40

_IPV6_TYPE = b"\x86\xdd"
_ROUTER_HEAD = struct.Struct("!BBHII")
_PREFIX = struct.Struct("!BBBBII4x16s")
_MTU_OPTION = struct.Struct("!BBHI")

VALID_LIFETIME_S = 2592000
PREFERRED_LIFETIME_S = 604800
"""RFC 4861 section 6.2.1, AdvValidLifetime and AdvPreferredLifetime."""


@dataclass(frozen=True, slots=True)
class NdMessage:
    """A valid message. `target` is empty for those about routers; `mac` is the link-layer address it tells, if it does."""

    type: int
    src: bytes
    dst: bytes
    target: bytes
    mac: bytes | None
    override: bool
    solicited: bool

    @property
    def is_probe(self) -> bool:
        """Duplicate address detection: a sender that does not own the address yet (RFC 4862 section 5.4.2)."""
        return self.src == UNSPECIFIED6


def is_nd(buf: bytes | bytearray, n: int) -> bool:
    """Whether a frame with IPv6 in it is neighbour discovery. What hides behind extension headers is not."""
    return (n > L3 + IPV6_BYTES and buf[L3 + 6] == ICMPV6 and buf[L3 + IPV6_BYTES] in TYPES and buf[L3] >> 4 == 6)


def parse_nd(buf: bytes | bytearray, n: int) -> NdMessage | None:
    """The message in a frame that `is_nd`, or None if it is not valid (RFC 4861 sections 6.1 and 7.1)."""
    end = L3 + IPV6_BYTES + int.from_bytes(buf[L3 + 4 : L3 + 6], "big")
    start = L3 + IPV6_BYTES
    if n < end or end - start < _MINIMUM_BYTES[buf[start]] or buf[L3 + 7] != _HOP_LIMIT or buf[start + 1]:
        return None
    src, dst = bytes(buf[L3 + 8 : L3 + 24]), bytes(buf[L3 + 24 : L3 + 40])
    if fold(pseudo_sum(src + dst, ICMPV6, end - start) + ones_sum(memoryview(buf)[start:end])) != 0xFFFF:
        return None
    kind, flags = buf[start], buf[start + 4]
    options = _options(buf, start + _MINIMUM_BYTES[kind], end)
    if options is None:
        return None
    about_neighbour = kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)
    target = bytes(buf[start + 8 : start + 24]) if about_neighbour else b""
    if about_neighbour and is_multicast(target):
        return None
    mac = options.get(TARGET_LINK_ADDRESS if kind == NEIGHBOUR_ADVERTISEMENT else SOURCE_LINK_ADDRESS)
    if mac is not None and is_group(mac):
        return None
    if src == UNSPECIFIED6 and mac is not None:
        return None
    if is_multicast(src) or (kind == NEIGHBOUR_SOLICITATION and src == UNSPECIFIED6 and dst != solicited_node(target)):
        return None
    if kind == NEIGHBOUR_ADVERTISEMENT and is_multicast(dst) and flags & _SOLICITED:
        return None
    return NdMessage(kind, src, dst, target, mac, bool(flags & _OVERRIDE), bool(flags & _SOLICITED))


def _options(buf: bytes | bytearray, at: int, end: int) -> dict[int, bytes] | None:
    """Link-layer addresses by option type; None if an option has no length or is cut short."""
    found = {}
    while at < end:
        if at + 2 > end or not buf[at + 1] or at + buf[at + 1] * 8 > end:
            return None
        if buf[at] in (SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS) and buf[at + 1] == 1:
            found[buf[at]] = bytes(buf[at + 2 : at + 8])
        at += buf[at + 1] * 8
    return found


def build_solicitation(mac: bytes, source: bytes, target: bytes, to_mac: bytes | None = None) -> bytearray:
    """A frame that asks who has `target`: of all who might, or, with `to_mac`, of the one that had it."""
    dst = target if to_mac is not None else solicited_node(target)
    eth = (to_mac or group_mac(dst)) + mac + _IPV6_TYPE
    return build_message(eth, source, dst, NEIGHBOUR_SOLICITATION, 0,
                         bytes(4) + target + bytes((SOURCE_LINK_ADDRESS, 1)) + mac, hop_limit=_HOP_LIMIT)


def build_advertisement(asked: NdMessage, asker_mac: bytes, mac: bytes, *, router: bool) -> bytearray:
    """The frame that answers a solicitation: its target is at `mac`. A probe is answered to all (RFC 4861 section 7.2.4)."""
    dst, to_mac, flags = asked.src, asked.mac or asker_mac, _SOLICITED | _OVERRIDE
    if asked.is_probe:
        dst, to_mac, flags = ALL_NODES, group_mac(ALL_NODES), _OVERRIDE
    rest = bytes((flags | (_ROUTER if router else 0), 0, 0, 0)) + asked.target + bytes((TARGET_LINK_ADDRESS, 1)) + mac
    return build_message(to_mac + mac + _IPV6_TYPE, asked.target, dst, NEIGHBOUR_ADVERTISEMENT, 0, rest, hop_limit=_HOP_LIMIT)


def build_router_advertisement(mac: bytes, source: bytes, prefix: IPv6Network, mtu: int, lifetime_s: int, *,
                               to: bytes = ALL_NODES, to_mac: bytes | None = None) -> bytearray:
    """A frame that offers its sender, link-local address `source`, as default router for `lifetime_s` seconds.

    The prefix is on the link, and a host may make itself an address of it (RFC 4862) if it is 64 bits long.
    """
    flags = _ON_LINK | (_AUTONOMOUS if prefix.prefixlen == 64 else 0)
    rest = (_ROUTER_HEAD.pack(64, 0, lifetime_s, 0, 0)
            + bytes((SOURCE_LINK_ADDRESS, 1)) + mac
            + _MTU_OPTION.pack(_MTU, 1, 0, mtu)
            + _PREFIX.pack(_PREFIX_INFORMATION, 4, prefix.prefixlen, flags, VALID_LIFETIME_S, PREFERRED_LIFETIME_S,
                           prefix.network_address.packed))
    eth = (to_mac or group_mac(to)) + mac + _IPV6_TYPE
    return build_message(eth, source, to, ROUTER_ADVERTISEMENT, 0, rest, hop_limit=_HOP_LIMIT)
