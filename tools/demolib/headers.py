"""One packet seen twice: before natgw translated it and after, by packet sockets on both sides.

The packet is a TCP SYN: its sequence number, which no translation here changes, says which two belong together.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from rich.table import Table
from rich.text import Text

from natgw.host.netns import run_inside

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_CSUMNOTREADY = 1 << 3
SYN, ACK = 0x02, 0x10


@dataclass(frozen=True)
class Syn:
    """The header fields of a TCP SYN over IPv4 and Ethernet, as text in the order they are sent."""

    sequence: int
    fields: dict[str, str]

    @classmethod
    def parse(cls, frame: bytes, checksum_unfinished: bool) -> Syn | None:
        """None for anything but a SYN without ACK."""
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
            return None
        tcp = 14 + (frame[14] & 0x0F) * 4
        if frame[tcp + 13] & (SYN | ACK) != SYN:
            return None
        length, identification, ttl = struct.unpack_from("!2xHH2xB", frame, 14)
        ip_checksum, source, destination = struct.unpack_from("!H4s4s", frame, 24)
        sport, dport, sequence = struct.unpack_from("!HHI", frame, tcp)
        (tcp_checksum,) = struct.unpack_from("!H", frame, tcp + 16)
        return cls(
            sequence,
            {
                "Ethernet destination": frame[0:6].hex(":"),
                "Ethernet source": frame[6:12].hex(":"),
                "IP total length": str(length),
                "IP identification": str(identification),
                "IP time to live": str(ttl),
                "IP header checksum": f"{ip_checksum:04x}",
                "IP source": str(IPv4Address(source)),
                "IP destination": str(IPv4Address(destination)),
                "TCP source port": str(sport),
                "TCP destination port": str(dport),
                "TCP sequence number": str(sequence),
                "TCP checksum": f"{tcp_checksum:04x}" + (" (partial)" if checksum_unfinished else ""),
            },
        )


def catch(before: Path, after: Path, provoke: Callable[[], None]) -> tuple[Syn, Syn]:
    """A SYN that `provoke()` causes, as eth0 saw it in the namespaces `before` and `after` the translation.

    LookupError if no SYN was seen on both sides.
    """
    with run_inside(str(before), listen, "eth0") as first, run_inside(str(after), listen, "eth0") as second:
        provoke()
        translated = {syn.sequence: syn for syn in syns(second)}
        for syn in syns(first):
            if syn.sequence in translated:
                return syn, translated[syn.sequence]
    raise LookupError("no SYN was seen on both sides of the gateway")


def listen(interface: str) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    listener.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    listener.bind((interface, ETH_P_ALL))
    listener.setblocking(False)
    return listener


def syns(listener: socket.socket) -> Iterator[Syn]:
    """What has arrived so far; a provoked exchange that is over has left all its packets in the queue."""
    while True:
        try:
            frame, ancillary, _, _ = listener.recvmsg(2048, socket.CMSG_SPACE(20))
        except BlockingIOError:
            return
        # With checksum offload a packet carries the sum of its pseudo-header only, for the next real link to finish.
        unfinished = any(struct.unpack_from("=I", data)[0] & TP_STATUS_CSUMNOTREADY for _, _, data in ancillary)
        if syn := Syn.parse(frame, unfinished):
            yield syn


def side_by_side(before: Syn, after: Syn, before_title: str, after_title: str) -> Table:
    """Both headers, field by field; what the gateway changed stands out in colour and by an arrow."""
    table = Table("field", before_title, "", after_title)
    for name, old in before.fields.items():
        new = after.fields[name]
        if new == old:
            table.add_row(Text(name, "dim"), Text(old, "dim"), "", Text(new, "dim"))
        else:
            table.add_row(Text(name), Text(old, "bold red"), "→", Text(new, "bold green"))
    return table
