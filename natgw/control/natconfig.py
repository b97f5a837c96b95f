"""The translator's behaviour as people write it: TOML tables, JSON objects and KEY=VALUE words, into NatConfig and back.

There is one way to change it, at the start and live: `changed` takes what is there and a set of changes. Within a set the
broad keys come first, whatever their order: a NAT type, then both protocols and a profile of timeouts, then single keys.
So `type = "symmetric"` with `udp.filtering = "eif"` beside it is symmetric but for that. Between sets (a file, the command
line, a live change) the later one wins, broad keys too.

A NAT type stands for mapping, filtering, port policy, timeouts and the wait of a SYN; addresses and limits stay as they are.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from natgw.datapath.allocation import POLICIES
from natgw.datapath.behaviour import (
    PRESETS,
    SHORT_NAMES,
    TIMEOUT_PROFILES,
    Dependence,
    NatConfig,
    Timeouts,
)
from natgw.errors import NatgwError

Record = dict[str, Any]

OF_A_TYPE = ("udp", "tcp", "timeouts", "allocation", "hold_syn_s")
"""The fields of NatConfig that a NAT type sets."""
PROTOCOLS = ("udp", "tcp")

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_POOLING = {"paired": True, "arbitrary": False}
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z]*)")


# ---- values ----------------------------------------------------------------------------------------------------------


def one_of(words: Mapping[str, Any] | Iterable[str], value: object) -> Any:
    """What a word stands for, or the word itself. Raises ValueError that names the nearest one, or all."""
    known = words if isinstance(words, Mapping) else {word: word for word in words}
    word = str(value).lower() if isinstance(value, bool | str) else value
    exact = {each.lower(): each for each in known}
    if isinstance(word, str) and word in exact:
        return known[exact[word]]
    raise ValueError(f"{_quoted(value)} is not one of {', '.join(known)}" + did_you_mean(value, known))


def _dependence(kind: str) -> Callable[[object], Dependence]:
    words = SHORT_NAMES[kind] | {each.value: each for each in Dependence}
    return lambda value: one_of(words, value)


def _short(kind: str, value: Dependence) -> str:
    return next(word for word, each in SHORT_NAMES[kind].items() if each is value)


def flag(value: object) -> bool:
    """true or false, also yes/no, on/off and 1/0. Raises ValueError."""
    word = str(value).lower() if isinstance(value, bool | str) else value
    if not (isinstance(word, str) and word in _FLAGS):
        raise ValueError(f"{_quoted(value)} is neither true nor false")
    return _FLAGS[word]


def number(value: object) -> float:
    """A number, 0 or more, whole if it can be. Raises ValueError."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise ValueError(f"{_quoted(value)} is not a number, 0 or more")
    return _plain(found)


def count(value: object) -> int:
    """A whole number, 0 or more. Raises ValueError."""
    found = number(value)
    if found != int(found):
        raise ValueError(f"{_quoted(value)} is not a whole number")
    return int(found)


def seconds(value: object) -> float:
    """A time in seconds, or with a unit: `90`, `0.5`, `500ms`, `5m`, `2h`, `5d`. Raises ValueError."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip().lower())
        if found is not None and found[2] in _UNITS_S:
            return number(float(found[1]) * _UNITS_S[found[2]])
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return _plain(value)
    raise ValueError(f"{_quoted(value)} is not a time: seconds, or a number with ms, s, m, h or d")


def _each(parse: Callable[[str], Any]) -> Callable[[object], tuple[Any, ...]]:
    """A list, or words with commas between them; `none` and nothing at all are an empty one."""

    def parsed(value: object) -> tuple[Any, ...]:
        words = value.replace(",", " ").split() if isinstance(value, str) else value
        if not (isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)):
            raise ValueError(f"{_quoted(value)} is not a list of addresses")
        return () if list(words) == ["none"] else tuple(parse(word) for word in words)

    return parsed


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _plain(value: float) -> float:
    """300 rather than 300.0, for those who read it."""
    return int(value) if value == int(value) else float(value)


# ---- keys ------------------------------------------------------------------------------------------------------------


def _itself(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Key:
    """A single key: the field of NatConfig it sets, and how its value is read and shown. `may_be` describes the values."""

    field: str
    may_be: str
    parse: Callable[[object], Any]
    show: Callable[[Any], Any] = _itself


def _protocol_keys(protocol: str) -> dict[str, Key]:
    return {
        f"{protocol}.mapping": Key(f"{protocol}.mapping", "eim, adm or apdm", _dependence("mapping"),
                                   lambda value: _short("mapping", value)),
        f"{protocol}.filtering": Key(f"{protocol}.filtering", "eif, adf or apdf", _dependence("filtering"),
                                     lambda value: _short("filtering", value)),
        f"{protocol}.overload": Key(f"{protocol}.overload", "true or false", flag),
    }


def _timeout_keys() -> dict[str, Key]:
    return {f"timeouts.{item.name.removesuffix('_s')}": Key(f"timeouts.{item.name}", "seconds, or 90s, 5m, 2h", seconds)
            for item in fields(Timeouts)}


KEYS: dict[str, Key] = {
    **_protocol_keys("udp"),
    **_protocol_keys("tcp"),
    "allocation": Key("allocation", "preserve, random, sequential, or a policy of your own",
                      lambda value: one_of({name: name for name in POLICIES}, value)),
    "parity": Key("parity", "true or false", flag),
    "external_addresses": Key("external_addresses", "addresses of the uplink, or none", _each(IPv4Address), _texts),
    "pooling": Key("paired", "paired or arbitrary", lambda value: one_of(_POOLING, value),
                   lambda paired: "paired" if paired else "arbitrary"),
    "hairpin": Key("hairpin", "true or false", flag),
    "refresh_inbound": Key("refresh_inbound", "true or false", flag),
    "pick_up": Key("pick_up", "true or false", flag),
    "hold_syn": Key("hold_syn_s", "seconds, 0 for not at all", seconds),
    "port_rest": Key("port_rest_s", "seconds, 0 for not at all", seconds),
    "ports_per_host": Key("ports_per_host", "a number, 0 for no limit", count),
    "flows_per_host": Key("flows_per_host_per_s", "new flows a second, 0 for no limit", number),
    "untranslated": Key("untranslated", "networks, or none", _each(IPv4Network), _texts),
    **_timeout_keys(),
}
"""Every key that stands for one value, in the order in which they are shown."""

TYPE, PROFILE = "type", "timeouts.profile"
BROAD = {
    TYPE: ", ".join(PRESETS),
    "mapping": "eim, adm or apdm, for both protocols",
    "filtering": "eif, adf or apdf, for both protocols",
    "overload": "true or false, for both protocols",
    PROFILE: ", ".join(TIMEOUT_PROFILES),
}
"""Keys that stand for several."""
KNOWN = {TYPE: BROAD[TYPE], **BROAD, **{name: key.may_be for name, key in KEYS.items()}}
"""All keys, with what they may be."""


def changed(config: NatConfig, changes: Mapping[str, object], where: str = "") -> NatConfig:
    """The behaviour after a set of changes, with keys as `udp.mapping` or nested as TOML and JSON have them.

    None leaves a key as it is. Raises NatgwError, with `where` in front: the name of a file or of an option.
    """
    given = {name: value for name, value in _flat(changes, where).items() if value is not None}
    for name in given:
        if name not in KNOWN:
            raise NatgwError(f"{where}{unknown_key(name, KNOWN)}")
    values = _values(config)
    for name in sorted(given, key=_breadth):
        try:
            values |= _meaning(name, given[name])
        except ValueError as error:
            raise NatgwError(f"{where}{name}: {error}") from None
    try:
        return _config(values)
    except ValueError as error:
        raise NatgwError(f"{where}{error}") from None


def words_to_changes(words: Iterable[str]) -> dict[str, object]:
    """`key=value` words as a set of changes; the last of a key counts. Raises NatgwError."""
    found: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key.strip() and equals):
            raise NatgwError(f"{_quoted(word)} is not KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def record(config: NatConfig) -> Record:
    """The behaviour, nested as TOML has it. `type` and `timeouts.profile` are None where no name fits."""
    values = _values(config)
    found: Record = {TYPE: type_of(config)}
    for name, value in ((PROFILE, profile_of(config.timeouts)), *((n, key.show(values[key.field])) for n, key in KEYS.items())):
        table, _, last = name.rpartition(".")
        (found.setdefault(table, {}) if table else found)[last] = value
    return found


def flat(found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A record with keys as `udp.mapping`."""
    flattened: dict[str, Any] = {}
    for name, value in found.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flattened


def type_of(config: NatConfig) -> str | None:
    """The NAT type that maps and filters like this, if there is a name for it."""
    return next((name for name, each in PRESETS.items() if (each.udp, each.tcp) == (config.udp, config.tcp)), None)


def profile_of(timeouts: Timeouts) -> str | None:
    """The profile that has these timeouts."""
    return next((name for name, each in TIMEOUT_PROFILES.items() if each == timeouts), None)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say about a key that does not exist."""
    names = list(known)
    return f"unknown key {_quoted(key)}" + (did_you_mean(key, names) or f"; known keys: {', '.join(names)}")


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """The word that was probably meant, if there is one."""
    near = difflib.get_close_matches(str(value).lower(), list(known), n=1)
    return f": did you mean {_quoted(near[0])}?" if near else ""


def _quoted(value: object) -> str:
    return f'"{value}"'


# ---- both ways -------------------------------------------------------------------------------------------------------


def _flat(changes: Mapping[str, object], where: str) -> dict[str, object]:
    """`flat`, if what should be a table is one and what should be a value is none."""
    tables = {name.rpartition(".")[0] for name in KNOWN if "." in name}
    for name, value in changes.items():
        if name in tables and not isinstance(value, Mapping):
            raise NatgwError(f"{where}{name}: {_quoted(value)} is not a table of keys")
        if name in KNOWN and isinstance(value, Mapping):
            raise NatgwError(f"{where}{name}: a table, where a value is wanted")
    return flat(changes)


def _breadth(name: str) -> int:
    """What is applied before what."""
    return 0 if name == TYPE else 1 if name in BROAD else 2


def _meaning(name: str, value: object) -> Record:
    """The single values, by their fields, that a key with this value stands for. Raises ValueError."""
    if name == TYPE:
        values = _values(one_of(PRESETS, value))
        return {field: values[field] for field in values if field.split(".")[0] in OF_A_TYPE}
    if name == PROFILE:
        timeouts = one_of(TIMEOUT_PROFILES, value)
        return {f"timeouts.{item.name}": getattr(timeouts, item.name) for item in fields(Timeouts)}
    if name in BROAD:
        parsed = KEYS[f"udp.{name}"].parse(value)
        return {f"{protocol}.{name}": parsed for protocol in PROTOCOLS}
    return {KEYS[name].field: KEYS[name].parse(value)}


def _values(config: NatConfig) -> Record:
    """Every single value by its field, such as `udp.mapping` and `timeouts.udp_s`."""
    found: Record = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in (*PROTOCOLS, "timeouts"):
            found |= {f"{item.name}.{inner.name}": getattr(value, inner.name) for inner in fields(value)}
        else:
            found[item.name] = value
    return found


def _config(values: Record) -> NatConfig:
    """The inverse of `_values`. Raises ValueError for what does not go together."""
    outer: Record = {name: value for name, value in values.items() if "." not in name}
    base = NatConfig()
    for table in (*PROTOCOLS, "timeouts"):
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{table}.")}
        try:
            outer[table] = replace(getattr(base, table), **inner)
        except ValueError as error:
            raise ValueError(f"{table}: {error}") from None
    return replace(base, **outer)
