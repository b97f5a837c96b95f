"""Linux as the gateway: a namespace with a tap on either side, forwarding and a masquerade rule, and nothing else in it.

What is written to a tap is routed, tracked and translated by the kernel as if it had come from a wire; what leaves by a tap is
read. Markers tell that everything a packet caused has been read: packets that go the same way behind it, in both directions,
untracked and therefore never translated.

The rules are those of a host that does nothing but translate: it lets in what belongs to a flow, lets nothing through that
conntrack finds invalid (Linux would send it out untranslated), and has no servers of its own, but answers ping.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from natgw.host import netns
from tests.kernel.addresses import (
    EXTERNAL,
    GATEWAY,
    GATEWAY_MAC,
    HOSTS,
    OUTSIDE_MAC,
    OUTSIDE_MTU,
    REMOTES,
    ROUTER,
    UPLINK_MAC,
    mac_bytes,
)
from tests.kernel.packets import ip_header

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_NETLINK_NETFILTER = 12
_CT_DELETE = 1 << 8 | 2
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_AF_INET = 2

MARKER_INSIDE, MARKER_OUTSIDE = "172.17.255.254", "198.51.100.254"
MARKER_MAC = "02:cc:00:00:00:01"
_MARKER_WAIT_S = 30.0
_FRAME_BYTES = 65536

_RULES = f"""\
*raw
-A PREROUTING -s {MARKER_INSIDE} -j CT --notrack
-A PREROUTING -s {MARKER_OUTSIDE} -j CT --notrack
COMMIT
*nat
-A POSTROUTING -s 172.17.0.0/16 -o outside -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
-A INPUT -p icmp --icmp-type echo-request -j ACCEPT
-A INPUT -j DROP
-A FORWARD -s {MARKER_OUTSIDE} -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i inside -j ACCEPT
-A FORWARD -i outside -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # What a segment's numbers say is judged for resets alone, and a checksum is left to whom the packet is for.
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_checksum": "0",
    "net/netfilter/nf_conntrack_acct": "1",
}


@dataclass(frozen=True)
class Entry:
    """One line of conntrack's table. `reply` and `original` are (src, dst, sport, dport); an ICMP identifier is both ports."""

    protocol: str
    timeout_s: int
    state: str
    original: tuple[str, str, int, int]
    reply: tuple[str, str, int, int]


class KernelGateway:
    """The namespace. `close` ends it, with all that is in it."""

    sysctls: ClassVar[Mapping[str, str]] = _SYSCTLS
    rules = ("iptables-restore", _RULES)
    family = _AF_INET

    def __init__(self) -> None:
        self._fd = netns.create()
        self.path = netns.path_of(self._fd)
        self._count = 0
        try:
            self._taps = {name: netns.run_inside(self.path, _open_tap, name) for name in ("inside", "outside")}
            self._configure()
            self._netlink = netns.run_inside(self.path, socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._netlink.settimeout(_MARKER_WAIT_S)
            self._table = netns.run_inside(self.path, _open_conntrack)
        except BaseException:
            os.close(self._fd)
            raise

    def _configure(self) -> None:
        def write_sysctls() -> None:
            for name, value in self.sysctls.items():
                Path("/proc/sys", name).write_text(value)

        netns.run_inside(self.path, write_sysctls)
        self._run("ip", "-batch", "-", feed="\n".join(self.commands()) + "\n")
        # One queue, in which nothing overtakes: pfifo_fast has three, and what a busy machine sends a moment later than it
        # might would come out behind its marker.
        self._run("tc", "-batch", "-", feed="".join(f"qdisc replace dev {name} root pfifo\n" for name in self._taps))
        program, rules = self.rules
        self._run(program, feed=rules)

    def commands(self) -> list[str]:
        """What `ip` is told: addresses, routes and neighbours that need not be asked for."""
        commands = []
        for name, mac, address, mtu in (("inside", GATEWAY_MAC, f"{GATEWAY}/16", 1500),
                                        ("outside", UPLINK_MAC, f"{EXTERNAL}/24", OUTSIDE_MTU)):
            commands += [f"link set {name} address {mac} mtu {mtu}", f"addr add {address} dev {name}", f"link set {name} up"]
        commands += ["link set lo up", f"route add default via {ROUTER}"]
        inside = {**HOSTS, MARKER_INSIDE: MARKER_MAC}
        outside = {ROUTER: OUTSIDE_MAC, MARKER_OUTSIDE: MARKER_MAC}
        outside |= {ip: OUTSIDE_MAC for ip in REMOTES if ip.startswith("198.51.100.")}
        for name, neighbours in (("inside", inside), ("outside", outside)):
            commands += [f"neigh replace {ip} lladdr {mac} dev {name} nud permanent" for ip, mac in neighbours.items()]
        return commands

    def _run(self, *command: str, feed: str) -> None:
        done = subprocess.run(["nsenter", f"--net={self.path}", "--", *command], input=feed, text=True, capture_output=True,
                              timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

    def send(self, side: str, frames: list[bytes]) -> list[tuple[str, bytes]]:
        """Let frames come in at a side; gives all that leaves because of them, as (side, frame)."""
        for frame in frames:
            os.write(self._taps[side], frame)
        self._count += 1
        for name, frame in self.markers(self._count).items():
            os.write(self._taps[name], frame)
        return [(name, frame) for name in ("inside", "outside") for frame in self._read_to_marker(name)]

    def _read_to_marker(self, name: str) -> list[bytes]:
        fd, tail = self._taps[name], self._count.to_bytes(8, "big")
        found: list[bytes] = []
        deadline = time.monotonic() + _MARKER_WAIT_S
        while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            frame = os.read(fd, _FRAME_BYTES)
            if not self.is_marker(frame):
                found.append(frame)
            elif frame[-8:] == tail:
                return found
        raise AssertionError(f"the marker did not come out {name}; before it came {found}")

    def markers(self, count: int) -> dict[str, bytes]:
        """The frames that end what was sent so far: one for each side, with the number behind."""
        return _markers(count)

    def is_marker(self, frame: bytes) -> bool:
        return frame[26:30] in (socket.inet_aton(MARKER_OUTSIDE), socket.inet_aton(MARKER_INSIDE))

    def flush(self) -> None:
        """Forget all flows."""
        message = struct.pack("=IHHIIBBH", 20, _CT_DELETE, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0, self.family, 0, 0)
        self._netlink.send(message)
        (error,) = struct.unpack_from("=i", self._netlink.recv(4096), 16)
        assert error == 0, os.strerror(-error)

    def entries(self) -> list[Entry]:
        """Conntrack's table as it is now."""
        os.lseek(self._table, 0, os.SEEK_SET)
        text = b""
        while chunk := os.read(self._table, _FRAME_BYTES):
            text += chunk
        return [entry for line in text.decode().splitlines() if (entry := _entry(line)) is not None]

    def close(self) -> None:
        self._netlink.close()
        for fd in (*self._taps.values(), self._table, self._fd):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _open_tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return fd


def _open_conntrack() -> int:
    return os.open("/proc/thread-self/net/nf_conntrack", os.O_RDONLY | os.O_CLOEXEC)


def _markers(count: int) -> dict[str, bytes]:
    """One packet each way, behind all that was sent before."""
    made = {}
    for side, mac, src, dst in (("inside", GATEWAY_MAC, MARKER_INSIDE, MARKER_OUTSIDE),
                                ("outside", UPLINK_MAC, MARKER_OUTSIDE, MARKER_INSIDE)):
        body = struct.pack("!HHHH", 9, 9, 16, 0) + count.to_bytes(8, "big")
        made[side] = mac_bytes(mac) + mac_bytes(MARKER_MAC) + b"\x08\x00" + ip_header(src, dst, 17, len(body)) + body
    return made


def _entry(line: str) -> Entry | None:
    words = line.split()
    if words[0] != "ipv4" or words[2] not in ("tcp", "udp", "icmp"):
        return None
    values: dict[str, list[str]] = {}
    for word in words[5:] if words[2] != "tcp" else words[6:]:
        name, equals, value = word.partition("=")
        if equals:
            values.setdefault(name, []).append(value)
    if words[2] == "icmp":
        values["sport"] = values["dport"] = values["id"]
    original, reply = ((values["src"][way], values["dst"][way], int(values["sport"][way]), int(values["dport"][way]))
                       for way in (0, 1))
    if words[2] == "tcp":
        state = words[5]
    else:
        state = "UNREPLIED" if "[UNREPLIED]" in words else "REPLIED"
    return Entry(words[2], int(words[4]), state, original, reply)
