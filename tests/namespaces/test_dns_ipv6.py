"""Names on a network with IPv6, asked for with dig: AAAA and PTR, at 127.0.0.11 and at the gateway's IPv6 address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import requires
from tests.namespaces.topology import Lab, Namespace

pytestmark = pytest.mark.requires("dig", "getent", "ping")

GATEWAY = "fd00:6::1"


@pytest.fixture(scope="module")
def town() -> Iterator[tuple[Lab, Namespace]]:
    """The laboratory, and the container that asks."""
    requires("ip", "tc", "ss")
    with Lab() as made:
        made.up("--uplink", "none")
        made.natgw("network", "create", "--ipv6", "--subnet", "10.6.0.0/16", "--subnet", "fd00:6::/64", "six")
        made.natgw("network", "create", "--ipv6", "--subnet", "10.7.0.0/16", "--subnet", "fd00:7::/64", "other")
        web = made.container("web", "--network", "six")
        made.container("db", "--network", "six", "--ip6", "fd00:6::db", "--network-alias", "store")
        made.container("far", "--network", "other", "--ip6", "fd00:7::fa")
        yield made, web


@pytest.fixture
def lab(town: tuple[Lab, Namespace]) -> Lab:
    return town[0]


@pytest.fixture
def web(town: tuple[Lab, Namespace]) -> Namespace:
    return town[1]


def dig(inside: Namespace, *words: str, server: str = "127.0.0.11") -> list[str]:
    said = inside.run("dig", "+short", "+nocookie", "+time=6", "+tries=1", f"@{server}", *words)
    return [line for line in said.stdout.splitlines() if not line.startswith(";")]


def status(inside: Namespace, *words: str, server: str = "127.0.0.11") -> str:
    text = inside.run("dig", "+time=6", "+tries=1", f"@{server}", *words).stdout
    return text.partition("status: ")[2].partition(",")[0]


@pytest.mark.parametrize("server", ["127.0.0.11", GATEWAY, "10.6.0.1"])
def test_names_lead_to_ipv6_addresses_and_back(web: Namespace, server: str) -> None:
    for name in ("db", "DB.six.", "store"):
        assert dig(web, name, "AAAA", server=server) == ["fd00:6::db"]
    assert dig(web, "db", "A", server=server) == ["10.6.0.3"]
    assert dig(web, "-x", "fd00:6::db", server=server) == ["db.six."]
    assert dig(web, "host.docker.internal", "AAAA", server=server) == [GATEWAY]
    assert dig(web, "-x", GATEWAY, server=server) == ["host.docker.internal."]
    assert dig(web, "+tcp", "db", "AAAA", server=server) == ["fd00:6::db"]


def test_what_is_not_there_and_what_is_on_another_network(web: Namespace) -> None:
    assert status(web, "-x", "fd00:6::99") == "NXDOMAIN"
    assert dig(web, "far", "AAAA") == [] and dig(web, "-x", "fd00:7::fa") == []


def test_programs_find_each_other_by_name(lab: Lab) -> None:
    asked = lab.natgw("run", "--network", "six", "--", "getent", "ahostsv6", "db").stdout
    assert asked.split()[0] == "fd00:6::db"
    assert " 0% packet loss" in lab.natgw("run", "--network", "six", "--", "ping", "-6", "-c", "1", "-W", "5", "store").stdout
