"""The translator's behaviour from TOML, JSON and words, and back; what is refused, and how that is said."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.cli.nat import _shown
from natgw.cli.options import NAT_TYPES
from natgw.control import configfile, natconfig
from natgw.control.natconfig import changed, flat, record, words_to_changes
from natgw.control.options import DaemonOptions
from natgw.datapath import PRESETS, TIMEOUT_PROFILES, Dependence, NatBehaviour, NatConfig, Timeouts
from natgw.errors import NatgwError

DEFAULT = NatConfig()
EI, AD, APD = Dependence


def behaviours() -> st.SearchStrategy[NatBehaviour]:
    free = st.builds(NatBehaviour, mapping=st.sampled_from(Dependence), filtering=st.sampled_from(Dependence))
    return free | st.just(NatBehaviour(mapping=APD, filtering=APD, overload=True))


def times(above: float = 0) -> st.SearchStrategy[float]:
    return st.integers(1, 10**6) | st.floats(above, 10**6, exclude_min=True)


configs = st.builds(
    NatConfig, udp=behaviours(), tcp=behaviours(), allocation=st.sampled_from(("preserve", "random", "sequential")),
    timeouts=st.builds(Timeouts, **{name: times() for name in Timeouts.__dataclass_fields__}),
    parity=st.booleans(), external_addresses=st.lists(st.ip_addresses(v=4), max_size=3).map(tuple), paired=st.booleans(),
    hairpin=st.booleans(), refresh_inbound=st.booleans(), pick_up=st.booleans(), hold_syn_s=times(), port_rest_s=times(),
    ports_per_host=st.integers(0, 65535), flows_per_host_per_s=times(),
    untranslated=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=3).map(
        lambda found: tuple(IPv4Network(each, strict=False) for each in found)))


# ---- both ways -------------------------------------------------------------------------------------------------------


@given(configs, configs)
def test_a_record_says_all_of_it(wanted: NatConfig, other: NatConfig) -> None:
    """Whatever was there before, and nested or not."""
    assert changed(other, record(wanted)) == wanted
    assert changed(other, flat(record(wanted))) == wanted


@given(configs, configs)
def test_words_say_all_of_it(wanted: NatConfig, other: NatConfig) -> None:
    """As `natgw nat show` prints them."""
    words = [f"{name}={_shown(value)}" for name, value in flat(record(wanted)).items() if value is not None]
    assert changed(other, words_to_changes(words)) == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_types_by_name(name: str) -> None:
    assert changed(DEFAULT, {"type": name}) == PRESETS[name]
    assert natconfig.type_of(PRESETS[name]) == record(PRESETS[name])["type"] == name


def test_the_command_line_knows_the_types() -> None:
    assert list(NAT_TYPES) == list(PRESETS)


def test_every_field_has_a_key() -> None:
    assert {key.field.partition(".")[0] for key in natconfig.KEYS.values()} == set(NatConfig.__dataclass_fields__)
    assert len({key.field for key in natconfig.KEYS.values()}) == len(natconfig.KEYS)


def test_what_has_no_name_is_null() -> None:
    found = record(changed(DEFAULT, {"udp.mapping": "adm", "timeouts.udp": 7}))
    assert (found["type"], found["timeouts"]["profile"]) == (None, None)


# ---- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_broad_keys_come_first_whatever_their_order(reverse: bool) -> None:
    changes = {"type": "symmetric", "filtering": "adf", "udp.filtering": "eif", "timeouts.profile": "linux",
               "timeouts.udp": "2m", "allocation": "sequential"}
    nat = changed(DEFAULT, dict(reversed(changes.items())) if reverse else changes)
    assert (nat.udp.mapping, nat.udp.filtering, nat.tcp.mapping, nat.tcp.filtering) == (APD, EI, APD, AD)
    assert nat.timeouts == replace(TIMEOUT_PROFILES["linux"], udp_s=120)
    assert nat.allocation == "sequential"


def test_a_later_type_comes_before_an_earlier_key() -> None:
    assert changed(changed(DEFAULT, {"mapping": "adm", "timeouts.udp": 7}), {"type": "symmetric"}) == PRESETS["symmetric"]


def test_a_type_leaves_addresses_and_limits() -> None:
    before = changed(DEFAULT, {"external_addresses": "192.0.2.1", "ports_per_host": 9, "hairpin": False, "port_rest": "1m"})
    after = changed(before, {"type": "linux"})
    assert after == replace(PRESETS["linux"], external_addresses=(IPv4Address("192.0.2.1"),), ports_per_host=9, hairpin=False,
                            port_rest_s=60)


def test_null_leaves_a_key_as_it_is() -> None:
    assert changed(PRESETS["linux"], {"type": None, "timeouts": {"profile": None, "udp": None}}) == PRESETS["linux"]


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value", "field", "expected"), [
    ("udp.mapping", "ADM", "udp", NatBehaviour(mapping=AD)),
    ("tcp.filtering", "endpoint-independent", "tcp", NatBehaviour(filtering=EI)),
    ("tcp.mapping", "address-and-port-dependent", "tcp", NatBehaviour(mapping=APD)),
    ("hold_syn", "500ms", "hold_syn_s", 0.5), ("hold_syn", "0", "hold_syn_s", 0), ("port_rest", "2h", "port_rest_s", 7200),
    ("port_rest", "1.5m", "port_rest_s", 90), ("port_rest", "5 d", "port_rest_s", 432000),
    ("port_rest", 0.25, "port_rest_s", 0.25),
    ("pooling", "arbitrary", "paired", False), ("hairpin", "off", "hairpin", False), ("hairpin", "NO", "hairpin", False),
    ("parity", "1", "parity", True), ("parity", True, "parity", True), ("pick_up", False, "pick_up", False),
    ("refresh_inbound", "false", "refresh_inbound", False), ("ports_per_host", "64", "ports_per_host", 64),
    ("flows_per_host", "2.5", "flows_per_host_per_s", 2.5), ("allocation", "Random", "allocation", "random"),
    ("external_addresses", "192.0.2.1, 192.0.2.2", "external_addresses", (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))),
    ("external_addresses", "none", "external_addresses", ()),
    ("untranslated", ["10.0.0.0/8", "192.0.2.1"], "untranslated", (IPv4Network("10.0.0.0/8"), IPv4Network("192.0.2.1/32"))),
    ("untranslated", "", "untranslated", ()),
])
def test_values(key: str, value: object, field: str, expected: Any) -> None:
    assert changed(DEFAULT, {key: value}) == replace(DEFAULT, **{field: expected})


@pytest.mark.parametrize(("changes", "message"), [
    ({"udp.maping": "eim"}, 'unknown key "udp.maping": did you mean "udp.mapping"?'),
    ({"udp": {"maping": "eim"}}, 'unknown key "udp.maping": did you mean "udp.mapping"?'),
    ({"timeouts": {"tcp_establshed": 3}}, 'unknown key "timeouts.tcp_establshed": did you mean "timeouts.tcp_established"?'),
    ({"udp.filtering": "eim"}, 'udp.filtering: "eim" is not one of eif, adf, apdf, endpoint-independent, address-dependent, '
                               'address-and-port-dependent: did you mean "eif"?'),
    ({"type": "fullcone"}, 'type: "fullcone" is not one of full-cone, restricted-cone, port-restricted, symmetric, linux: '
                           'did you mean "full-cone"?'),
    ({"type": 5}, 'type: "5" is not one of full-cone, restricted-cone, port-restricted, symmetric, linux'),
    ({"type": {"name": "linux"}}, "type: a table, where a value is wanted"),
    ({"udp": 3}, 'udp: "3" is not a table of keys'),
    ({"timeouts.udp": "5x"}, 'timeouts.udp: "5x" is not a time: seconds, or a number with ms, s, m, h or d'),
    ({"timeouts.udp": True}, 'timeouts.udp: "True" is not a time: seconds, or a number with ms, s, m, h or d'),
    ({"timeouts.udp": -1}, 'timeouts.udp: "-1" is not a time: seconds, or a number with ms, s, m, h or d'),
    ({"timeouts.udp": float("inf")}, 'timeouts.udp: "inf" is not a time: seconds, or a number with ms, s, m, h or d'),
    ({"timeouts.udp": "9" * 400}, 'timeouts.udp: "inf" is not a number, 0 or more'),
    ({"timeouts.udp": 0}, "timeouts: timeout udp must be more than 0 seconds"),
    ({"timeouts.profile": "lnux"}, 'timeouts.profile: "lnux" is not one of rfc, linux: did you mean "linux"?'),
    ({"hairpin": "perhaps"}, 'hairpin: "perhaps" is neither true nor false'),
    ({"hairpin": 2}, 'hairpin: "2" is neither true nor false'),
    ({"hairpin": []}, 'hairpin: "[]" is neither true nor false'),
    ({"ports_per_host": 1.5}, 'ports_per_host: "1.5" is not a whole number'),
    ({"ports_per_host": "many"}, 'ports_per_host: "many" is not a number, 0 or more'),
    ({"flows_per_host": "nan"}, 'flows_per_host: "nan" is not a number, 0 or more'),
    ({"external_addresses": "10.0.0.256"}, "external_addresses: Octet 256 (> 255) not permitted in '10.0.0.256'"),
    ({"external_addresses": [1]}, 'external_addresses: "[1]" is not a list of addresses'),
    ({"untranslated": "10.0.0.1/8"}, "untranslated: 10.0.0.1/8 has host bits set"),
    ({"allocation": "sequental"},
     'allocation: "sequental" is not one of preserve, random, sequential: did you mean "sequential"?'),
    ({"overload": True}, "udp: overload needs mapping and filtering that depend on address and port (apdm, apdf)"),
])
def test_what_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        changed(DEFAULT, changes, "x.toml: ")
    assert str(caught.value) == f"x.toml: {message}"


def test_a_key_like_none_there_is_names_them_all() -> None:
    with pytest.raises(NatgwError, match=r'^unknown key "zzzz"; known keys: type, mapping, .*, timeouts.tcp_close$'):
        changed(DEFAULT, {"zzzz": 1})


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9), max_leaves=4,
                           extend=lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                                             max_size=3))


@given(st.dictionaries(st.sampled_from((*natconfig.KNOWN, "udp", "timeouts", "")), json_values, max_size=3))
def test_whatever_comes_is_taken_or_refused(changes: dict[str, object]) -> None:
    try:
        after = changed(DEFAULT, changes)
    except NatgwError:
        return
    assert changed(DEFAULT, record(after)) == after


@pytest.mark.parametrize("word", ["type", "=linux", ""])
def test_words_that_are_none(word: str) -> None:
    with pytest.raises(NatgwError, match=f'^"{word}" is not KEY=VALUE$'):
        words_to_changes([word])


def test_of_a_key_given_twice_the_last_counts() -> None:
    assert words_to_changes(["type=linux", " type = a=b "]) == {"type": "a=b"}


# ---- the file --------------------------------------------------------------------------------------------------------

FILE = """
[up]
uplink = "eth9"
subnet = "10.9.0.0/24"
gateway = "10.9.0.9"
mtu = 1400
link = "veth"
big_tcp = false
port_range = "1024-2047"
exclusive_uplink = true
ipv6 = true
subnet6 = "fd00:9::/64"
dns = ["192.0.2.53", "2001:db8::53"]
dhcp = true
dhcp_lease = 600

[nat]
type = "symmetric"
udp.filtering = "eif"
timeouts = { profile = "linux", udp = "2m" }
"""


def read(tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (tmp_path / "n.toml").write_text(text)
    return configfile.read(tmp_path / "n.toml")


def test_a_file(tmp_path: Path) -> None:
    up, nat = read(tmp_path, FILE)
    options = DaemonOptions(**up, nat=changed(DEFAULT, nat))
    assert (options.uplink, str(options.subnet), str(options.gateway)) == ("eth9", "10.9.0.0/24", "10.9.0.9")
    assert (options.mtu, options.link, options.port_range, options.exclusive_uplink) == (1400, "veth", (1024, 2047), True)
    assert (options.ipv6, str(options.subnet6)) == (True, "fd00:9::/64")
    assert (options.dns, options.dhcp, options.dhcp_lease) == (("192.0.2.53", "2001:db8::53"), True, 600)
    assert (options.nat.udp, options.nat.tcp) == (NatBehaviour(mapping=APD, filtering=EI), NatBehaviour(mapping=APD))
    assert options.nat.timeouts == replace(TIMEOUT_PROFILES["linux"], udp_s=120)
    assert set(up) == set(configfile.UP) == set(tomllib.loads(FILE)["up"])


def test_an_empty_file(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ({}, {})


@pytest.mark.parametrize(("text", "message"), [
    ("[up]\nmtuu = 3", '[up] unknown key "mtuu": did you mean "mtu"?'),
    ("[natt]\nmtu = 3", 'unknown key "natt": did you mean "nat"?'),
    ("mtu = 3", 'unknown key "mtu"; known keys: up, nat'),
    ("up = 3", "up must be a table, [up]"),
    ("[up]\nmtu = 67", "[up] mtu: an MTU of 67 is not within 68-65521"),
    ("[up]\nmtu = true", '[up] mtu: "True" is not a number of bytes'),
    ("[up]\nuplink = 3", '[up] uplink: "3" is not a string'),
    ("[up]\nlink = 'vet'", '[up] link: "vet" is not one of tap, veth: did you mean "veth"?'),
    ("[up]\nsubnet = '10.0.0.1/8'", "[up] subnet: 10.0.0.1/8 has host bits set"),
    ("[up]\nport_range = '5-4'", "[up] port_range: '5-4' is not LO-HI within 1-65535"),
    ("[up]\nexclusive_uplink = 'yes'", '[up] exclusive_uplink: "yes" is neither true nor false'),
    ("[up", "not TOML: Expected ']' at the end of a table declaration (at end of document)"),
])
def test_what_a_file_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/n.toml: {message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NatgwError, match=r"n\.toml: no such file or directory$"):
        configfile.read(tmp_path / "n.toml")
    (tmp_path / "n.toml").write_bytes(b"\xff")
    with pytest.raises(NatgwError, match=r"n\.toml: not TOML: "):
        configfile.read(tmp_path / "n.toml")
