"""ip_local_reserved_ports: ports the host's own connections must not choose, because natgw maps flows to them."""

from __future__ import annotations

from pathlib import Path

from natgw.errors import NatgwError

RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def read_reserved() -> str:
    """The list as the kernel prints it, such as `8080,40000-65535`; empty for none."""
    return RESERVED.read_text().strip()


def write_reserved(value: str) -> None:
    """Replace the list. Raises NatgwError where it cannot be written: without root, or with /proc/sys read-only."""
    try:
        RESERVED.write_text(value + "\n")
    except OSError as error:
        raise NatgwError(f"cannot reserve ports in net.ipv4.ip_local_reserved_ports: {error.strerror} "
                         "(natgw needs root and a writable /proc/sys)") from None


def reserve_ports(low: int, high: int) -> str:
    """Add a range to the list; gives the list as it was, to be written back in the end."""
    before = read_reserved()
    write_reserved(f"{before},{low}-{high}" if before else f"{low}-{high}")
    return before
