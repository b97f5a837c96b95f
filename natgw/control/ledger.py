"""What natgw has made outside its own memory: written down before it is made, crossed out after it is removed.

After a kill -9 the next `up` reads the ledger and takes away what is left. Taps and namespaces go with their process;
a veth pair, the guard, what was set on the uplink, a sysctl and the processes of containers do not. A process is known by
its pid and its start time, so that a pid that was given to somebody else since is left alone; all the rest is known by the
boot and the network namespace it was made in, which the first line says.

One JSON object a line, appended: a line that was not finished when the power went is ignored.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natgw.control.processes import kill_left_behind
from natgw.host import guard, interfaces, netns, sysctl

Entry = dict[str, Any]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Ledger:
    """The file at `path`; its folder must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> None:
        """Start anew, in this boot and this network namespace."""
        self.clear()
        self.note("place", **_here())

    def note(self, kind: str, **fields: Any) -> Entry:
        """Write down something that is about to be made."""
        entry = {"kind": kind, **fields}
        self._append({"add": entry})
        return entry

    def forget(self, entry: Entry) -> None:
        """Cross out something that was removed."""
        self._append({"drop": entry})

    def outstanding(self) -> list[Entry]:
        """What was made and not removed, the newest first: the order to remove it in."""
        entries: list[Entry] = []
        for change in self._changes():
            if isinstance(change.get("add"), dict):
                entries.append(change["add"])
            elif change.get("drop") in entries:
                entries.remove(change["drop"])
        return entries[::-1]

    def clear(self) -> None:
        """Nothing is left."""
        self._path.unlink(missing_ok=True)

    def _changes(self) -> Iterator[Entry]:
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                change = json.loads(line)
            except ValueError:
                continue
            if isinstance(change, dict):
                yield change

    def _append(self, change: Entry) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(change) + "\n")


def remove_leftovers(entries: list[Entry]) -> list[str]:
    """Remove what a natgw that was killed left behind; gives a line on each for the log. Blocking.

    What was left in another boot is gone. What was left in another network namespace cannot be removed from this one,
    where the same names mean other things; its processes can.
    """
    here = _here()
    places = [entry for entry in entries if entry.get("kind") == "place"]
    if any(place.get("boot") != here["boot"] for place in places):
        return []
    same_namespace = all(place.get("netns") == here["netns"] for place in places)
    report = []
    for entry in entries:
        if entry.get("kind") == "process" or same_namespace:
            try:
                done = _remove(entry)
            except KeyError as error:
                done = f"cannot read an entry of the ledger: no {error}"
        else:
            done = f"made in another network namespace, not touched: {entry.get('kind')}" if entry not in places else None
        if done is not None:
            report.append(done)
    return report


def _remove(entry: Entry) -> str | None:
    kind = entry.get("kind")
    if kind == "link" and interfaces.delete_link(entry["name"]):
        return f"removed interface {entry['name']}"
    if kind == "guard":
        guard.remove_leftover(entry["ifname"], qdisc=entry["qdisc"])
        return f"removed the guard from {entry['ifname']}"
    if kind == "superframes" and interfaces.set_superframe_bytes(entry["ifname"], entry["before"]):
        return f"restored the longest superframe of {entry['ifname']}"
    if kind == "reserved-ports":
        sysctl.write_reserved(entry["before"])
        return "restored net.ipv4.ip_local_reserved_ports"
    if kind == "socket":
        return _remove_socket(Path(entry["path"]))
    if kind == "process" and kill_left_behind(entry["pid"], entry["start"], tuple(entry["netns"])):
        return f"ended process {entry['pid']} and what ran beside it"
    return None


def _remove_socket(path: Path) -> str | None:
    """One that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        if not path.is_socket() or probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            return None
    path.unlink(missing_ok=True)
    return f"removed socket {path}"


def _here() -> Entry:
    # /proc/self would be the main thread's too, but this says what is meant: where this thread's netlink sockets lead.
    return {"boot": _BOOT_ID.read_text().strip(), "netns": list(netns.namespace_id("/proc/thread-self/ns/net"))}
