"""The protocols above IP that are translated beside TCP, UDP and ICMP: what of them has ports, and what a checksum covers.

| | ports | checksum |
|---|---|---|
| UDP-Lite (RFC 3828) | as UDP | as UDP's, but over as many bytes as its third word says, 0 being all; never none |
| DCCP (RFC 4340) | as UDP | as UDP's, likewise over a part |
| SCTP (RFC 9260) | as UDP | CRC32c of the whole packet; no pseudo-header |
| any other | none | none that covers addresses |

A part that is covered always has the ports and, in the pseudo-header, the addresses. So the adjustment of RFC 1624 is right for
UDP-Lite and DCCP as it is for UDP, whatever the coverage; only the addresses of what has no ports change.

SCTP's CRC is linear: what a change of ports does to it depends on the bytes that change and on where they are, not on the
others. The difference is added, rather than a new CRC computed, so that a packet which was damaged on its way stays damaged
(as RFC 1624 has it for the other checksum). A fragment does not have all that the CRC covers: its ports cannot be changed.
"""

from __future__ import annotations

DCCP = 33
GRE = 47
SCTP = 132
UDPLITE = 136

WITH_PORTS = {UDPLITE: 8, DCCP: 12, SCTP: 12}
"""The protocols of this module that have ports, and the bytes of their headers at the least."""
CHECKSUM_OFFSETS = {UDPLITE: 6, DCCP: 6}
NAMES = {SCTP: "sctp", UDPLITE: "udplite", DCCP: "dccp", GRE: "gre"}
SCTP_CHECKSUM = 8
"""Where SCTP's 4 bytes of checksum lie in its header; their first is the lowest (RFC 9260 appendix A)."""


def has_sound_header(protocol: int, header: bytes | bytearray, length: int, *, is_first_fragment: bool, partial: bool) -> bool:
    """Whether the head of a datagram of `length` bytes can be what it says; nobody would take it otherwise.

    `header` has at least the bytes that `WITH_PORTS` names. A checksum that is `partial` is not finished.
    """
    if protocol == UDPLITE:
        coverage = int.from_bytes(header[4:6], "big")
        covers = coverage == 0 or (coverage >= 8 and (coverage <= length or is_first_fragment))
        return covers and (partial or header[6:8] != b"\0\0")  # RFC 3828 section 3.1
    if protocol == DCCP:
        data_offset = header[4] * 4
        return WITH_PORTS[DCCP] <= data_offset and (data_offset <= length or is_first_fragment)
    return True


def set_sctp_ports(message: bytearray, start: int, end: int, ports: bytes) -> None:
    """Give the whole SCTP packet in `message[start:end]` its 4 bytes of ports, and the checksum that follows."""
    if message[start : start + 4] == ports:
        return
    view = memoryview(message)
    before = crc32c(view[start:end])
    message[start : start + 4] = ports
    field = start + SCTP_CHECKSUM
    # Equal fields in both sums cancel out, so that the old one may stand while they are made.
    changed = int.from_bytes(message[field : field + 4], "little") ^ before ^ crc32c(view[start:end])
    message[field : field + 4] = changed.to_bytes(4, "little")


def crc32c(data: memoryview) -> int:
    """SCTP's checksum. The library comes with the first packet that has one: most gateways never see it."""
    from crc32c import crc32c as checksum

    found: int = checksum(data)
    return found


def finish_sctp_checksum(message: bytearray, start: int, end: int) -> None:
    """Compute the checksum of a packet whose sender left that to its network card."""
    field = start + SCTP_CHECKSUM
    message[field : field + 4] = bytes(4)
    message[field : field + 4] = crc32c(memoryview(message)[start:end]).to_bytes(4, "little")
