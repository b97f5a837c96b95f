"""Reading the uplink, following what the host changes on it, and keeping ports for natgw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import uvloop

from natgw.datapath.config import Route
from natgw.errors import NatgwError, NotFound
from natgw.host import interfaces, sysctl
from natgw.host.interfaces import UplinkState, read_uplink
from natgw.host.uplink import UplinkWatcher
from tests.namespaces.host_lab import Namespace, namespaces, wire

pytestmark = pytest.mark.requires("ip", "nsenter")

Runner = Callable[[Coroutine[Any, Any, None]], None]
OURS = IPv4Interface("198.51.100.2/24")
CONNECTED = Route(IPv4Network("198.51.100.0/24"))


@pytest.fixture
def lab() -> Iterator[Namespace]:
    """natgw's namespace with interface `up0`; the outside is at 198.51.100.1."""
    with namespaces(2) as (home, outside):
        wire(home, "up0", str(OURS), outside, "up0", "198.51.100.1/24")
        yield home


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Runner:
    run: Runner = request.param
    return run


def via(last: int) -> IPv4Address:
    return IPv4Address(f"198.51.100.{last}")


def test_state(lab: Namespace) -> None:
    lab.ip("addr", "add", "198.51.100.9/24", "dev", "up0")
    lab.ip("route", "add", "default", "via", "198.51.100.1", "metric", "200")
    lab.ip("route", "add", "default", "via", "198.51.100.3", "metric", "100")
    lab.ip("route", "add", "203.0.113.0/24", "via", "198.51.100.4")
    lab.ip("route", "add", "blackhole", "203.0.114.0/24")
    device = lab.look("link", "show", "up0")[0]
    state = lab.call(read_uplink, "up0")
    assert (state.ifname, state.ifindex, state.mac.hex(":"), state.mtu) == ("up0", device["ifindex"], device["address"], 1500)
    assert state.up
    assert state.addresses == (OURS, IPv4Interface("198.51.100.9/24"))
    assert state.local_addresses == {OURS.ip, via(9), IPv4Address("127.0.0.1")}
    everywhere = IPv4Network("0.0.0.0/0")
    assert [route for route in state.routes if route.destination == everywhere] == [
        Route(everywhere, via(3)), Route(everywhere, via(1))]
    assert set(state.routes) == {CONNECTED, Route(IPv4Network("203.0.113.0/24"), via(4)), Route(everywhere, via(3)),
                                 Route(everywhere, via(1))}


def test_routes_of_other_interfaces_are_not_the_uplinks(lab: Namespace) -> None:
    lab.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    lab.ip("addr", "add", "192.0.2.1/24", "dev", "other0")
    lab.ip("link", "set", "other0", "up")
    lab.ip("route", "add", "203.0.113.0/24", "nexthop", "via", "192.0.2.7", "nexthop", "via", "198.51.100.4")
    state = lab.call(read_uplink, "up0")
    assert set(state.routes) == {CONNECTED, Route(IPv4Network("203.0.113.0/24"), via(4))}
    assert IPv4Address("192.0.2.1") in state.local_addresses
    assert set(lab.call(interfaces.host_routes)) == {
        CONNECTED.destination, IPv4Network("192.0.2.0/24"), IPv4Network("203.0.113.0/24")}


def test_default_route_interface(lab: Namespace) -> None:
    assert lab.call(interfaces.default_route_interface) is None
    lab.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    lab.ip("addr", "add", "192.0.2.1/24", "dev", "other0")
    lab.ip("link", "set", "other0", "up")
    lab.ip("route", "add", "default", "via", "192.0.2.7", "metric", "50")
    assert lab.call(interfaces.default_route_interface) == "other0"
    lab.ip("route", "add", "default", "via", "198.51.100.1")
    assert lab.call(interfaces.default_route_interface) == "up0"


def test_link_down_is_not_up(lab: Namespace) -> None:
    lab.ip("link", "set", "up0", "down")
    state = lab.call(read_uplink, "up0")
    assert not state.up and state.routes == () and state.addresses == (OURS,)


def test_what_cannot_be_an_uplink(lab: Namespace) -> None:
    with pytest.raises(NotFound, match="no interface up9"):
        lab.call(read_uplink, "up9")
    with pytest.raises(NatgwError, match="lo is not an Ethernet interface"):
        lab.call(read_uplink, "lo")


def test_delete_link(lab: Namespace) -> None:
    assert lab.call(interfaces.delete_link, "up0")
    assert not lab.call(interfaces.delete_link, "up0")


class Seen:
    """The states a watcher reported."""

    def __init__(self) -> None:
        self.states: list[UplinkState | None] = []
        self._news = asyncio.Event()

    def __call__(self, state: UplinkState | None) -> None:
        self.states.append(state)
        self._news.set()

    async def until(self, good: Callable[[UplinkState | None], bool]) -> None:
        """Wait for a state; fails after 10 s."""
        async with asyncio.timeout(10):
            while not self.states or not good(self.states[-1]):
                self._news.clear()
                await self._news.wait()


def watch(lab: Namespace, runner: Runner, story: Callable[[Seen, Callable[..., Awaitable[None]]], Awaitable[None]]) -> None:
    async def main() -> None:
        seen = Seen()
        watcher = UplinkWatcher("up0", seen, await asyncio.to_thread(read_uplink, "up0"))
        await watcher.start()

        async def ip(*words: str) -> None:
            await asyncio.to_thread(lab.ip, *words)

        try:
            await story(seen, ip)
        finally:
            await watcher.stop()
            await watcher.stop()

    lab.call(runner, main())


def test_watcher_follows_everything(lab: Namespace, runner: Runner) -> None:
    async def story(seen: Seen, ip: Callable[..., Awaitable[None]]) -> None:
        await ip("addr", "add", "198.51.100.9/24", "dev", "up0")
        await seen.until(lambda s: s is not None and s.addresses == (OURS, IPv4Interface("198.51.100.9/24")))
        await ip("route", "add", "default", "via", "198.51.100.1")
        await seen.until(lambda s: s is not None and Route(IPv4Network("0.0.0.0/0"), via(1)) in s.routes)
        await ip("link", "set", "up0", "mtu", "1400")
        await seen.until(lambda s: s is not None and s.mtu == 1400)
        await ip("link", "set", "up0", "address", "02:00:00:00:00:77")
        await seen.until(lambda s: s is not None and s.mac == bytes.fromhex("020000000077"))
        await ip("link", "set", "up0", "down")
        await seen.until(lambda s: s is not None and not s.up and not s.routes)
        await ip("link", "set", "up0", "up")
        await seen.until(lambda s: s is not None and s.up and s.routes == (CONNECTED,))
        await ip("link", "del", "up0")
        await seen.until(lambda s: s is None)
        await ip("link", "add", "up0", "type", "veth", "peer", "name", "other")
        await seen.until(lambda s: s is not None)

    watch(lab, runner, story)


def test_watcher_reports_a_burst_as_few_states_and_each_differs(lab: Namespace, runner: Runner, tmp_path: Path) -> None:
    async def story(seen: Seen, ip: Callable[..., Awaitable[None]]) -> None:
        await ip("-batch", str(batch))
        await seen.until(lambda s: s is not None and len(s.routes) == 201)
        assert len(seen.states) < 50
        assert all(one != other for one, other in zip(seen.states, seen.states[1:], strict=False))

    batch = tmp_path / "routes"
    batch.write_text("".join(f"route add 203.0.113.{n}/32 via 198.51.100.1\n" for n in range(200)))
    watch(lab, runner, story)


def test_watcher_is_quiet_about_what_is_not_the_uplinks(lab: Namespace, runner: Runner) -> None:
    async def story(seen: Seen, ip: Callable[..., Awaitable[None]]) -> None:
        await ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
        await ip("link", "set", "other0", "up")
        await ip("route", "add", "203.0.113.0/24", "dev", "other0")
        await ip("link", "set", "up0", "mtu", "1400")
        await seen.until(lambda s: s is not None and s.mtu == 1400)
        assert len(seen.states) == 1

    watch(lab, runner, story)


def test_watcher_sees_what_changed_before_it_started(lab: Namespace, runner: Runner) -> None:
    async def main() -> None:
        seen = Seen()
        watcher = UplinkWatcher("up0", seen, await asyncio.to_thread(read_uplink, "up0"))
        await asyncio.to_thread(lab.ip, "link", "set", "up0", "mtu", "1400")
        await watcher.start()
        await seen.until(lambda s: s is not None and s.mtu == 1400)
        await watcher.stop()

    lab.call(runner, main())


def test_ports_are_reserved_beside_others_and_given_back(lab: Namespace) -> None:
    lab.call(sysctl.write_reserved, "8080,45000-46000")
    before = lab.call(sysctl.reserve_ports, 40000, 50000)
    assert before == "8080,45000-46000"
    assert lab.call(sysctl.read_reserved) == "8080,40000-50000"
    lab.call(sysctl.write_reserved, before)
    assert lab.call(sysctl.read_reserved) == before
    lab.call(sysctl.write_reserved, "")
    assert lab.call(sysctl.reserve_ports, 1, 65535) == ""
    with pytest.raises(NatgwError, match="cannot reserve ports"):
        lab.call(sysctl.write_reserved, "70000")
