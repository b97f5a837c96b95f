"""GET /metrics: the daemon's counters in the text format of Prometheus, made from one look at its state."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from natgw.api.backend import Record
from natgw.api.counters import groups

__all__ = ["CONTENT_TYPE", "exposition"]

# Key of a port record -> metric and help; every port is a label.
PORT_COUNTERS = {
    "rx_frames": ("natgw_port_receive_frames", "Frames that came in by the port."),
    "rx_bytes": ("natgw_port_receive_bytes", "Bytes that came in by the port."),
    "tx_frames": ("natgw_port_transmit_frames", "Frames sent out of the port."),
    "tx_bytes": ("natgw_port_transmit_bytes", "Bytes sent out of the port."),
    "tx_drops": ("natgw_port_transmit_drops", "Frames that the link did not take."),
    "segmented": ("natgw_port_segmented", "Frames cut, or their checksum completed, in software for the port."),
}


class _Snapshot:
    """A prometheus collector of values that were read already."""

    def __init__(self, status: Record, stats: Record) -> None:
        self._status = status
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("natgw", "The daemon.", value={"version": self._status["version"]})
        yield GaugeMetricFamily("natgw_uptime_seconds", "Time since the daemon was ready.", self._status["uptime_s"])
        yield GaugeMetricFamily("natgw_containers", "Containers on the bridge.", self._status["containers"])
        yield GaugeMetricFamily("natgw_flows", "Flows being translated.", self._status["flows"])
        yield from self._frames()
        yield from self._ports()

    def _frames(self) -> Iterator[Metric]:
        counters = self._stats["counters"]
        grouped = groups(counters)
        frames = CounterMetricFamily("natgw_frames", "Frames by what became of them.", labels=["verdict"])
        for name in (*grouped["verdicts"], *grouped["drops"]):
            frames.add_metric([name], counters[name])
        yield frames
        events = CounterMetricFamily("natgw_events", "What else was counted on the way.", labels=["event"])
        for name in grouped["events"]:
            events.add_metric([name], counters[name])
        yield events

    def _ports(self) -> Iterator[Metric]:
        for key, (name, text) in PORT_COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=["port", "kind"])
            for port in self._stats["ports"]:
                family.add_metric([port["name"], port["kind"]], port[key])
            yield family


def exposition(status: Record, stats: Record) -> bytes:
    """The text of GET /metrics for what GET /v1/status and GET /v1/stats say."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status, stats))
    return generate_latest(registry)
