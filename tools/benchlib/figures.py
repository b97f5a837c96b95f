"""What is measured: each figure gives one or more numbers of a subject, by running a real program."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from tools.benchlib.stage import CONTAINERS, GATEWAY, OUTSIDE, Stage

Numbers = dict[str, float]
IPERF_PORT = 5201
PUBLISHED = 8080
WEB_PORT = 80


@dataclass(frozen=True)
class Target:
    """What must be: the ratio to the kernel, or with `absolute` the number itself; at least, or at most."""

    at_least: float | None = None
    at_most: float | None = None
    absolute: bool = False

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


@dataclass(frozen=True)
class Figure:
    """`take(stage, seconds)` measures once and gives numbers by name; `units` and `targets` go by the same names.

    `needs` is what a subject must offer for it: "outside", "between" containers, a "published" port.
    """

    name: str
    take: Callable[[Stage, float], Numbers]
    units: dict[str, str]
    targets: dict[str, Target]
    needs: frozenset[str] = field(default_factory=lambda: frozenset(("outside",)))


def iperf(stage: Stage, client: str, address: str, seconds: float, *args: str) -> dict[str, Any]:
    """One iperf3 test's JSON, its `end` part."""
    output = stage.run(client, "iperf3", "-c", address, "-p", str(IPERF_PORT), "-t", f"{max(1, round(seconds))}", "-J", *args)
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
    """p50, p99 and p99.9 of round-trip times. Raises RuntimeError if there are too few to speak of."""
    if len(times) < 100:
        raise RuntimeError(f"only {len(times)} answers to ping")
    cuts = quantiles(times, n=1000)
    return {"ping p50": cuts[499], "ping p99": cuts[989], "ping p99.9": cuts[998]}


def requests_per_second(output: str) -> float:
    """What wrk says. Raises RuntimeError if it was not answered properly."""
    found = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    if found is None or "Non-2xx" in output or not float(found[1]):
        raise RuntimeError(f"wrk: {output.strip() or 'no answer'}")
    return float(found[1])


def busy_seconds() -> float:
    """Processor time the whole machine has used so far."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / 100


def _tcp(name: str, address: str, *args: str, needs: str = "outside", target: Target | None = None) -> Figure:
    cost = f"CPU seconds a GB, {name}"

    def take(stage: Stage, seconds: float) -> Numbers:
        before = busy_seconds()
        end = iperf(stage, stage.one, address, seconds, *args)
        used = busy_seconds() - before
        return {name: gigabits(end), cost: used / (float(end["sum_received"]["bytes"]) / 1e9)}

    return Figure(name, take, {name: "Gbit/s", cost: "s"}, {} if target is None else {name: target}, frozenset((needs,)))


def _udp(name: str, size: int, *args: str, target: Target | None = None) -> Figure:
    def take(stage: Stage, seconds: float) -> Numbers:
        return {name: kilopackets(iperf(stage, stage.one, OUTSIDE, seconds, "-u", "-b", "0", "-l", str(size), *args))}

    return Figure(name, take, {name: "kpps"}, {} if target is None else {name: target})


def ping(stage: Stage, seconds: float) -> Numbers:
    """One echo after the other: what the path takes, and not what the machine takes to wake up."""
    count = max(2000, int(seconds * 2000))
    return percentiles(round_trips(stage.run(stage.one, "ping", "-A", "-c", str(count), OUTSIDE)))


def _idle_ping(stage: Stage, seconds: float) -> Numbers:
    """A hundred a second: between them the processors sleep, and each process on the way has to be woken."""
    count = max(100, int(seconds * 100))
    times = percentiles(round_trips(stage.run(stage.one, "ping", "-i", "0.01", "-c", str(count), OUTSIDE)))
    return {"ping, 100/s, p50": times["ping p50"]}


def _http(name: str, *args: str) -> Figure:
    def take(stage: Stage, seconds: float) -> Numbers:
        output = stage.run(stage.outside, "wrk", "-t", "1", "-c", "32", "-d", f"{max(1, round(seconds))}s", *args,
                           f"http://{GATEWAY}:{PUBLISHED}/")
        return {name: requests_per_second(output)}

    return Figure(name, take, {name: "1/s"}, {name: Target(at_least=0.8)}, frozenset(("published",)))


_TCP = Target(at_least=0.9)

FIGURES = (
    _tcp("TCP up", OUTSIDE, target=_TCP),
    _tcp("TCP down", OUTSIDE, "-R", target=_TCP),
    _tcp("TCP container to container", CONTAINERS[1], needs="between", target=_TCP),
    _tcp("TCP up, 8 streams", OUTSIDE, "-P", "8"),
    _tcp("TCP down, 8 streams", OUTSIDE, "-R", "-P", "8"),
    _tcp("TCP container to container, 8 streams", CONTAINERS[1], "-P", "8", needs="between"),
    _udp("UDP 64 B up", 64, target=Target(at_least=1.0)),
    _udp("UDP 64 B down", 64, "-R"),
    _udp("UDP 64 B up, 32 flows", 64, "-P", "32", target=Target(at_least=0.7)),
    _udp("UDP 1400 B up", 1400),
    Figure("ping", ping, {"ping p50": "us", "ping p99": "us", "ping p99.9": "us"}, {"ping p50": Target(at_most=2.5)}),
    Figure("ping, 100/s", _idle_ping, {"ping, 100/s, p50": "us"}, {}),
    _http("HTTP requests, keep-alive"),
    _http("HTTP requests, a connection each", "-H", "Connection: close"),
)

_NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 100000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {port}; location / {{ return 200 "natgw\\n"; }} }}
}}
"""


def start_servers(stage: Stage) -> None:
    """The far ends that the figures talk to."""
    for namespace in (stage.outside, stage.two):
        stage.serve(namespace, IPERF_PORT, "iperf3", "-s", "-p", str(IPERF_PORT))
    config = stage.folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=stage.folder, port=WEB_PORT))
    stage.serve(stage.one, WEB_PORT, "nginx", "-p", str(stage.folder), "-c", str(config))
