"""What real STUN and ICE programs make of each NAT behaviour: coturn's discovery (RFC 5780) and aioice's agents."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces.topology import OUTSIDE, Lab, Namespace, eventually, ip

SECOND = "198.51.100.9"
FAR_NET, FAR_OUTSIDE, FAR_GATEWAY = "203.0.113.0/24", "203.0.113.1", "203.0.113.2"
PORT = 3478
WORDS = {"eim": "Endpoint Independent Mapping", "adm": "Address Dependent Mapping",
         "apdm": "Address and Port Dependent Mapping", "eif": "Endpoint Independent Filtering",
         "adf": "Address Dependent Filtering", "apdf": "Address and Port Dependent Filtering"}


def stun_server(namespace: Namespace, folder: Path) -> None:
    """coturn as a STUN server on two addresses and two ports of each."""
    namespace.spawn("turnserver", "-n", "--no-auth", "-L", OUTSIDE, "-L", SECOND, "--log-file", "stdout",
                    "--pidfile", str(folder / "turn.pid"), "--no-cli", "--no-tls", "--no-dtls", "--no-tcp-relay")
    eventually(lambda: namespace.listening(PORT, "udp") and namespace.listening(PORT + 1, "udp"))


@pytest.fixture(scope="module")
def discovery() -> Iterator[tuple[Lab, Namespace]]:
    """A STUN server outside and one container behind a natgw."""
    with Lab() as lab:
        ip("-n", lab.outside.name, "addr", "add", f"{SECOND}/24", "dev", "eth0")
        stun_server(lab.outside, lab.folder)
        lab.up()
        yield lab, lab.container("one")


@pytest.mark.requires("turnserver", "turnutils_natdiscovery")
@pytest.mark.requirement("U1", "U2")
@pytest.mark.parametrize("filtering", ["eif", "adf", "apdf"])
@pytest.mark.parametrize("mapping", ["eim", "adm", "apdm"])
def test_discovery_reports_what_was_chosen(discovery: tuple[Lab, Namespace], mapping: str, filtering: str) -> None:
    lab, one = discovery
    lab.natgw("nat", "set", f"udp.mapping={mapping}", f"udp.filtering={filtering}")
    assert WORDS[mapping] in one.run("turnutils_natdiscovery", "-m", OUTSIDE).stdout
    assert WORDS[filtering] in one.run("turnutils_natdiscovery", "-f", OUTSIDE).stdout


AGENT = """
import asyncio, json, os, pathlib, sys
import aioice, aioice.stun

aioice.stun.RETRY_MAX = 3  # 7.5 s until a check has failed
role, folder, server = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
other = "b" if role == "a" else "a"
mine, theirs = (os.open(folder / name, os.O_RDWR) for name in (role, other))  # named pipes; what is in them stays meanwhile

def tell(value):
    os.write(mine, json.dumps(value).encode() + b"\\n")

async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(theirs, "rb", 0))

    async def told():
        return json.loads(await reader.readline())

    agent = aioice.Connection(ice_controlling=role == "a", stun_server=(server, 3478))
    await agent.gather_candidates()
    tell([agent.local_username, agent.local_password, [c.to_sdp() for c in agent.local_candidates]])
    agent.remote_username, agent.remote_password, candidates = await told()
    for candidate in candidates:
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
    await agent.add_remote_candidate(None)
    try:
        await agent.connect()
    except ConnectionError:
        print("no way")
        return
    await agent.send(role.encode())
    print("heard", (await agent.recv()).decode())
    tell("heard")
    await told()
    await agent.close()

asyncio.run(asyncio.wait_for(main(), 45))
"""


@pytest.mark.requires("turnserver")
@pytest.mark.requirement("U1", "U2")
@pytest.mark.parametrize(("here", "there", "connects"), [
    ("port-restricted", "port-restricted", True), ("restricted-cone", "symmetric", True), ("full-cone", "symmetric", True),
    ("port-restricted", "symmetric", False), ("symmetric", "symmetric", False)])
def test_ice_agents_connect_where_theory_says_so(lab: Lab, here: str, there: str, connects: bool) -> None:
    """Two agents, each behind a natgw of its own, with STUN and without a relay (RFC 5128 section 3.3)."""
    ip("-n", lab.outside.name, "addr", "add", f"{SECOND}/24", "dev", "eth0")
    lab.outside.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    far = lab.namespace("far")
    ip("-n", far.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", lab.outside.name)
    for namespace, ifname, address in ((lab.outside, "eth1", FAR_OUTSIDE), (far, "eth0", FAR_GATEWAY)):
        ip("-n", namespace.name, "addr", "add", f"{address}/24", "dev", ifname)
        ip("-n", namespace.name, "link", "set", ifname, "up")
    ip("-n", far.name, "route", "add", "default", "via", FAR_OUTSIDE)
    stun_server(lab.outside, lab.folder)
    lab.up("--nat-type", here)
    socket = lab.folder / "far" / "n.sock"
    lab.natgw("up", "--detach", "--subnet", "172.18.0.0/16", "--nat-type", there, socket=socket, within=far)
    try:
        one, two = lab.container("one"), lab.namespace("two")
        lab.natgw("attach", two.name, "--name", "two", socket=socket, within=far)
        for role in ("a", "b"):
            os.mkfifo(lab.folder / role)
        agents = [(namespace, namespace.spawn(sys.executable, "-c", AGENT, role, str(lab.folder), OUTSIDE))
                  for role, namespace in (("a", one), ("b", two))]
        said = []
        for namespace, agent in agents:
            agent.wait(timeout=60)
            said.append(namespace.end(agent).strip())
        assert said == (["heard b", "heard a"] if connects else ["no way", "no way"])
    finally:
        lab.natgw("down", socket=socket, within=far, check=False)
