"""The demonstration's view of a packet agrees with scapy's."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from tools.demolib.headers import Syn, side_by_side

ETHER = Ether(dst="02:42:ac:11:00:01", src="02:42:ac:11:00:02")


def test_every_field_reads_as_scapy_reads_it() -> None:
    packet = ETHER / IP(src="172.17.0.2", dst="198.51.100.1", ttl=64, id=7) / TCP(sport=41000, dport=80, seq=99)
    syn = Syn.parse(bytes(packet), checksum_unfinished=False)
    read = Ether(bytes(packet))
    assert syn == Syn(
        99,
        {
            "Ethernet destination": read.dst,
            "Ethernet source": read.src,
            "IP total length": "40",
            "IP identification": "7",
            "IP time to live": "64",
            "IP header checksum": f"{read[IP].chksum:04x}",
            "IP source": "172.17.0.2",
            "IP destination": "198.51.100.1",
            "TCP source port": "41000",
            "TCP destination port": "80",
            "TCP sequence number": "99",
            "TCP checksum": f"{read[TCP].chksum:04x}",
        },
    )


def test_an_unfinished_checksum_is_said_to_be_one() -> None:
    syn = Syn.parse(bytes(ETHER / IP() / TCP()), checksum_unfinished=True)
    assert syn is not None
    assert syn.fields["TCP checksum"].endswith("(partial)")


@pytest.mark.parametrize(
    "packet",
    [ETHER / IP() / TCP(flags="SA"), ETHER / IP() / TCP(flags="A"), ETHER / IP() / UDP() / bytes(40), ETHER / ARP()],
    ids=["syn-ack", "ack", "udp", "arp"],
)
def test_nothing_else_is_a_syn(packet: Ether) -> None:
    assert Syn.parse(bytes(packet), checksum_unfinished=False) is None


def test_an_arrow_marks_what_changed() -> None:
    first = Syn(1, {"IP source": "172.17.0.2", "TCP destination port": "80"})
    second = Syn(1, {"IP source": "198.51.100.2", "TCP destination port": "80"})
    table = side_by_side(first, second, "before", "after")
    assert [str(cell) for cell in table.columns[2].cells] == ["→", ""]
