"""The plugin socket: paths, forms of failure, order, and an answer in time whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from natgw.api.docker import CONTENT_TYPE, PluginSocket, make_plugin_app
from natgw.api.http import Application
from natgw.control.docker.addresses import Addresses
from natgw.control.docker.naming import Naming, api_socket
from natgw.control.docker.network import NetworkDriver
from natgw.control.ipam import Pools
from natgw.control.ipam6 import Pools6
from natgw.control.networks import Networks
from natgw.errors import Conflict, NatgwError, NotFound

Record = dict[str, Any]


class FakeDriver:
    """Answers what a test has it answer."""

    def __init__(self) -> None:
        self.going = asyncio.Event()
        self.log: list[str] = []

    async def join(self, request: Record) -> Record:
        self.log.append("join")
        await self.going.wait()
        self.log.append("joined")
        return {"joined": request["EndpointID"]}

    async def leave(self, request: Record) -> Record:
        self.log.append("leave")
        return {}

    async def create_endpoint(self, request: Record) -> Record:
        raise Conflict("Address already in use")

    async def create_network(self, request: Record) -> Record:
        raise RuntimeError("unforeseen")

    def __getattr__(self, name: str) -> Any:
        async def nothing(request: Record) -> Record:
            return {}

        return nothing


def app_of(driver: FakeDriver, *, answer_s: float = 20.0) -> Application:
    return make_plugin_app(cast(NetworkDriver, driver), Addresses(Pools(), Pools6()), answer_s=answer_s)


@contextlib.asynccontextmanager
async def served(driver: FakeDriver, folder: Path, *, answer_s: float = 20.0) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the plugin's socket, with the driver behind it."""
    plugin = PluginSocket("natgw", lambda: app_of(driver, answer_s=answer_s), folder)
    await plugin.start()
    try:
        async with aiohttp.ClientSession("http://docker", connector=aiohttp.UnixConnector(str(plugin.path))) as client:
            yield client
    finally:
        await plugin.stop()


async def ask(client: aiohttp.ClientSession, path: str, body: Record | None = None) -> Record:
    async with client.post(f"/{path}", data=b"" if body is None else json.dumps(body)) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, CONTENT_TYPE)
        answer: Record = json.loads(await response.read())
        return answer


async def test_what_it_says_of_itself(tmp_path: Path) -> None:
    async with served(FakeDriver(), tmp_path) as client:
        assert await ask(client, "Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
        assert await ask(client, "IpamDriver.GetDefaultAddressSpaces") == {
            "LocalDefaultAddressSpace": "natgw", "GlobalDefaultAddressSpace": "natgw"}
        assert await ask(client, "NetworkDriver.DiscoverNew", {}) == {}


async def test_what_it_does_not_know(tmp_path: Path) -> None:
    async with served(FakeDriver(), tmp_path) as client:
        for path in ("/NetworkDriver.AllocateNetwork", "/"):
            async with client.post(path) as response:
                assert response.status == 404
                assert "Err" in json.loads(await response.read())
        async with client.get("/Plugin.Activate") as response:
            assert response.status == 404


async def test_failures_in_the_form_of_each_driver(tmp_path: Path) -> None:
    async with served(FakeDriver(), tmp_path) as client:
        assert await ask(client, "NetworkDriver.CreateEndpoint", {}) == {"Err": "Address already in use"}
        assert "unforeseen" in (await ask(client, "NetworkDriver.CreateNetwork", {}))["Err"]
        assert "invalid pool id" in (await ask(client, "IpamDriver.RequestAddress", {"PoolID": "x"}))["Error"]
        async with client.post("/NetworkDriver.Join", data=b"{") as response:
            assert "JSON" in json.loads(await response.read())["Err"]


async def test_an_answer_in_time_and_the_next_request_in_order(tmp_path: Path) -> None:
    driver = FakeDriver()
    async with served(driver, tmp_path, answer_s=0.05) as client:
        assert "still busy with NetworkDriver.Join" in (await ask(client, "NetworkDriver.Join", {"EndpointID": "e"}))["Err"]
        # The same endpoint has to wait, another need not; the work itself was not broken off.
        assert "still busy" in (await ask(client, "NetworkDriver.Leave", {"EndpointID": "e"}))["Err"]
        assert await ask(client, "NetworkDriver.Leave", {"EndpointID": "other"}) == {}
        driver.going.set()
        assert await ask(client, "NetworkDriver.EndpointOperInfo", {"EndpointID": "e"}) == {}
    assert driver.log == ["join", "leave", "joined", "leave"]


async def test_the_socket(tmp_path: Path) -> None:
    plugin = PluginSocket("natgw", lambda: app_of(FakeDriver()), tmp_path / "docker" / "plugins")
    await plugin.start()
    assert plugin.path.stat().st_mode & 0o777 == 0o600
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(plugin.path))) as session, \
            session.post("http://natgw/Plugin.Activate") as response:
        assert response.status == 200
    with pytest.raises(Conflict, match=rf"pid {os.getpid()}.*--docker=NAME"):
        await PluginSocket("natgw", lambda: app_of(FakeDriver()), plugin.path.parent).start()
    assert plugin.path.exists()
    await plugin.stop()
    await plugin.stop()
    assert list(tmp_path.iterdir()) == []


async def test_a_socket_that_a_killed_natgw_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "natgw.sock"))
    plugin = PluginSocket("natgw", lambda: app_of(FakeDriver()), tmp_path)
    await plugin.start()
    await plugin.stop()
    assert list(tmp_path.iterdir()) == []


async def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "natgw.sock").write_text("precious")
    with pytest.raises(NatgwError, match="not a socket"):
        await PluginSocket("natgw", lambda: app_of(FakeDriver()), tmp_path).start()
    assert (tmp_path / "natgw.sock").read_text() == "precious"


async def test_pools_and_addresses() -> None:
    addresses = Addresses(Pools(), Pools6())
    pool = await addresses.request_pool({"Pool": "10.5.0.0/24", "SubPool": "10.5.0.128/25", "V6": False})
    id_ = pool["PoolID"]
    gateway = await addresses.request_address({"PoolID": id_, "Options": {"RequestAddressType": "com.docker.network.gateway"}})
    assert (pool["Pool"], gateway["Address"]) == ("10.5.0.0/24", "10.5.0.1/24")
    first = await addresses.request_address({"PoolID": id_})
    assert first["Address"] == "10.5.0.128/24"
    with pytest.raises(Conflict, match="Address already in use"):
        await addresses.request_address({"PoolID": id_, "Address": "10.5.0.128"})
    with pytest.raises(Conflict, match="Pool overlaps"):
        await addresses.request_pool({"Pool": "10.5.0.0/16"})
    await addresses.release_address({"PoolID": id_, "Address": "10.5.0.128"})
    await addresses.release_address({"PoolID": id_, "Address": "10.5.0.128"})
    assert await addresses.request_address({"PoolID": id_}) == first
    await addresses.release_pool({"PoolID": id_})
    await addresses.release_pool({"PoolID": id_})
    assert await addresses.release_address({"PoolID": id_, "Address": "10.5.0.128"}) == {}


async def test_pools_and_addresses_of_ipv6() -> None:
    addresses = Addresses(Pools(), Pools6())
    pool = await addresses.request_pool({"Pool": "fd00:5::/64", "SubPool": "fd00:5::1:0/112", "V6": True})
    id_ = pool["PoolID"]
    gateway = await addresses.request_address({"PoolID": id_, "Options": {"RequestAddressType": "com.docker.network.gateway"}})
    assert (pool["Pool"], gateway["Address"]) == ("fd00:5::/64", "fd00:5::1/64")
    first = await addresses.request_address({"PoolID": id_})
    assert first["Address"] == "fd00:5::1:0/64"
    with pytest.raises(Conflict, match="Address already in use"):
        await addresses.request_address({"PoolID": id_, "Address": "fd00:5::1:0"})
    with pytest.raises(NatgwError, match="no address of the pool"):
        await addresses.request_address({"PoolID": id_, "Address": "10.5.0.1"})
    with pytest.raises(Conflict, match="Pool overlaps"):
        await addresses.request_pool({"Pool": "fd00::/16", "V6": True})
    await addresses.release_address({"PoolID": id_, "Address": "fd00:5::1:0"})
    assert await addresses.request_address({"PoolID": id_}) == first
    chosen = await addresses.request_pool({"Pool": "", "V6": True})
    assert chosen["Pool"].startswith("fd") and chosen["Pool"].endswith("::/64")
    await addresses.release_pool({"PoolID": id_})
    await addresses.release_pool({"PoolID": id_})
    with pytest.raises(NotFound):
        await addresses.request_address({"PoolID": id_})


def test_where_dockers_api_is() -> None:
    assert api_socket({}) == Path("/var/run/docker.sock")
    assert api_socket({"DOCKER_HOST": "unix:///tmp/d.sock"}) == Path("/tmp/d.sock")
    assert api_socket({"DOCKER_HOST": "tcp://192.0.2.1:2375"}) is None


async def test_without_dockers_api_nobody_is_asked() -> None:
    naming = Naming(cast(Networks, None), cast(Any, None), cast(Any, None), None)
    naming.look("8be1")
    await naming.stop()
