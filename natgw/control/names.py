"""Names and ids in Docker's form: 64 hex ids, 02:42 MAC addresses, veth names, and names for what was given none."""

from __future__ import annotations

import random
import re
import secrets
from datetime import UTC, datetime
from ipaddress import IPv4Address

from natgw.errors import NatgwError

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
LONGEST_NAME = 128
_MOODS = ("amber", "brisk", "calm", "deft", "eager", "fair", "gentle", "hardy", "keen", "lucid", "merry", "nimble", "plain",
          "quiet", "ready", "sunny", "tidy", "vivid", "warm", "witty")
_THINGS = ("anchor", "beacon", "bridge", "canal", "cedar", "comet", "delta", "ember", "fjord", "harbour", "lantern", "meadow",
           "otter", "pebble", "quarry", "river", "sparrow", "thistle", "valley", "willow")


def new_id() -> str:
    """64 hex digits that nothing else has."""
    return secrets.token_hex(32)


def veth_name() -> str:
    """`veth` and 7 hex digits, as Docker names the host's end."""
    return "veth" + secrets.token_hex(4)[:7]


def mac_for(address: IPv4Address) -> bytes:
    """02:42 and the four bytes of the address: Docker's way, the same address always has the same MAC."""
    return b"\x02\x42" + address.packed


def generated_name(taken: set[str], rng: random.Random) -> str:
    """A name like `calm_otter` that is not taken."""
    for _ in range(100):
        name = f"{rng.choice(_MOODS)}_{rng.choice(_THINGS)}"
        if name not in taken:
            return name
    return f"container_{secrets.token_hex(4)}"


def check_name(name: str) -> str:
    """Raises NatgwError, in Docker's words, for a name that is none."""
    if not NAME.fullmatch(name):
        raise NatgwError(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if len(name) > LONGEST_NAME:
        raise NatgwError(f"Invalid container name ({name[:20]}...), it is longer than {LONGEST_NAME} characters")
    return name


def check_network_name(name: str) -> str:
    """The same for the name of a network."""
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise NatgwError(f"{name[:LONGEST_NAME]} includes invalid characters for a local network name: only "
                         f"[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, {LONGEST_NAME} of them at most")
    return name


def check_ifname(name: str) -> str:
    """Raises NatgwError for what Linux does not take as the name of an interface (dev_valid_name in net/core/dev.c)."""
    if not 1 <= len(name.encode()) <= 15 or name in (".", "..") or any(sign in "/:" or sign.isspace() or not sign.isprintable()
                                                                       for sign in name):
        raise NatgwError(f"invalid interface name {name!r}: 1 to 15 characters without spaces, slashes and colons")
    return name


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, UTC, from nanoseconds since the epoch."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
