"""What natgw has made outside its own memory: written down before it is made, crossed out after it is removed.

After a kill -9 the next `up` reads the ledger and takes away what is left. Taps and namespaces go with their process;
a veth pair, the guard, a sysctl and the processes of containers do not. A process is known by its pid and its start time,
so that a pid that was given to somebody else since is left alone.

One JSON object a line, appended: a line that was not finished when the power went is ignored.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from natgw.host import guard, interfaces, sysctl

Entry = dict[str, Any]


class Ledger:
    """The file at `path`; its folder must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

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
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                change = json.loads(line)
            except ValueError:
                continue
            if "add" in change:
                entries.append(change["add"])
            elif change.get("drop") in entries:
                entries.remove(change["drop"])
        return entries[::-1]

    def clear(self) -> None:
        """Nothing is left."""
        self._path.unlink(missing_ok=True)

    def _append(self, change: Entry) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(change) + "\n")


def remove_leftovers(entries: list[Entry]) -> list[str]:
    """Remove what a natgw that was killed left behind; gives a line on each for the log. Blocking."""
    report = []
    for entry in entries:
        kind = entry.get("kind")
        if kind == "link" and interfaces.delete_link(entry["name"]):
            report.append(f"removed interface {entry['name']}")
        elif kind == "guard":
            guard.remove_leftover(entry["ifname"], qdisc=entry["qdisc"])
            report.append(f"removed the guard from {entry['ifname']}")
        elif kind == "reserved-ports":
            sysctl.write_reserved(entry["before"])
            report.append("restored net.ipv4.ip_local_reserved_ports")
        elif kind == "process" and start_time(entry["pid"]) == entry["start"]:
            os.kill(entry["pid"], signal.SIGKILL)
            report.append(f"ended process {entry['pid']}")
    return report


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat); None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name may hold anything, parentheses too: count from the last one.
    return int(stat.rpartition(")")[2].split()[19])
