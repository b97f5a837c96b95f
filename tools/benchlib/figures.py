"""What is measured: each figure gives one or more numbers of a subject, by running a real program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from tools.benchlib.stage import CONTAINERS, OUTSIDE, Stage

Numbers = dict[str, float]
IPERF_PORT = 5201


@dataclass(frozen=True)
class Target:
    """What the ratio to the kernel must be: at least, or at most."""

    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool:
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    def __str__(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


@dataclass(frozen=True)
class Figure:
    """`take(stage, seconds)` measures once and gives numbers by name; `units` and `targets` go by the same names."""

    name: str
    take: Callable[[Stage, float], Numbers]
    units: dict[str, str]
    targets: dict[str, Target]


def iperf(stage: Stage, client: str, address: str, seconds: float, *args: str) -> dict[str, Any]:
    """One iperf3 test's JSON, its `end` part."""
    output = stage.run(client, "iperf3", "-c", address, "-p", str(IPERF_PORT), "-t", f"{seconds:g}", "-J", *args)
    end: dict[str, Any] = json.loads(output)["end"]
    return end


def gigabits(end: dict[str, Any]) -> float:
    """What the receiver got, Gbit/s."""
    return float(end["sum_received"]["bits_per_second"]) / 1e9


def kilopackets(end: dict[str, Any]) -> float:
    """Datagrams that arrived, thousands a second: what was sent less what the receiver missed."""
    total = end["sum"]
    return float(total["packets"] - total["lost_packets"]) / float(total["seconds"]) / 1e3


def round_trips(output: str) -> list[float]:
    """The round-trip times that ping printed, in microseconds."""
    return [float(value) * 1e3 for value in re.findall(r"time=([0-9.]+) ms", output)]


def percentiles(times: list[float]) -> Numbers:
    """p50 and p99 of round-trip times. Raises RuntimeError if there are too few to speak of."""
    if len(times) < 100:
        raise RuntimeError(f"only {len(times)} answers to ping")
    cuts = quantiles(times, n=100)
    return {"ping p50": cuts[49], "ping p99": cuts[98]}


def _tcp(name: str, address: str, *args: str) -> Figure:
    def take(stage: Stage, seconds: float) -> Numbers:
        return {name: gigabits(iperf(stage, stage.one, address, seconds, *args))}

    return Figure(name, take, {name: "Gbit/s"}, {name: Target(at_least=0.7)})


def _udp(name: str, *args: str) -> Figure:
    def take(stage: Stage, seconds: float) -> Numbers:
        return {name: kilopackets(iperf(stage, stage.one, OUTSIDE, seconds, "-u", "-b", "0", "-l", "64", *args))}

    return Figure(name, take, {name: "kpps"}, {name: Target(at_least=0.55)})


def _ping(stage: Stage, seconds: float) -> Numbers:
    """One echo after the other: what the path takes, and not what the machine takes to wake up."""
    count = max(200, int(seconds * 2000))
    return percentiles(round_trips(stage.run(stage.one, "ping", "-A", "-c", str(count), OUTSIDE)))


def _idle_ping(stage: Stage, seconds: float) -> Numbers:
    """A hundred a second: between them the processors sleep, and each process on the way has to be woken."""
    count = max(100, int(seconds * 100))
    times = percentiles(round_trips(stage.run(stage.one, "ping", "-i", "0.01", "-c", str(count), OUTSIDE)))
    return {"ping, 100/s, p50": times["ping p50"]}


FIGURES = (
    _tcp("TCP up", OUTSIDE),
    _tcp("TCP down", OUTSIDE, "-R"),
    _tcp("TCP container to container", CONTAINERS[1]),
    _udp("UDP 64 B up"),
    _udp("UDP 64 B down", "-R"),
    Figure("ping", _ping, {"ping p50": "us", "ping p99": "us"}, {"ping p50": Target(at_most=4)}),
    Figure("ping, 100/s", _idle_ping, {"ping, 100/s, p50": "us"}, {}),
)


def start_servers(stage: Stage) -> None:
    """The far ends that the figures talk to."""
    for namespace in (stage.outside, stage.two):
        stage.serve(namespace, IPERF_PORT, "iperf3", "-s", "-p", str(IPERF_PORT))
