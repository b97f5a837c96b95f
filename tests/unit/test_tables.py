"""The tables alone, with time as an argument: fdb, neighbours, flows, routes, rate limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.tables.fdb import AGEING_S, Fdb, Learned
from natgw.tables.flows import Flow, Leg, Mapping, Realm, leg_key
from natgw.tables.flowtable import FlowTable
from natgw.tables.neigh import (
    MAX_QUEUED_BYTES,
    MAX_TRIES,
    QUEUED_FRAME_BYTES,
    REACHABLE_S,
    RETRY_S,
    UNUSED_S,
    Neighbour,
    NeighbourTable,
)
from natgw.tables.neigh import NeighbourState as State
from natgw.tables.ratelimit import ErrorLimiter, TokenBucket
from natgw.tables.routes import RouteTable
from natgw.wire.ipv4 import ICMP, TCP, UDP

# -- forwarding database ---------------------------------------------------------------------------------------------


def mac(number: int) -> bytes:
    return number.to_bytes(6, "big")


@pytest.mark.requirement("B1")
def test_a_station_is_found_where_it_was_heard() -> None:
    fdb: Fdb[str] = Fdb(8)
    assert fdb.lookup(mac(2), 0.0) is None
    assert fdb.learn(mac(2), "p", 0.0) is Learned.NEW
    assert fdb.learn(mac(2), "p", 1.0) is Learned.KNOWN
    assert fdb.lookup(mac(2), 1.0) == "p"
    assert len(fdb) == 1


@pytest.mark.requirement("B2")
def test_a_station_moves_with_the_first_frame() -> None:
    fdb: Fdb[str] = Fdb(8)
    fdb.learn(mac(2), "p", 0.0)
    assert fdb.learn(mac(2), "q", 0.1) is Learned.MOVED
    assert fdb.lookup(mac(2), 0.1) == "q"
    assert len(fdb) == 1


@pytest.mark.requirement("B3")
def test_a_station_is_forgotten_300_seconds_after_it_was_last_heard() -> None:
    fdb: Fdb[str] = Fdb(8)
    fdb.learn(mac(2), "p", 0.0)
    fdb.learn(mac(4), "q", 10.0)
    fdb.learn(mac(2), "p", 100.0)
    assert AGEING_S == 300
    assert fdb.lookup(mac(4), 309.9) == "q"
    assert fdb.lookup(mac(4), 310.0) is None, "aged out, though nobody has cleaned up yet"
    assert fdb.expire(310.0) == 1
    assert fdb.lookup(mac(2), 399.9) == "p"
    assert fdb.expire(400.0) == 1
    assert len(fdb) == 0
    for number in (2, 4, 6):
        fdb.learn(mac(number), "p", 500.0 + number)
    assert fdb.expire(804.5) == 2
    assert fdb.lookup(mac(6), 804.5) == "p"


@pytest.mark.requirement("B6")
def test_a_full_table_learns_nobody_and_forgets_nobody() -> None:
    fdb: Fdb[str] = Fdb(2)
    fdb.add_static(mac(0), "gateway")
    fdb.learn(mac(2), "p", 0.0)
    fdb.learn(mac(4), "p", 1.0)
    for number in range(10, 1000, 2):
        assert fdb.learn(mac(number), "flood", 2.0) is Learned.REFUSED_FULL
    assert fdb.lookup(mac(2), 2.0) == fdb.lookup(mac(4), 2.0) == "p"
    assert fdb.lookup(mac(0), 2.0) == "gateway"
    assert fdb.learn(mac(2), "q", 3.0) is Learned.MOVED, "a known station moves also when the table is full"
    fdb.expire(301.0)
    assert fdb.learn(mac(10), "flood", 301.0) is Learned.NEW


@pytest.mark.requirement("B6")
def test_a_static_station_neither_ages_nor_moves() -> None:
    fdb: Fdb[str] = Fdb(8)
    fdb.learn(mac(2), "p", 0.0)
    fdb.add_static(mac(2), "gateway")
    assert len(fdb) == 1
    assert fdb.learn(mac(2), "p", 1.0) is Learned.REFUSED_STATIC
    assert fdb.learn(mac(2), "gateway", 1.0) is Learned.KNOWN
    assert fdb.expire(1e9) == 0
    assert fdb.lookup(mac(2), 1e9) == "gateway"


def test_a_port_that_goes_takes_its_stations_along() -> None:
    fdb: Fdb[str] = Fdb(8)
    fdb.add_static(mac(0), "p")
    fdb.learn(mac(2), "p", 0.0)
    fdb.learn(mac(4), "q", 0.0)
    fdb.forget_port("p")
    assert [(entry.mac, entry.port, entry.static) for entry in fdb.entries()] == [(mac(4), "q", False)]


# -- neighbours ------------------------------------------------------------------------------------------------------

IP1, IP2 = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


@dataclass
class Segment:
    """A neighbour table and what it asked for and gave up."""

    asked: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    failed: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    max_entries: int = 8

    def __post_init__(self) -> None:
        self.table: NeighbourTable[str] = NeighbourTable(
            self.max_entries, lambda entry, to_mac: self.asked.append((entry.ip, to_mac)),
            lambda entry, frames: self.failed.append((entry.ip, frames)))

    def resolve(self, ip: bytes, now: float) -> Neighbour[str]:
        entry = self.table.resolve(ip, now)
        assert entry is not None
        return entry

    def known(self, ip: bytes, now: float, port: str = "p") -> Neighbour[str]:
        entry = self.table.confirm(ip, mac(2), port, now, create=True)
        assert entry is not None
        return entry

    def state(self, entry: Neighbour[str]) -> State:
        return entry.state

    def run(self, start: float, end: float) -> None:
        """Tick every second, as the daemon does."""
        for second in range(int(start), int(end) + 1):
            self.table.tick(float(second))


def test_a_neighbour_is_asked_for_until_it_answers() -> None:
    segment = Segment()
    entry = segment.resolve(IP1, 0.0)
    assert segment.state(entry) is State.INCOMPLETE and segment.asked == [(IP1, None)]
    assert segment.resolve(IP1, 0.2) is entry
    assert segment.asked == [(IP1, None)], "one request a second, however many packets wait"
    segment.table.tick(0.9)
    assert len(segment.asked) == 1
    segment.table.tick(RETRY_S)
    assert segment.asked == [(IP1, None)] * 2
    assert segment.table.confirm(IP1, mac(2), "p", 1.5, create=False) is entry
    assert (entry.state, entry.mac, entry.port) == (State.REACHABLE, mac(2), "p")
    segment.run(2, 50)
    assert len(segment.asked) == 2


def test_a_neighbour_that_never_answers_has_failed_with_what_waited() -> None:
    segment = Segment()
    entry = segment.resolve(IP1, 0.0)
    assert entry.queue.add(b"frame") == 0
    segment.run(1, 2)
    assert segment.state(entry) is State.INCOMPLETE and not segment.failed
    segment.run(3, 3)
    assert segment.state(entry) is State.FAILED
    assert segment.failed == [(IP1, [b"frame"])]
    assert len(segment.asked) == MAX_TRIES
    assert not entry.queue
    segment.resolve(IP1, 4.0)
    assert segment.state(entry) is State.INCOMPLETE and len(segment.asked) == MAX_TRIES + 1, "the next packet tries again"


def test_a_failed_neighbour_is_forgotten_unless_flows_use_it() -> None:
    segment = Segment()
    idle, used = segment.resolve(IP1, 0.0), segment.resolve(IP2, 0.0)
    used.flows = 1
    segment.run(1, 3 + int(REACHABLE_S))
    assert segment.table.get(IP1) is None and segment.state(idle) is State.FAILED
    assert segment.table.get(IP2) is used


def test_a_neighbour_in_use_is_probed_where_it_was() -> None:
    segment = Segment()
    entry = segment.known(IP1, 0.0)
    entry.flows = 1
    segment.run(1, 59)
    assert not segment.asked
    segment.run(60, 60)
    assert segment.state(entry) is State.PROBE and segment.asked == [(IP1, mac(2))]
    segment.table.confirm(IP1, mac(2), "p", 60.5, create=False)
    assert segment.state(entry) is State.REACHABLE
    segment.run(61, 120)
    assert segment.state(entry) is State.REACHABLE
    segment.run(121, 130)
    assert segment.state(entry) is State.FAILED and entry.transmit is None
    assert segment.asked[1:] == [(IP1, mac(2))] * MAX_TRIES


def test_a_neighbour_nobody_uses_is_forgotten_quietly() -> None:
    segment = Segment()
    segment.known(IP1, 0.0)
    segment.run(1, int(UNUSED_S) - 1)
    assert segment.table.get(IP1) is not None
    segment.run(int(UNUSED_S), int(UNUSED_S))
    assert segment.table.get(IP1) is None
    assert not segment.asked and not segment.failed


def test_an_address_nobody_asked_for_gets_an_entry_only_on_request() -> None:
    segment = Segment()
    assert segment.table.confirm(IP1, mac(2), "p", 0.0, create=False) is None
    assert segment.table.get(IP1) is None


def test_a_pinned_address_cannot_be_claimed_from_another_port() -> None:
    segment = Segment()
    entry = segment.known(IP1, 0.0)
    entry.pinned = True
    assert segment.table.confirm(IP1, mac(6), "q", 1.0, create=True) is None
    assert (entry.mac, entry.port) == (mac(2), "p")
    assert segment.table.confirm(IP1, mac(6), "p", 1.0, create=True) is entry
    segment.run(2, 2000)
    assert segment.table.get(IP1) is entry, "nor is it ever forgotten"


def test_frames_that_wait_are_the_newest() -> None:
    segment = Segment()
    entry = segment.resolve(IP1, 0.0)
    frames = [number.to_bytes(2, "big") * 500 for number in range(MAX_QUEUED_BYTES // (1000 + QUEUED_FRAME_BYTES) + 5)]
    assert [entry.queue.add(frame) for frame in frames] == [0] * (len(frames) - 5) + [1] * 5
    segment.run(1, 3)
    assert segment.failed == [(IP1, frames[5:])]


def test_what_waits_is_bounded_by_bytes_and_the_last_frame_always_waits() -> None:
    entry = Segment().resolve(IP1, 0.0)
    assert [entry.queue.add(bytes(65_000)) for _ in range(4)] == [0, 0, 0, 1]
    assert entry.queue.add(bytes(400_000)) == 3 and len(entry.queue) == 1
    assert entry.queue.add(b"short") == 1
    assert entry.queue.take() == [b"short"] and len(entry.queue) == 0
    full = MAX_QUEUED_BYTES - QUEUED_FRAME_BYTES
    assert [entry.queue.add(bytes(full)), entry.queue.add(bytes(1))] == [0, 1], "to the byte, and taken frames count no more"


def test_a_full_table_refuses_and_counts() -> None:
    segment = Segment(max_entries=1)
    segment.known(IP1, 0.0)
    assert segment.table.resolve(IP2, 0.0) is None
    assert segment.table.confirm(IP2, mac(4), "p", 0.0, create=True) is None
    assert segment.table.refused == 2
    assert [entry.ip for entry in segment.table.entries()] == [IP1]


def test_a_storm_of_arp_does_not_fill_the_timers() -> None:
    segment = Segment()
    for step in range(1000):
        segment.known(IP1, step / 100)
    assert segment.table.next_deadline() == REACHABLE_S
    segment.table.tick(REACHABLE_S)
    assert segment.table.next_deadline() == pytest.approx(9.99 + REACHABLE_S)


def test_what_leaves_the_table_sends_no_more() -> None:
    segment = Segment()
    removed, at_port, cleared = segment.known(IP1, 0.0), segment.known(IP2, 0.0, "q"), segment.known(bytes(4), 0.0)
    for entry in (removed, at_port, cleared):
        entry.transmit = print
        entry.queue.add(b"x")
    assert segment.table.remove(IP1) is removed
    assert segment.table.remove(IP1) is None
    segment.table.forget_port("q")
    assert segment.table.entries() == [cleared]
    segment.table.clear()
    assert segment.table.entries() == [] and segment.table.next_deadline() is None
    for entry in (removed, at_port, cleared):
        assert (entry.transmit, entry.state, len(entry.queue)) == (None, State.FAILED, 0)


# -- flows -----------------------------------------------------------------------------------------------------------


@dataclass
class Flows:
    """A flow table with one realm for each side, and the flows that ended, in order."""

    max_flows: int = 1000
    ended: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = FlowTable(self.max_flows, self.ended.append)
        self.inside, self.outside = Realm(), Realm()
        self.hop: Neighbour[str] = Neighbour(IP1, 0.0)

    def add(self, port: int, now: float, timeout_s: float, protocol: int = UDP, mapping: Mapping | None = None) -> Flow:
        out = leg_key(IP1, IP2, port, 53)
        back = leg_key(IP2, IP1, 53, port)
        flow = Flow(protocol, Leg(out, out, self.inside, self.hop), Leg(back, back, self.outside, self.hop), mapping, "n",
                    "outbound")
        flow.timeout_s = timeout_s
        self.table.add(flow, now)
        return flow


def test_a_key_is_twelve_bytes_as_a_packet_has_them() -> None:
    assert leg_key(IP1, IP2, 0x1234, 0x0050) == IP1 + IP2 + b"\x12\x34\x00\x50"


def test_a_realm_keeps_protocols_apart() -> None:
    realm = Realm()
    assert [realm.of(TCP) is realm.tcp, realm.of(UDP) is realm.udp, realm.of(ICMP) is realm.icmp] == [True] * 3
    assert realm.of(47) is realm.of(47)
    assert realm.of(47) is not realm.of(50)


def test_a_flow_is_found_by_its_legs_until_it_is_removed() -> None:
    flows = Flows()
    mapping = Mapping(UDP, IP1 + b"\x13\x88", IP2 + b"\x13\x88")
    flows.table.add_mapping(mapping)
    flow = flows.add(5000, 0.0, 30, mapping=mapping)
    assert flows.inside.udp[flow.original.key] is flow.original and flows.outside.udp[flow.reply.key] is flow.reply
    assert flow.other(flow.original) is flow.reply and flow.other(flow.reply) is flow.original
    assert (len(flows.table), len(flows.inside), mapping.flows, flows.hop.flows) == (1, 1, 1, 2)
    assert flows.table.mapping_at(UDP, mapping.external) is mapping
    assert flows.table.mapping_at(TCP, mapping.external) is None
    flows.table.remove(flow)
    flows.table.remove(flow)
    assert flows.ended == [flow]
    assert (len(flows.table), len(flows.inside), len(flows.outside), mapping.flows, flows.hop.flows) == (0, 0, 0, 0, 0)
    flows.table.drop_mapping(mapping)
    assert flows.table.mapping_at(UDP, mapping.external) is None


def test_a_flow_table_says_when_it_is_full() -> None:
    flows = Flows(max_flows=1)
    flow = flows.add(1, 0.0, 30)
    assert flows.table.full is True
    flows.table.remove(flow)
    assert flows.table.full is False


def test_a_leg_can_be_pointed_to_another_hop() -> None:
    flows = Flows()
    flow = flows.add(1, 0.0, 30)
    other: Neighbour[str] = Neighbour(IP2, 0.0)
    flows.table.set_neighbour(flow.reply, other)
    assert (flow.reply.neighbour, flows.hop.flows, other.flows) == (other, 1, 1)


@pytest.mark.requirement("U6")
@given(st.floats(0, 10), st.floats(0.5, 100), st.lists(st.floats(0.01, 40), max_size=8), st.floats(0.05, 3))
def test_a_flow_ends_never_early_and_within_a_second_of_a_tick(
        born: float, timeout_s: float, gaps: list[float], every: float) -> None:
    flows = Flows()
    flows.table.expire(born)
    flow = flows.add(1, born, timeout_s)
    traffic = [born]
    for gap in gaps:
        traffic.append(traffic[-1] + min(gap, timeout_s * 0.9))
    now = born
    while len(flows.table):
        now += every
        while len(traffic) > 1 and traffic[1] <= now:
            traffic.pop(0)
            flow.original.last = traffic[0]
        flows.table.expire(now)
        deadline = traffic[0] + timeout_s
        if len(flows.table):
            assert now < deadline + 1 + every, "a second, and what the ticks are apart"
        else:
            assert now >= deadline


def test_a_flow_older_than_the_first_tick_ends_too() -> None:
    flows = Flows()
    flow = flows.add(1, 5.0, 30)
    flows.table.expire(1000.0)
    flows.table.expire(1001.0)
    assert flows.ended == [flow]


def test_after_a_long_pause_everything_due_ends_at_once_and_the_rest_goes_on() -> None:
    flows = Flows()
    flows.table.expire(0.0)
    due = [flows.add(port, 0.0, 10.0 * (port + 1)) for port in range(5)]
    later = flows.add(100, 0.0, 2e6)
    active = flows.add(101, 0.0, 30.0)
    active.reply.last = 999_990.0
    assert flows.table.expire(1e6) == 5
    assert flows.ended == due, "in the order of their deadlines"
    assert flows.table.expire(1e6 + 19) == 0
    assert flows.table.expire(1e6 + 21) == 1 and flows.ended[-1] is active
    assert flows.table.expire(2e6 + 1) == 1 and flows.ended[-1] is later
    assert len(flows.table) == 0


def test_traffic_either_way_keeps_a_flow() -> None:
    flows = Flows()
    flows.table.expire(0.0)
    flow = flows.add(1, 0.0, 30)
    flow.reply.last = 29.0
    for second in range(59):
        flows.table.expire(float(second))
    assert not flows.ended
    flows.table.expire(60.0)
    assert flows.ended == [flow]


def test_a_shorter_idle_time_counts_at_once_and_a_longer_one_when_it_matters() -> None:
    flows = Flows()
    flows.table.expire(0.0)
    shorter, longer = flows.add(1, 0.0, 7440), flows.add(2, 0.0, 10)
    flows.table.set_timeout(shorter, 20, 0.0)
    flows.table.set_timeout(longer, 40, 0.0)
    for second in range(1, 21):
        flows.table.expire(float(second))
    assert not flows.ended
    flows.table.expire(21.0)
    assert flows.ended == [shorter]
    for second in range(22, 42):
        flows.table.expire(float(second))
    assert flows.ended == [shorter, longer]


def test_the_wheel_lists_every_flow_once() -> None:
    flows = Flows()
    added = [flows.add(port, float(port), 30) for port in range(20)]
    listed = list(flows.table)
    assert len(listed) == 20 and set(listed) == set(added)
    for flow in flows.table:
        flows.table.remove(flow)
    assert len(flows.table) == 0 and not list(flows.table)


# -- routes ----------------------------------------------------------------------------------------------------------


def routes(*entries: tuple[str, str | None]) -> RouteTable:
    return RouteTable((int(IPv4Network(network).network_address), int(IPv4Network(network).netmask),
                       None if gateway is None else IPv4Address(gateway).packed) for network, gateway in entries)


def hop(table: RouteTable, destination: str) -> str | None:
    found = table.next_hop(IPv4Address(destination).packed)
    return None if found is None else str(IPv4Address(found))


@pytest.mark.requirement("G4")
def test_the_longest_prefix_wins() -> None:
    table = routes(("0.0.0.0/0", "192.0.2.1"), ("10.0.0.0/8", "192.0.2.2"), ("10.1.0.0/16", "192.0.2.3"),
                   ("10.1.2.3/32", "192.0.2.4"), ("192.0.2.0/24", None))
    expected = {"8.8.8.8": "192.0.2.1", "10.9.9.9": "192.0.2.2", "10.1.9.9": "192.0.2.3", "10.1.2.3": "192.0.2.4",
                "192.0.2.77": "192.0.2.77"}
    for _ in range(2):  # the second time from memory
        assert {destination: hop(table, destination) for destination in expected} == expected


def test_without_a_route_there_is_no_hop() -> None:
    assert hop(routes(("10.0.0.0/8", None)), "11.0.0.1") is None
    assert hop(routes(), "11.0.0.1") is None


def test_among_equal_prefixes_the_first_given_wins() -> None:
    assert hop(routes(("0.0.0.0/0", "192.0.2.9"), ("0.0.0.0/0", "192.0.2.1")), "8.8.8.8") == "192.0.2.9"


prefixes = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: IPv4Network((pair[0] >> (32 - pair[1]) << (32 - pair[1]), pair[1])))


@given(st.lists(prefixes, max_size=6), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_routing_is_what_ipaddress_says(networks: list[IPv4Network], destinations: Iterable[int]) -> None:
    gateways = {network: str(IPv4Address(0x0A000001 + number)) for number, network in enumerate(dict.fromkeys(networks))}
    table = routes(*((str(network), gateway) for network, gateway in gateways.items()))
    for destination in map(IPv4Address, destinations):
        matching = [network for network in gateways if destination in network]
        expected = gateways[max(matching, key=lambda network: network.prefixlen)] if matching else None
        assert hop(table, str(destination)) == expected


# -- rate limits -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G6")
def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert not bucket.take(0.05)
    assert bucket.take(0.11)
    assert sum(bucket.take(0.11 + step / 100) for step in range(1000)) == pytest.approx(100, abs=1)
    assert [bucket.take(1000.0) for _ in range(5)] == [True] * 3 + [False] * 2, "no more than the burst is saved up"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=10, burst=1, now=100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)


@pytest.mark.requirement("G6")
def test_one_noisy_host_does_not_use_up_the_rest() -> None:
    limiter = ErrorLimiter(0.0, rate=100, burst=20, host_rate=1, host_burst=5)
    assert sum(limiter.allow(IP1, 0.0) for _ in range(100)) == 5
    assert sum(limiter.allow(IP2, 0.0) for _ in range(100)) == 5
    many = [limiter.allow(number.to_bytes(4, "big"), 0.0) for number in range(100)]
    assert sum(many) == 10, "all of them together have 20"


def test_the_hosts_remembered_are_bounded() -> None:
    limiter = ErrorLimiter(0.0, rate=1, burst=10_000, host_rate=0.001, host_burst=1)
    assert limiter.allow(IP1, 0.0) and not limiter.allow(IP1, 0.0)
    for number in range(1023):
        limiter.allow(number.to_bytes(4, "big"), 0.0)
    assert not limiter.allow(IP1, 0.0)
    limiter.allow(IP2, 0.0)
    assert limiter.allow(IP1, 0.0), "the host first heard is the first forgotten: it begins anew"
