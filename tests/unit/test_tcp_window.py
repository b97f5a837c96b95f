"""A RST outside the window of the side it goes to closes nothing (requirement T6), however the window was told."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from natgw.datapath import Verdict
from natgw.wire.tcp import window_scale
from tests.unit.core_lab import Lab, from_a, from_b, from_outside
from tests.unit.lab6 import Lab6, from_a6, from_outside6

pytestmark = pytest.mark.requirement("T6")
FAST = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
OURS, THEIRS = 4_294_967_000, 700_000
"""Where the two sides' numbers begin: the host's come round to zero soon."""
TOP = 1 << 32


class Connection:
    """A connection of a container whose two ends have told their windows: the host's 1,000 bytes, the remote's 5,000."""

    def __init__(self, *, fast_path: bool = True, ipv6: bool = False, host_scale: int | None = None,
                 remote_scale: int | None = None) -> None:
        self.lab = Lab6(fast_path=fast_path) if ipv6 else Lab(fast_path=fast_path)
        self._from_host, self._from_remote = (from_a6, from_outside6) if ipv6 else (from_a, from_outside)
        self.host("S", OURS, window=1000, scale=host_scale)
        self.remote("SA", THEIRS, OURS + 1, window=5000, scale=remote_scale)
        self.host("A", OURS + 1, THEIRS + 1, window=1000)
        self.remote("A", THEIRS + 1, OURS + 1, window=5000)

    def host(self, flags: str, seq: int, ack: int = 0, *, window: int = 1000, scale: int | None = None) -> None:
        out = self.lab.send("a", self._from_host(_segment(45000, 80, flags, seq, ack, window, scale)))
        assert out.verdict is Verdict.TRANSLATED_OUT

    def remote(self, flags: str, seq: int, ack: int = 0, *, window: int = 5000, scale: int | None = None) -> None:
        out = self.lab.send("uplink", self._from_remote(_segment(80, 45000, flags, seq, ack, window, scale)))
        assert out.verdict is Verdict.TRANSLATED_IN, "also a RST that closes nothing is the host's to judge"

    def state(self) -> object:
        (flow,) = self.lab.flows()
        return flow["state"]


def _segment(sport: int, dport: int, flags: str, seq: int, ack: int, window: int, scale: int | None) -> TCP:
    options = [] if scale is None else [("NOP", None), ("WScale", scale)]
    return TCP(sport=sport, dport=dport, flags=flags, seq=seq % TOP, ack=ack % TOP, window=window, options=options)


@FAST
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("beyond", "state"), [(-1, "ESTABLISHED"), (0, "CLOSE"), (999, "CLOSE"), (1000, "ESTABLISHED"),
                                               (1 << 31, "ESTABLISHED"), (-1000, "ESTABLISHED")])
def test_from_outside(beyond: int, state: str, fast_path: bool, ipv6: bool) -> None:
    connection = Connection(fast_path=fast_path, ipv6=ipv6)
    connection.remote("R", THEIRS + 1 + beyond)
    assert connection.state() == state


@FAST
@pytest.mark.parametrize(("beyond", "state"), [(-1, "ESTABLISHED"), (0, "CLOSE"), (4999, "CLOSE"), (5000, "ESTABLISHED")])
def test_from_inside_around_the_end_of_the_numbers(beyond: int, state: str, fast_path: bool) -> None:
    connection = Connection(fast_path=fast_path)
    connection.remote("A", THEIRS + 1, OURS + 300, window=5000)
    connection.host("RA", OURS + 300 + beyond, 12345)
    assert connection.state() == state


def test_one_that_closes_nothing_does_not_shorten_the_time_to_live() -> None:
    connection = Connection()
    connection.remote("R", THEIRS - 5)
    (flow,) = connection.lab.flows()
    assert (flow["state"], flow["timeout_s"]) == ("ESTABLISHED", 7440)


@FAST
def test_the_window_moves_with_what_is_acknowledged(fast_path: bool) -> None:
    connection = Connection(fast_path=fast_path)
    connection.host("A", OURS + 1, THEIRS + 3001, window=10)
    connection.remote("R", THEIRS + 1)
    connection.remote("R", THEIRS + 3011)
    assert connection.state() == "ESTABLISHED"
    connection.remote("R", THEIRS + 3010)
    assert connection.state() == "CLOSE"


def test_a_closed_window_takes_the_next_number() -> None:
    connection = Connection()
    connection.host("A", OURS + 1, THEIRS + 1, window=0)
    connection.remote("R", THEIRS + 2)
    assert connection.state() == "ESTABLISHED"
    connection.remote("R", THEIRS + 1)
    assert connection.state() == "CLOSE"


@FAST
@pytest.mark.parametrize(("host_scale", "remote_scale", "last"), [
    pytest.param(3, 0, 7999, id="both scale"), pytest.param(3, None, 999, id="the remote does not"),
    pytest.param(None, None, 999, id="none does"), pytest.param(255, 14, 16_383_999, id="more than there is")])
def test_windows_are_scaled_as_the_handshake_says(host_scale: int | None, remote_scale: int | None, last: int,
                                                  fast_path: bool) -> None:
    for beyond, state in ((last + 1, "ESTABLISHED"), (last, "CLOSE")):
        connection = Connection(fast_path=fast_path, host_scale=host_scale, remote_scale=remote_scale)
        connection.remote("R", THEIRS + 1 + beyond)
        assert connection.state() == state


def test_the_window_of_a_syn_is_not_scaled() -> None:
    for beyond, state in ((1024, "SYN_RECV"), (1023, "CLOSE")):
        lab = Lab()
        lab.send("a", from_a(_segment(45000, 80, "S", OURS, 0, 1000, 7)))
        lab.send("uplink", from_outside(_segment(80, 45000, "SA", THEIRS, OURS + 1, 1024, 7)))
        lab.send("a", from_a(_segment(45000, 80, "R", OURS + 1 + beyond, 0, 0, None)))
        assert lab.flows()[0]["state"] == state


def test_a_connection_that_begins_by_a_plan_is_judged_alike() -> None:
    """The second connection of a client to a published port never sees the walk."""
    for beyond, state in ((8000, "ESTABLISHED"), (7999, "CLOSE")):
        lab = Lab()
        lab.publish(8080, 80)
        for client in (50_000, 50_001):
            lab.send("uplink", from_outside(_segment(client, 8080, "S", THEIRS, 0, 5000, 3)))
            lab.send("a", from_a(_segment(80, client, "SA", OURS, THEIRS + 1, 1000, 3)))
            lab.send("uplink", from_outside(_segment(client, 8080, "A", THEIRS + 1, OURS + 1, 1000, None)))
        lab.send("a", from_a(_segment(80, 50_001, "R", OURS + 1 + beyond, 0, 0, None)))
        assert [flow["state"] for flow in lab.flows()] == ["ESTABLISHED", state]


def test_what_a_forger_sends_before_it_helps_no_reset() -> None:
    """An ACK that acknowledges anything, a SYN and resets say nothing of the window of the other side."""
    connection = Connection()
    connection.remote("A", THEIRS + 900_000, OURS + 700_000, window=65535)
    connection.remote("RA", THEIRS + 900_000, OURS + 700_000, window=65535)
    connection.remote("R", THEIRS + 900_000)
    assert connection.state() == "ESTABLISHED"


@pytest.mark.parametrize(("header", "data"), [
    pytest.param({}, b"\x03\x03\x07", id="all of it"),
    pytest.param({"dataofs": 6, "reserved": 2}, b"\x01\x01\x03\x03\x07", id="its last byte")])
def test_what_a_syn_carries_behind_its_header_is_no_window_scale(header: dict[str, int], data: bytes) -> None:
    lab = Lab(verify=False)  # scapy does not write half an option as it has read it
    lab.send("a", from_a(TCP(sport=45000, dport=80, flags="S", seq=OURS, window=1000, **header) / data))
    lab.send("uplink", from_outside(_segment(80, 45000, "SA", THEIRS, OURS + 1, 5000, 0)))
    lab.send("a", from_a(_segment(45000, 80, "A", OURS + 1, THEIRS + 1, 1000, None)))
    for beyond, state in ((1000, "ESTABLISHED"), (999, "CLOSE")):
        lab.send("uplink", from_outside(_segment(80, 45000, "R", THEIRS + 1 + beyond, 0, 0, None)))
        assert lab.flows()[0]["state"] == state


@pytest.mark.parametrize(("number", "unused"), [(0, 0), (THEIRS, 0), (0, THEIRS)])
def test_a_refused_connection_is_closed(number: int, unused: int) -> None:
    """Whatever number the RST has, and whatever stands in the SYN where an acknowledgement would be."""
    lab = Lab()
    lab.send("a", from_a(_segment(45000, 80, "S", OURS, unused, 1000, 7)))
    lab.send("uplink", from_outside(_segment(80, 45000, "RA", number, OURS + 1, 0, None)))
    assert lab.flows()[0]["state"] == "CLOSE"


def test_a_server_that_knows_nothing_of_the_old_connection_refuses_the_new_one() -> None:
    """The host began anew with the ports of a flow that is open to the gateway; the RST bears number 0."""
    connection = Connection()
    connection.host("S", OURS + 500_000)
    connection.remote("RA", 0, OURS + 500_001)
    assert connection.state() == "CLOSE"


@FAST
def test_the_numbers_of_a_connection_that_is_over_say_nothing_of_the_next(fast_path: bool) -> None:
    connection = Connection(fast_path=fast_path)
    connection.remote("R", THEIRS + 1)
    connection.host("S", 77_000_000)
    connection.host("R", 77_000_001)
    assert connection.state() == "CLOSE"


def test_a_connection_picked_up_is_judged_by_what_was_seen_of_it() -> None:
    lab = Lab()
    lab.send("a", from_a(_segment(45000, 80, "A", OURS, THEIRS, 1000, None)))
    for seq, state in ((THEIRS + 1000, "ESTABLISHED"), (THEIRS + 999, "CLOSE")):
        lab.send("uplink", from_outside(_segment(80, 45000, "R", seq, 0, 0, None)))
        assert lab.flows()[0]["state"] == state


def test_a_flow_at_rest_remembers_its_windows() -> None:
    connection = Connection()
    lab = connection.lab
    lab.dp.napt.flows.max_awake = 1
    for port in range(100):
        lab.now += 1.0
        lab.send("b", from_b(TCP(sport=10_000 + port, dport=80, flags="S")))
    assert lab.dp.napt.flows.awake < 100
    for seq, state in ((THEIRS, "ESTABLISHED"), (THEIRS + 1001, "ESTABLISHED"), (THEIRS + 1000, "CLOSE")):
        connection.remote("R", seq)
        assert next(flow for flow in lab.flows() if flow["original"]["sport"] == 45000)["state"] == state


@pytest.mark.parametrize(("options", "scale"), [
    (b"", None), (b"\x03\x03\x07\x00", 7), (b"\x01\x03\x03\x07", 7), (b"\x02\x04\x05\xb4\x01\x03\x03\x02", 2),
    (b"\x03\x03\x0f\x00", 14), (b"\x00\x03\x03\x07", None), (b"\x03\x04\x07\x00", None), (b"\x01\x01\x03\x03", None),
    (b"\x1e\x00\x03\x03\x07\x00\x00\x00", 7), (b"\x1e\xff\x03\x03", None), (b"\x01\x01\x01\x03", None)])
def test_the_scale_among_the_options(options: bytes, scale: int | None) -> None:
    """Options that lie about their length lead nowhere beyond the header, and a loop ends."""
    assert window_scale(bytes(20) + options) == scale
