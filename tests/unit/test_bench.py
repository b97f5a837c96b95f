"""The benchmark's arithmetic, and that its in-memory part runs."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tools.benchlib import core, scale
from tools.benchlib.figures import FIGURES, Target, gigabits, kilopackets, percentiles, requests_per_second, round_trips
from tools.benchlib.report import Results, as_markdown, as_svg, missed


def test_iperf_results_are_read() -> None:
    assert gigabits({"sum_received": {"bits_per_second": 12.5e9}}) == 12.5
    assert kilopackets({"sum": {"packets": 300_000, "lost_packets": 100_000, "seconds": 2.0}}) == 100.0


def test_what_wrk_says_is_read() -> None:
    assert requests_per_second("Requests/sec:  12345.67\nTransfer/sec: 1MB") == 12345.67
    with pytest.raises(RuntimeError, match="no answer"):
        requests_per_second("")
    with pytest.raises(RuntimeError, match="Non-2xx"):
        requests_per_second("Non-2xx or 3xx responses: 7\nRequests/sec: 5.0")


def test_ping_times_are_read() -> None:
    line = "64 bytes from 198.51.100.1: icmp_seq={} ttl=63 time=0.0{} ms\n"
    times = round_trips("".join(line.format(n, n % 90 + 10) for n in range(900)))
    assert len(times) == 900
    assert percentiles(times)["ping p50"] == pytest.approx(54.5, abs=1)
    with pytest.raises(RuntimeError, match="only 3 answers"):
        percentiles(times[:3])


def test_medians_ratios_and_targets() -> None:
    results = Results()
    for kernel, natgw in ((10.0, 6.0), (12.0, 9.0), (11.0, 7.0)):
        results.add("kernel", {"TCP up": kernel})
        results.add("natgw tap", {"TCP up": natgw})
    assert results.median("TCP up", "kernel") == 11.0
    assert results.ratio("TCP up", "natgw tap") == pytest.approx(7 / 11)
    assert missed(results, FIGURES, ["kernel", "natgw tap"]) == ["TCP up, natgw tap: 0.64 of the kernel's, wanted >= 0.9"]
    subjects = ["kernel", "natgw tap", "pasta"]
    assert "| TCP up, Gbit/s | 11 | 7 (0.64) | - | >= 0.9 |" in as_markdown(results, FIGURES, subjects)
    plot = ElementTree.fromstring(as_svg(results, FIGURES, subjects))
    assert "TCP up" in [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    results.add("natgw tap", {"natgw up to ready": 500.0})
    assert missed(results, tuple(scale.figures()), subjects) == ["natgw up to ready, natgw tap: 500.00, wanted <= 400"]
    assert Target(at_most=4).met(3.9)
    assert not Target(at_most=4).met(4.1)


def test_each_path_of_the_core_benchmark_is_the_path_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "FRAMES", 640)
    monkeypatch.setattr(core, "REPEATS", 1)
    fast = {}
    for name, bed, port, frames in core.paths():
        before = bed.datapath.counters()
        core.nanoseconds(bed, port, frames)  # so few frames, once, say nothing about how long one takes
        after = bed.datapath.counters()
        fast[name] = (after["fast_path"] - before["fast_path"]) / 640
        assert all(after[key] == before[key] for key in after if key.startswith("drop_")), name
    assert [name for name, share in fast.items() if share > 0.95] == [
        "TCP segment of an established flow", "UDP datagram, one flow, merged", "UDP datagram, 32 flows in turn", "ICMP echo",
        "bridged frame"]
