"""Internet checksums: computed (RFC 1071), and adjusted without the data (RFC 1624).

Python's big integers do the sum: 2**16 is 1 modulo 65535, so a whole header read as one number and taken modulo 65535 is
the end-around-carry sum of its 16-bit words. One division in C replaces a loop over words in Python.
"""

from __future__ import annotations

from collections.abc import Iterable

Buffer = bytes | bytearray | memoryview


def ones_sum(data: Buffer) -> int:
    """The folded 16-bit one's complement sum of `data`; an odd last byte is padded with zero (RFC 1071 section 1).

    Of the two forms of zero, 0xFFFF is given unless all bytes are zero, as adding the words one by one would.
    """
    value = int.from_bytes(data, "big")
    if len(data) & 1:
        value <<= 8
    if value == 0:
        return 0
    return value % 0xFFFF or 0xFFFF


def checksum(*parts: Buffer) -> int:
    """The value for a checksum field that covers `parts`; each but the last must have an even length."""
    return fold(sum(map(ones_sum, parts))) ^ 0xFFFF


def fold(value: int) -> int:
    """Add the carries back in until 16 bits are left."""
    while value > 0xFFFF:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def delta(old: Buffer, new: Buffer) -> int:
    """What `adjust` adds when `old` becomes `new` under a checksum: the folded sum of ~old and new (RFC 1624 eq. 3).

    Both must have the same even length, and lie at an even offset of what is summed.
    """
    return fold((ones_sum(old) ^ 0xFFFF) + ones_sum(new))


def combine(deltas: Iterable[int]) -> int:
    """One delta that does the work of several."""
    return fold(sum(deltas))


def adjust(field: int, change: int) -> int:
    """A checksum field after `change`: HC' = ~(~HC + ~m + m'), RFC 1624 eq. 3."""
    value = (field ^ 0xFFFF) + change
    return ((value & 0xFFFF) + (value >> 16)) ^ 0xFFFF


def adjust_partial(field: int, change: int) -> int:
    """The same for a field that holds an uncomplemented sum, as with VIRTIO_NET_HDR_F_NEEDS_CSUM."""
    value = field + change
    return (value & 0xFFFF) + (value >> 16)


def pseudo_sum(addresses: Buffer, protocol: int, length: int) -> int:
    """The folded, uncomplemented sum of a pseudo-header (RFC 9293 section 3.1): addresses, protocol, upper length."""
    return fold(ones_sum(addresses) + protocol + (length >> 16) + (length & 0xFFFF))
