"""What natgw alone is asked: many flows, many endpoints, and how soon it is ready. Absolute numbers, not ratios."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from natgw.api.client import Client
from tools.benchlib.figures import Figure, Numbers, Target, iperf, kilopackets, ping
from tools.benchlib.stage import OUTSIDE, ip, undisturbed
from tools.benchlib.subjects import Natgw

FLOW_COUNTS = (1_000, 100_000, 1_000_000)
ROOM = 2_000
"""Flows fewer than a million: it is also the most natgw takes, and the measurement needs some of its own."""
FILL_WITHIN_S = 240.0
STARTS = 5

CHUNK = 4_000
"""Flows begun at a time: fewer datagrams than a tap's queue holds."""

OWN_FLOWS = 50

_FILL = """
import socket, sys
sockets = {}
for line in sys.stdin:
    first, last = map(int, line.split())
    for number in range(first, last):
        host, port = divmod(number, 60000)
        if host not in sockets:
            sockets[host] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets[host].bind(("", 50000 + host))
        try:
            sockets[host].sendto(b"natgw", ("203.0.113.7", 2000 + port))
        except OSError:
            pass
    print(last, flush=True)
"""


def _flows(count: int) -> tuple[str, str, str, str, str]:
    words = f"{count:,} flows"
    return (f"UDP 64 B up with {words}", f"ping p99.9 with {words}", f"bytes a flow, {words}",
            f"new flows a second, to {words}", f"UDP with {words} against {FLOW_COUNTS[0]:,}")


def figures() -> Iterator[Figure]:
    """For the table: names, units and targets of what `measure` gives."""

    def no_turns(stage: object, seconds: float) -> Numbers:
        raise AssertionError("measured once, by `measure`")

    for count in FLOW_COUNTS:
        udp, rtt, memory, rate, ratio = _flows(count)
        units = {udp: "kpps", rtt: "us"}
        targets: dict[str, Target] = {}
        if count != FLOW_COUNTS[0]:
            units |= {memory: "bytes", rate: "1/s", ratio: ""}
        if count == FLOW_COUNTS[-1]:
            targets |= {memory: Target(at_most=700, absolute=True), ratio: Target(at_least=0.85, absolute=True),
                        rtt: Target(at_most=5000, absolute=True)}
        yield Figure(udp, no_turns, units, targets)
    yield Figure("start", no_turns, {"natgw up to ready": "ms"}, {"natgw up to ready": Target(at_most=400, absolute=True)})
    yield Figure("endpoints", no_turns, {"attaches a second": "1/s", "bytes an endpoint": "bytes",
                                         "ping p50 with all endpoints": "us"}, {})


def many_flows(seconds: float) -> Iterator[Numbers]:
    """Numbers as they come: each count's, one after the other, in one natgw."""
    subject = Natgw("tap")
    try:
        subject.set_up()
        subject.stage.serve(subject.stage.outside, 5201, "iperf3", "-s", "-p", "5201")
        iperf(subject.stage, subject.stage.one, OUTSIDE, 1, "-u", "-b", "0", "-l", "64")
        before, base, made = subject.resident_bytes(), 0.0, 0
        for count in FLOW_COUNTS:
            udp, rtt, memory, rate, ratio = _flows(count)
            wanted = min(count, FLOW_COUNTS[-1] - ROOM)
            began = time.monotonic()
            _fill(subject, made, wanted)
            took, fresh, made = time.monotonic() - began, wanted - made, wanted
            per_flow = (subject.resident_bytes() - before) / wanted
            end = iperf(subject.stage, subject.stage.one, OUTSIDE, max(2.0, seconds), "-u", "-b", "0", "-l", "64")
            numbers = {udp: kilopackets(end), rtt: ping(subject.stage, max(2.0, seconds))["ping p99.9"]}
            if count == FLOW_COUNTS[0]:
                base = numbers[udp]
            else:
                numbers |= {memory: per_flow, rate: fresh / took, ratio: numbers[udp] / base}
            yield numbers
    finally:
        subject.tear_down()


def _fill(subject: Natgw, first: int, wanted: int) -> None:
    """Send a datagram for each flow, some thousand at a time; once more should one be lost. Raises RuntimeError in the end."""
    deadline, client = time.monotonic() + FILL_WITHIN_S, Client(str(subject.socket))
    sender = subprocess.Popen(["ip", "netns", "exec", subject.stage.one, sys.executable, "-c", _FILL], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    assert sender.stdin is not None and sender.stdout is not None
    try:
        # The measurement has some flows of its own, which may end meanwhile.
        base = client.get("status")["flows"] - first - OWN_FLOWS
        while first < wanted:
            last = min(wanted, first + CHUNK)
            sender.stdin.write(f"{first} {last}\n")
            sender.stdin.flush()
            sender.stdout.readline()
            patience = time.monotonic() + 1.0
            while (flows := client.get("status")["flows"]) < base + last and time.monotonic() < patience:
                time.sleep(0.02)
            if flows >= base + last:
                first = last
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {flows} of {wanted} flows came to be in {FILL_WITHIN_S:g} s")
    finally:
        sender.stdin.close()
        sender.wait()
        sender.stdout.close()


def start() -> Iterator[Numbers]:
    """How long `natgw up --detach` takes, each time in a fresh stage."""
    for _ in range(STARTS):
        subject = Natgw("tap")
        try:
            began = time.monotonic()
            subject.natgw("up", "--detach")
            yield {"natgw up to ready": (time.monotonic() - began) * 1e3}
        finally:
            subject.tear_down()


def endpoints(count: int) -> Iterator[Numbers]:
    """Attach so many empty namespaces, one after the other."""
    subject = Natgw("tap")
    names = [f"{subject.stage.one}-{number}" for number in range(count)]
    made = []
    try:
        subject.set_up()
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        before = subject.resident_bytes()
        client = Client(str(subject.socket))
        began = time.monotonic()
        for name in names:
            client.post("endpoints", body={"target": f"/run/netns/{name}", "name": name})
        took = time.monotonic() - began
        yield {"attaches a second": count / took, "bytes an endpoint": (subject.resident_bytes() - before) / count,
               "ping p50 with all endpoints": ping(subject.stage, 1.0)["ping p50"]}
    finally:
        with undisturbed():
            subject.tear_down()
            for name in made:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def as_text(numbers: Numbers) -> str:
    return json.dumps({name: round(value, 2) for name, value in numbers.items()})
