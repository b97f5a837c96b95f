"""Leases in the store, by the name of their network: they outlive the daemon, and the network's id may not."""

from __future__ import annotations

import time

from natgw.control.store import Store
from natgw.tables.leases import Lease


def drop_expired(store: Store) -> None:
    """What is over, on networks without a DHCP server too."""
    with store.connection as connection:
        connection.execute("DELETE FROM leases WHERE ends <= ?", (time.time(),))


class LeaseStore:
    """Leases of one network. In the file their ends are times of day; a `Lease` has them by the loop's clock."""

    def __init__(self, store: Store, network: str) -> None:
        self._store = store
        self._network = network

    def save(self, lease: Lease, now: float) -> None:
        ends = time.time() + lease.until - now
        with self._store.connection as connection:
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                               (self._network, lease.client, lease.mac, lease.ip, ends, lease.dynamic))

    def drop(self, lease: Lease) -> None:
        with self._store.connection as connection:
            connection.execute("DELETE FROM leases WHERE network = ? AND client = ?", (self._network, lease.client))

    def drop_all(self, *, dynamic_too: bool) -> None:
        """Those of natgw's own endpoints, which go with them, or all."""
        with self._store.connection as connection:
            connection.execute("DELETE FROM leases WHERE network = ? AND (? OR NOT dynamic)", (self._network, dynamic_too))

    def load(self, now: float) -> list[Lease]:
        rows = self._store.connection.execute("SELECT * FROM leases WHERE network = ?", (self._network,)).fetchall()
        return [Lease(row["client"], row["mac"], row["ip"], row["ends"] - time.time() + now, bound=True,
                      dynamic=bool(row["dynamic"])) for row in rows]
