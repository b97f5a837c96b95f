"""Ethernet II, and where things lie in natgw's buffers.

     0            6            12    14
    +------------+------------+-----+---------
    | destination| source     | type| payload
    +------------+------------+-----+---------
"""

from __future__ import annotations

from natgw.wire.vnet import VNET_BYTES

ETH = VNET_BYTES
"""Offset of the Ethernet header in a buffer."""
ETH_BYTES = 14
L3 = ETH + ETH_BYTES
"""Offset of what Ethernet carries."""

TYPE_IPV4 = 0x0800
TYPE_ARP = 0x0806
TYPE_IPV6 = 0x86DD
FIRST_ETHERTYPE = 0x0600
"""Below it the field is a length, and the frame an LLC one (IEEE 802.3 clause 3.2.6)."""

BROADCAST = b"\xff" * 6
ZERO_MAC = bytes(6)
RESERVED_GROUP_PREFIX = b"\x01\x80\xc2\x00\x00"
"""01-80-C2-00-00-00 to -0F belong to the link itself and are never forwarded (IEEE 802.1D table 7-10)."""


def is_group(mac: bytes) -> bool:
    """Whether a destination means several stations: multicast or broadcast."""
    return bool(mac[0] & 1)


def is_link_reserved(mac: bytes) -> bool:
    """Whether a bridge must keep frames to this address off its other ports (IEEE 802.1D section 7.12.6)."""
    return mac[:5] == RESERVED_GROUP_PREFIX and mac[5] <= 0x0F


def mac_text(mac: bytes) -> str:
    """`02:42:ac:11:00:02`, as Docker and iproute2 write it."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """The six bytes of `02:42:ac:11:00:02` (or with dashes). Raises ValueError for anything else."""
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) in (1, 2) for part in parts):
        raise ValueError(f"{text!r} is not a MAC address such as 02:42:ac:11:00:02")
    try:
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address such as 02:42:ac:11:00:02") from None
