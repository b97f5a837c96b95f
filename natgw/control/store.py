"""What outlives the daemon, in SQLite: networks that were created, and the endpoints that come back after a restart.

The file is there while there is something worth keeping: a daemon that ends with nothing in it takes it away. Each change is
one transaction, so that a kill -9 leaves the state before it or after it. `PRAGMA user_version` says how many of MIGRATIONS
a file has seen; a newer file than this natgw knows is refused rather than guessed at.

Everything blocks, for as long as a small write takes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any

from natgw.control.model import Container, Endpoint, Ipam6Config, IpamConfig, Network
from natgw.control.portspec import PortBinding
from natgw.control.requests import EndpointRequest, NetworkRequest
from natgw.errors import NatgwError
from natgw.host import netns

FILE_NAME = "natgw.db"

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, owner TEXT NOT NULL,
        subnet TEXT NOT NULL, ip_range TEXT, gateway TEXT NOT NULL, aux TEXT NOT NULL,
        ipv6 INTEGER NOT NULL, internal INTEGER NOT NULL, attachable INTEGER NOT NULL,
        options TEXT NOT NULL, labels TEXT NOT NULL);
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL, network_mode TEXT NOT NULL,
        netns TEXT NOT NULL, netns_device INTEGER NOT NULL, netns_inode INTEGER NOT NULL,
        link TEXT NOT NULL, ifname TEXT NOT NULL, mtu INTEGER, offload INTEGER NOT NULL);
    CREATE TABLE endpoints (
        id TEXT PRIMARY KEY, network TEXT NOT NULL, owner TEXT NOT NULL, container_id TEXT NOT NULL, name TEXT NOT NULL,
        ip TEXT NOT NULL, ip6 TEXT, mac TEXT NOT NULL, aliases TEXT NOT NULL, ifname TEXT NOT NULL, link TEXT NOT NULL,
        mtu INTEGER NOT NULL, offload INTEGER NOT NULL, holds_address INTEGER NOT NULL, netns TEXT);
    CREATE TABLE ports (
        endpoint TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE, protocol TEXT NOT NULL,
        host_ip TEXT, host_port INTEGER NOT NULL, container_port INTEGER NOT NULL);
    """,
    """
    CREATE TABLE attachments (
        id TEXT PRIMARY KEY REFERENCES endpoints (id) ON DELETE CASCADE, netns_device INTEGER NOT NULL,
        netns_inode INTEGER NOT NULL, default_route INTEGER NOT NULL,
        ingress_rate INTEGER, ingress_burst INTEGER, egress_rate INTEGER, egress_burst INTEGER);
    """,
    """
    CREATE TABLE leases (
        network TEXT NOT NULL, client BLOB NOT NULL, mac BLOB NOT NULL, ip BLOB NOT NULL, ends REAL NOT NULL,
        dynamic INTEGER NOT NULL, PRIMARY KEY (network, client));
    """,
    """
    ALTER TABLE networks ADD COLUMN subnet6 TEXT;
    ALTER TABLE networks ADD COLUMN ip_range6 TEXT;
    ALTER TABLE networks ADD COLUMN gateway6 TEXT;
    ALTER TABLE networks ADD COLUMN aux6 TEXT;
    CREATE TABLE settings (id TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)
"""Scripts, each made once; new ones are added at the end."""

KEPT = ("networks", "endpoints", "containers", "leases")
"""The tables for whose rows the file is kept when the daemon ends; all else goes with them, unless a restart follows."""

UNIQUE_LOCAL_PREFIX = "unique local prefix"

Record = dict[str, Any]


@dataclass(frozen=True)
class StoredEndpoint:
    """A row of endpoints with its ports. `network` is a name."""

    row: Record
    bindings: list[PortBinding]

    @property
    def request(self) -> Record:
        """What asks for the same once more, as `natgw network connect` asks."""
        row = self.row
        return {"endpoint_id": row["id"], "ip": row["ip"], "ip6": row["ip6"], "mac": bytes.fromhex(row["mac"]).hex(":"),
                "aliases": json.loads(row["aliases"]), "ifname": row["ifname"]}

    @property
    def as_request(self) -> EndpointRequest:
        """The same for an engine's endpoint. Its address may be one that the engine has taken itself."""
        row = self.row
        return EndpointRequest(
            name=row["name"], id=row["id"], container_id=row["container_id"], owner=row["owner"], ip=IPv4Address(row["ip"]),
            mac=bytes.fromhex(row["mac"]), ip6=None if row["ip6"] is None else IPv6Address(row["ip6"]),
            aliases=tuple(json.loads(row["aliases"])), bindings=tuple(self.bindings), link=row["link"], ifname=row["ifname"],
            mtu=row["mtu"], offload=bool(row["offload"]), holds_address=bool(row["holds_address"]))


class Store:
    """The file `natgw.db` in a directory that exists. Raises NatgwError for one that is not ours to read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._frozen = False
        try:
            self.connection = sqlite3.connect(self.path)
            self.connection.row_factory = sqlite3.Row
            self.connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except sqlite3.Error as error:
            raise NatgwError(f"{self.path}: {error}; move it away to start without the networks it holds") from None
        self.path.chmod(0o600)

    def _migrate(self) -> None:
        version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise NatgwError(f"{self.path} was written by a newer natgw (version {version} of its form, this one knows "
                             f"{len(MIGRATIONS)}): use that one, or move the file away")
        if version < len(MIGRATIONS):
            self.connection.executescript(f"BEGIN; {' '.join(MIGRATIONS[version:])} PRAGMA user_version = {len(MIGRATIONS)}; "
                                          "COMMIT;")  # all in one: each transaction waits for the disk

    def freeze(self) -> None:
        """Keep what is there now, whatever is dropped from here on: a restart follows."""
        self._frozen = True

    @property
    def is_frozen(self) -> bool:
        return self._frozen

    def close(self) -> None:
        """Close the file; remove it if nothing in it is worth keeping. Twice is once."""
        try:
            empty = self.is_empty()
        except sqlite3.ProgrammingError:
            return
        self.connection.close()
        if empty:
            self.path.unlink(missing_ok=True)

    def is_empty(self) -> bool:
        tables = (*KEPT, "settings") if self._frozen else KEPT
        return not any(self.connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)

    # -- settings ----------------------------------------------------------------------------------------------------------

    def setting(self, id_: str) -> str | None:
        row = self.connection.execute("SELECT value FROM settings WHERE id = ?", (id_,)).fetchone()
        return None if row is None else str(row["value"])

    def save_setting(self, id_: str, value: str) -> None:
        with self.connection:
            self._put("settings", {"id": id_, "value": value})

    # -- networks ----------------------------------------------------------------------------------------------------------

    def save_network(self, network: Network) -> None:
        with self.connection:
            self._put("networks", {
                "id": network.id, "name": network.name, "created": network.created, "owner": network.owner,
                **_columns(network.addresses, ""), **_columns(network.ipam6, "6"),
                "ipv6": network.ipv6, "internal": network.internal, "attachable": network.attachable,
                "options": json.dumps(network.options), "labels": json.dumps(network.labels)})

    def rename_network(self, network: Network) -> None:
        """The network has another name now; what is on it goes on by that name."""
        with self.connection:
            self.connection.execute("UPDATE endpoints SET network = ? WHERE network = (SELECT name FROM networks WHERE id = ?)",
                                    (network.name, network.id))
            self.connection.execute("UPDATE networks SET name = ? WHERE id = ?", (network.name, network.id))

    def drop_network(self, id_: str) -> None:
        self._drop("networks", id_)

    def networks(self) -> list[NetworkRequest]:
        """Requests for the networks there were, in the order they were made."""
        return [NetworkRequest(
            id=row["id"], name=row["name"], created=row["created"], owner=row["owner"], subnet=IPv4Network(row["subnet"]),
            ip_range=None if row["ip_range"] is None else IPv4Network(row["ip_range"]), gateway=IPv4Address(row["gateway"]),
            aux={name: IPv4Address(address) for name, address in json.loads(row["aux"]).items()}, **_ipv6_of(row),
            internal=bool(row["internal"]), attachable=bool(row["attachable"]), options=json.loads(row["options"]),
            labels=json.loads(row["labels"])) for row in self._rows("networks")]

    # -- endpoints, and the containers that natgw re-attaches ------------------------------------------------------------------

    def save_endpoint(self, endpoint: Endpoint, bindings: Iterable[PortBinding], *, holds_address: bool = False) -> None:
        """`bindings` are what is published, each with the host port that it has; `holds_address` as in EndpointRequest."""
        if self._frozen:
            return
        with self.connection:
            self._put("endpoints", {
                "id": endpoint.id, "network": endpoint.network.name, "owner": endpoint.owner,
                "container_id": endpoint.container_id, "name": endpoint.name, "ip": str(endpoint.ip),
                "ip6": None if endpoint.ip6 is None else str(endpoint.ip6), "mac": endpoint.mac.hex(),
                "aliases": json.dumps(endpoint.aliases), "ifname": endpoint.ifname, "link": endpoint.link, "mtu": endpoint.mtu,
                "offload": endpoint.offload, "holds_address": holds_address, "netns": endpoint.netns})
            self.connection.execute("DELETE FROM ports WHERE endpoint = ?", (endpoint.id,))
            self.connection.executemany("INSERT INTO ports VALUES (?, ?, ?, ?, ?)", [
                (endpoint.id, binding.protocol, None if binding.host_ip is None else str(binding.host_ip),
                 binding.host_ports[0], binding.container_port) for binding in bindings])

    def name_endpoint(self, endpoint: Endpoint) -> None:
        """The endpoint's container has become known."""
        with self.connection:
            self.connection.execute("UPDATE endpoints SET name = ?, container_id = ? WHERE id = ?",
                                    (endpoint.name, endpoint.container_id, endpoint.id))

    def drop_endpoint(self, id_: str) -> None:
        self._drop("endpoints", id_)

    def endpoints(self) -> list[StoredEndpoint]:
        return [StoredEndpoint(dict(row), self._bindings(row["id"])) for row in self._rows("endpoints")]

    def save_attachment(self, id_: str, values: Record) -> None:
        """What a CNI attachment has beside its endpoint, which is there already."""
        with self.connection:
            self._put("attachments", {"id": id_, **values})

    def attachment(self, id_: str) -> Record | None:
        row = self.connection.execute("SELECT * FROM attachments WHERE id = ?", (id_,)).fetchone()
        return None if row is None else dict(row)

    def save_container(self, container: Container) -> None:
        device, inode = netns.namespace_id(container.netns)
        with self.connection:
            self._put("containers", {
                "id": container.id, "name": container.name, "created": container.created,
                "network_mode": container.network_mode, "netns": container.netns, "netns_device": device,
                "netns_inode": inode, "link": container.link, "ifname": container.ifname, "mtu": container.mtu,
                "offload": container.offload})

    def drop_container(self, id_: str) -> None:
        self._drop("containers", id_)

    def containers(self) -> list[Record]:
        return [dict(row) for row in self._rows("containers")]

    # -- small ---------------------------------------------------------------------------------------------------------------

    def _bindings(self, endpoint: str) -> list[PortBinding]:
        return [PortBinding(row["protocol"], None if row["host_ip"] is None else ip_address(row["host_ip"]),
                            range(row["host_port"], row["host_port"] + 1), row["container_port"])
                for row in self.connection.execute("SELECT * FROM ports WHERE endpoint = ? ORDER BY rowid", (endpoint,))]

    def _rows(self, table: str) -> list[sqlite3.Row]:
        return self.connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()

    def _put(self, table: str, values: Record) -> None:
        columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}",
                                values)

    def _drop(self, table: str, id_: str) -> None:
        if not self._frozen:
            with self.connection:
                self.connection.execute(f"DELETE FROM {table} WHERE id = ?", (id_,))


def _columns(ipam: IpamConfig | Ipam6Config | None, suffix: str) -> Record:
    """Addresses as the columns of a network have them."""
    texts = dict.fromkeys(("subnet", "gateway", "ip_range", "aux")) if ipam is None else {
        "subnet": str(ipam.subnet), "gateway": str(ipam.gateway), "ip_range": ipam.ip_range and str(ipam.ip_range),
        "aux": json.dumps({name: str(address) for name, address in ipam.aux.items()})}
    return {f"{name}{suffix}": text for name, text in texts.items()}


def _ipv6_of(row: sqlite3.Row) -> Record:
    """The part of a NetworkRequest that is about IPv6; of a network that was asked for with it and never had it, none."""
    if row["subnet6"] is None:
        return {}
    return {"ipv6": True, "subnet6": IPv6Network(row["subnet6"]), "gateway6": IPv6Address(row["gateway6"]),
            "ip_range6": None if row["ip_range6"] is None else IPv6Network(row["ip_range6"]),
            "aux6": {name: IPv6Address(address) for name, address in json.loads(row["aux6"]).items()}}
