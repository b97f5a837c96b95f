"""Two peers behind NATs introduce themselves to a server and then try to talk directly (RFC 5128 section 3.3).

    pytest docs/examples/test_hole_punching.py
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP

from natgw.datapath import PRESETS
from natgw.testing import SimulatedGateway, Wire

SERVER, SERVER_PORT = "203.0.113.9", 3478
PEERS = {"a/alice": 5000, "b/bob": 6000}
"""Each peer, by its gateway and its name there, with the port it has at home."""


def two_homes(here: str, there: str) -> Wire:
    """Alice behind one NAT, Bob behind another, the server in the open."""
    return Wire({"a": SimulatedGateway(PRESETS[here], containers=["alice"], external=["198.51.100.2"]),
                 "b": SimulatedGateway(PRESETS[there], containers=["bob"], external=["198.51.100.3"])},
                hosts={"server": SERVER})


def datagram(wire: Wire, peer: str, to: tuple[str, int], text: bytes) -> IP:
    return IP(src=wire.address(peer), dst=to[0]) / UDP(sport=PEERS[peer], dport=to[1]) / text


def introduce(wire: Wire, peer: str) -> tuple[str, int]:
    """Tell the server who is there; gives what the server sees, and will tell the other peer."""
    (seen,) = wire.send(peer, datagram(wire, peer, (SERVER, SERVER_PORT), b"here I am"))
    return seen.packet.src, seen.packet.sport


def punch(wire: Wire, rounds: int = 3) -> set[str]:
    """Both send to where the server saw the other, or to where they heard it from; gives who has heard the other."""
    alice, bob = PEERS
    goals = {alice: introduce(wire, bob), bob: introduce(wire, alice)}
    heard = set()
    for _ in range(rounds):
        for sender in PEERS:
            for each in wire.send(sender, datagram(wire, sender, goals[sender], b"hello")):
                heard.add(each.to)
                goals[each.to] = each.packet.src, each.packet.sport
        wire.advance(0.5)
    return heard


def test_two_restricted_cones() -> None:
    assert punch(two_homes("restricted-cone", "restricted-cone")) == set(PEERS)


def test_two_symmetric_nats() -> None:
    wire = two_homes("symmetric", "symmetric")
    assert punch(wire) == set()
    assert all(gateway.counters["drop_no_mapping"] + gateway.counters["drop_filtered"] for gateway in wire.gateways.values())


@pytest.mark.parametrize("here", ["full-cone", "restricted-cone", "port-restricted", "symmetric"])
@pytest.mark.parametrize("there", ["full-cone", "restricted-cone", "port-restricted", "symmetric"])
def test_any_two(here: str, there: str) -> None:
    """The rule: a symmetric NAT's next port cannot be known, so whoever is behind the other must let anybody's port in."""
    hopeless = {frozenset(("symmetric",)), frozenset(("symmetric", "port-restricted"))}
    assert (punch(two_homes(here, there)) == set(PEERS)) == (frozenset((here, there)) not in hopeless)
