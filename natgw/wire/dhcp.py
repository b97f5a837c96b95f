"""DHCP messages (RFC 2131 section 2, options of RFC 2132).

     0     1     2     3     4           8      10      12       16       20       24       28
    +-----+-----+-----+-----+-----------+------+-------+--------+--------+--------+--------+-------------
    | op  |htype|hlen |hops | xid       | secs | flags | ciaddr | yiaddr | siaddr | giaddr | chaddr (16)
    +-----+-----+-----+-----+-----------+------+-------+--------+--------+--------+--------+-------------
     44            108            236          240
    +-------------+--------------+------------+----------------------------------------------------------
    | sname (64)  | file (128)   | 63 82 53 63| options: code, length, value ...; 0 pads, 255 ends
    +-------------+--------------+------------+----------------------------------------------------------

A long option comes in parts that belong together (RFC 3396), and option 52 says that `file` and `sname` hold options too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

SERVER_PORT, CLIENT_PORT = 67, 68
REQUEST_OP, REPLY_OP = 1, 2
_ETHERNET = (1, 6)
BROADCAST_FLAG = 0x8000
COOKIE = b"\x63\x82\x53\x63"
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
SMALLEST_BYTES = 300
"""Of a BOOTP message (RFC 951); some clients and relays drop what is shorter."""
LARGEST_OPTION_BYTES = 255
ZERO = bytes(4)

PAD, SUBNET_MASK, ROUTER, DNS, HOST_NAME, INTERFACE_MTU, BROADCAST_ADDRESS = 0, 1, 3, 6, 12, 26, 28
REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE, SERVER_ID = 50, 51, 52, 53, 54
PARAMETERS, MESSAGE, RENEWAL_TIME, REBINDING_TIME, CLIENT_ID, END = 55, 56, 58, 59, 61, 255


class Kind(IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, kw_only=True)
class DhcpMessage:
    """Addresses are raw bytes, 4 and 6 long; options are raw values by their code, without 52 and 53."""

    op: int
    kind: Kind
    xid: int
    chaddr: bytes
    flags: int = 0
    ciaddr: bytes = ZERO
    yiaddr: bytes = ZERO
    siaddr: bytes = ZERO
    giaddr: bytes = ZERO
    options: Mapping[int, bytes] = field(default_factory=dict)

    def address(self, code: int) -> bytes | None:
        """An option that is one address; None if it is not there, or no address."""
        value = self.options.get(code)
        return value if value is not None and len(value) == 4 else None

    def number(self, code: int) -> int | None:
        """An option that is a 32-bit number."""
        value = self.address(code)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def wants_broadcast(self) -> bool:
        return bool(self.flags & BROADCAST_FLAG)


def parse_dhcp(data: bytes) -> DhcpMessage | None:
    """The message in a datagram; None for what is cut short, of another link than Ethernet, or of no known kind."""
    if len(data) < _HEADER.size:
        return None
    op, htype, hlen, _, xid, _, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie = _HEADER.unpack_from(data)
    if op not in (REQUEST_OP, REPLY_OP) or (htype, hlen) != _ETHERNET or cookie != COOKIE:
        return None
    options: dict[int, bytes] = {}
    try:
        _collect(data[_HEADER.size :], options)
        overload = options.pop(OVERLOAD, b"\0")[-1:]
        if overload in (b"\1", b"\3"):
            _collect(file, options)
        if overload in (b"\2", b"\3"):
            _collect(sname, options)
        options.pop(OVERLOAD, None)
        kind = Kind(int.from_bytes(options.pop(MESSAGE_TYPE), "big"))
    except (IndexError, KeyError, ValueError):
        return None
    return DhcpMessage(op=op, kind=kind, xid=xid, chaddr=chaddr[:6], flags=flags, ciaddr=ciaddr, yiaddr=yiaddr,
                       siaddr=siaddr, giaddr=giaddr, options=options)


def _collect(area: bytes, options: dict[int, bytes]) -> None:
    """Add the options of one area. Raises IndexError if one reaches beyond it."""
    at = 0
    while at < len(area) and area[at] != END:
        code = area[at]
        at += 1
        if code == PAD:
            continue
        length = area[at]
        at += 1
        if at + length > len(area):
            raise IndexError("option beyond its area")
        options[code] = options.get(code, b"") + area[at : at + length]
        at += length


def build_dhcp(message: DhcpMessage) -> bytes:
    """The bytes of a message; its kind is the first option, the others come in the order they have."""
    header = _HEADER.pack(message.op, *_ETHERNET, 0, message.xid, 0, message.flags, message.ciaddr, message.yiaddr,
                          message.siaddr, message.giaddr, message.chaddr.ljust(16, b"\0"), bytes(64), bytes(128), COOKIE)
    options = b"".join(_parts(MESSAGE_TYPE, bytes((message.kind,))))
    for code, value in message.options.items():
        options += b"".join(_parts(code, value))
    return (header + options + bytes((END,))).ljust(SMALLEST_BYTES, b"\0")


def _parts(code: int, value: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(value), 1), LARGEST_OPTION_BYTES):
        part = value[start : start + LARGEST_OPTION_BYTES]
        yield bytes((code, len(part))) + part
