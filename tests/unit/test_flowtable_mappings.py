"""Mappings in the table of flows: what they are found by, with the flows that rest, and whom they were used towards."""

from __future__ import annotations

from itertools import count

import pytest

from natgw.tables.flows import Mapping
from natgw.wire.ipv4 import TCP, UDP
from tests.unit.flow_lab import Table, endpoint

# Internal, external, remote, and another remote: no byte of a port is that of another.
ENDPOINTS = {
    4: (endpoint("10.1.0.2", 0x1389), endpoint("198.51.100.2", 0xC35B), endpoint("203.0.113.9", 0x1F92),
        endpoint("192.0.2.77", 0x0A35)),
    6: (endpoint("fd00:db8::1:2", 0x1389), endpoint("2001:db8:51::2", 0xC35B), endpoint("2001:db8:9::9", 0x1F92),
        endpoint("2001:db8:77::77", 0x0A35)),
}


def scopes_of(remote: bytes) -> tuple[bytes, bytes, bytes]:
    """What a mapping can depend on of a remote endpoint: nothing, its address, or all of it."""
    return b"", remote[:-2], remote


# -- mappings --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("U1")
@pytest.mark.parametrize("version", [4, 6])
def test_a_mapping_is_found_from_both_ends_until_it_is_dropped(version: int) -> None:
    table = Table().flows
    internal, external, remote, _ = ENDPOINTS[version]
    for scope in scopes_of(remote):
        mapping = Mapping(UDP, internal, external, scope)
        table.add_mapping(mapping)
        assert table.mapping_for(UDP, internal, scope) is mapping and table.mapping_at(UDP, external) is mapping
        assert table.mapping_for(TCP, internal, scope) is None and table.mapping_for(UDP, external, scope) is None
        table.drop_mapping(mapping)
        table.drop_mapping(mapping)
        assert table.mapping_for(UDP, internal, scope) is None and table.mapping_at(UDP, external) is None


def test_a_shared_external_endpoint_is_nobodys() -> None:
    table = Table().flows
    internal, external, remote, other = ENDPOINTS[4]
    sharing = [Mapping(UDP, internal, external, scope, shared=True) for scope in (remote, other)]
    for mapping in sharing:
        table.add_mapping(mapping)
    assert table.mapping_at(UDP, external) is None
    assert [table.mapping_for(UDP, internal, mapping.scope) for mapping in sharing] == sharing
    table.drop_mapping(sharing[0])
    assert table.mapping_for(UDP, internal, other) is sharing[1]


@pytest.mark.requirement("C1")
@pytest.mark.parametrize("network", ["10.1.0.", "fd00:db8::1:"])
def test_the_mappings_of_each_host_are_counted(network: str) -> None:
    table = Table().flows
    hosts = [f"{network}{number}" for number in (1, 2)]
    mappings = {host: [Mapping(UDP, endpoint(host, port), endpoint("198.51.100.2", port)) for port in range(1000, 1004)]
                for host in hosts}

    def counted() -> list[int]:
        return [table.mappings_of(endpoint(host, 0)[:-2]) for host in hosts]

    for number in range(4):
        table.add_mapping(mappings[hosts[0]][number])
        assert counted() == [number + 1, 0]
    table.add_mapping(mappings[hosts[1]][0])
    assert counted() == [4, 1]
    for number in range(4):
        table.drop_mapping(mappings[hosts[0]][number])
        table.drop_mapping(mappings[hosts[0]][number])
        assert counted() == [3 - number, 1]


# -- a flow that rests and its mapping -------------------------------------------------------------------------------


def with_mappings(version: int, wanted: Mapping) -> Table:
    """A table with a mapping, and with others that could be taken for it."""
    internal, external, remote, other = ENDPOINTS[version]
    table = Table()
    table.flows.add_mapping(wanted)
    ports = count(2000)
    for inner in (internal, remote, external, other):
        for scope in (*scopes_of(remote), *scopes_of(other)[1:]):
            if table.flows.mapping_for(UDP, inner, scope) is None:
                table.flows.add_mapping(Mapping(UDP, inner, external[:-2] + next(ports).to_bytes(2, "big"), scope))
    return table


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["outbound", "inbound", "published"])
@pytest.mark.parametrize("dependence", range(3), ids=["on nothing", "on the address", "on the endpoint"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_flow_that_rested_has_its_mapping_again(version: int, kind: str, dependence: int, shared: bool) -> None:
    internal, external, remote, _ = ENDPOINTS[version]
    mapping = Mapping(UDP, internal, external, scopes_of(remote)[dependence], shared=shared)
    table = with_mappings(version, mapping)
    flow = table.enter(table.between(kind, internal, external, remote, mapping), 0.0, 1000.0)
    table.crowd(10.0)
    assert not table.is_awake(flow)
    woken = table.wake(flow)
    assert woken.mapping is mapping and mapping.flows == 1


@pytest.mark.parametrize("kind", ["outbound", "inbound"])
def test_so_has_one_with_another_remote_than_the_mapping_is_for(kind: str) -> None:
    internal, external, remote, other = ENDPOINTS[4]
    mapping = Mapping(UDP, internal, external, remote)
    table = with_mappings(4, mapping)
    flow = table.enter(table.between(kind, internal, external, other, mapping), 0.0, 1000.0)
    table.crowd(10.0)
    assert not table.is_awake(flow) and table.wake(flow).mapping is mapping


@pytest.mark.parametrize("kind", ["outbound", "published"])
def test_a_flow_without_a_mapping_stays_without(kind: str) -> None:
    internal, external, remote, _ = ENDPOINTS[4]
    table = with_mappings(4, Mapping(UDP, internal, external))
    flow = table.enter(table.between(kind, internal, external, remote, None), 0.0, 1000.0)
    table.crowd(10.0)
    assert not table.is_awake(flow) and table.wake(flow).mapping is None


def test_a_flow_whose_mapping_cannot_be_found_again_stays_awake_and_in_the_table() -> None:
    internal, external, remote, _ = ENDPOINTS[4]
    table = Table()
    flow = table.enter(table.between("outbound", internal, external, remote, Mapping(UDP, internal, external)), 0.0, 1000.0)
    table.crowd(10.0)
    table.crowd(20.0, first=100)
    assert table.is_awake(flow) and len(table.flows) == 17
    table.flows.remove(flow)
    assert len(table.flows) == 16 and table.ended == [flow]


# -- whom a mapping was used towards ---------------------------------------------------------------------------------


@pytest.mark.requirement("U2")
@pytest.mark.parametrize("before", [False, True], ids=["flows that begin", "flows there are"])
def test_an_address_is_a_contact_as_long_as_a_flow_from_inside_leads_there(before: bool) -> None:
    internal, external, remote, other = ENDPOINTS[4]
    table, mapping = Table(), Mapping(UDP, internal, external)
    table.flows.add_mapping(mapping)

    def contacts() -> list[bool]:
        return [table.flows.has_contacted(mapping, address) for address in (remote[:-2], other[:-2], internal[:-2])]

    if not before:
        table.flows.track_contacts(True)
    ports = [remote[:-2] + port.to_bytes(2, "big") for port in (53, 80, 443)]
    flows = [table.enter(table.between("outbound", internal, external, port, mapping), 0.0, 1000.0) for port in ports]
    table.enter(table.between("inbound", internal, external, other, mapping), 0.0, 1000.0)
    table.enter(table.between("outbound", internal, external, other[:-2] + b"\1\1", None), 0.0, 1000.0)
    if before:
        table.crowd(10.0)
        assert not table.is_awake(flows[0]), "those at rest count"
        assert contacts() == [False, False, False], "nobody has asked for it to be remembered"
    table.flows.track_contacts(True)
    table.flows.track_contacts(True)
    assert contacts() == [True, False, False]
    assert not table.flows.has_contacted(Mapping(TCP, internal, external), remote[:-2])
    assert not table.flows.has_contacted(Mapping(UDP, internal, internal), remote[:-2])
    for left in (2, 1, 0):
        table.flows.remove(flows.pop())
        assert contacts() == [left > 0, False, False]
    again = table.enter(table.between("outbound", internal, external, remote, mapping), 20.0, 1000.0)
    assert contacts() == [True, False, False]
    for each in table.flows:
        table.flows.remove(each)
    assert contacts() == [False, False, False] and again in table.ended
    table.enter(table.between("outbound", internal, external, remote, mapping), 30.0, 1000.0)
    table.flows.track_contacts(False)
    assert contacts() == [False, False, False]
