"""/etc/resolv.conf (resolv.conf(5)): which resolvers a host asks, and how; read, and written for containers."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

HOSTS_OWN = Path("/etc/resolv.conf")
MAX_SERVERS = 3
"""More are ignored (MAXNS of resolv.h)."""
LARGEST_BYTES = 65536


@dataclass(frozen=True)
class ResolvConf:
    """`servers` are addresses, of IPv6 with a scope perhaps; `search` and `options` are the words of those lines."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def asks_loopback(self) -> bool:
        """Whether it means a resolver on the host itself, which a container cannot reach by that address."""
        return not self.servers or any(ip_address(server.partition("%")[0]).is_loopback for server in self.servers)

    def text(self) -> str:
        """As a file."""
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append("search " + " ".join(self.search))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(f"{line}\n" for line in ("# Made by natgw for this container.", *lines))


def parse(text: str) -> ResolvConf:
    """What a file says; lines that mean nothing here are passed over, as the resolver does. Of `search` and `domain` the last
    one counts, options add up."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["nameserver", server, *_] if len(servers) < MAX_SERVERS and _is_address(server):
                servers.append(server)
            case ["search" | "domain", *names]:
                search = tuple(names)
            case ["options", *more]:
                options += more
    return ResolvConf(tuple(servers), search, tuple(options))


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


class Watched:
    """A resolv.conf that is read again when it has changed."""

    def __init__(self, path: Path = HOSTS_OWN) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self.conf = ResolvConf()
        self.refresh()

    def refresh(self) -> bool:
        """Look whether the file is another one now; whether what it says has changed."""
        try:
            status = self._path.stat()
            seen: tuple[int, ...] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            seen = ()
        if seen == self._seen:
            return False
        self._seen = seen
        before = self.conf
        self.conf = parse(self._read()) if seen else ResolvConf()
        return self.conf != before

    def _read(self) -> str:
        try:
            with self._path.open(errors="replace") as file:
                return file.read(LARGEST_BYTES)
        except OSError:
            return ""
