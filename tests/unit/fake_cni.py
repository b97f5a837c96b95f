"""The CNI side of the fake daemon: attachments that are only written down."""

from __future__ import annotations

from typing import Any

from natgw.errors import Conflict, NatgwError, NotFound

Record = dict[str, Any]
Key = tuple[str, str, str]


def key_of(record: Record) -> Key:
    return record["network"], record["container_id"], record["ifname"]


class FakeCni:
    """`requests` holds what ADD was asked for; `inside` what CHECK sees in the namespace, `refuses` what ADD fails with."""

    def __init__(self) -> None:
        self.requests: list[Record] = []
        self.known: dict[Key, Record] = {}
        self.refuses: NatgwError | None = None
        self.nameservers: list[str] = []
        self.kept: list[Record] = []

    async def add(self, request: Record) -> Record:
        self.requests.append(request)
        if self.refuses is not None:
            raise self.refuses
        if key_of(request) in self.known:
            raise Conflict("that is attached already")
        number = len(self.known) + 2
        mac, address = f"02:42:0a:58:00:{number:02x}", f"10.88.0.{number}/16"
        record = self.known[key_of(request)] = {
            **{name: request[name] for name in ("network", "container_id", "ifname", "netns")},
            "name": request["name"],
            "ports": [{"protocol": "tcp", "host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80}],
            "bridge": "br-0123456789ab", "bridge_mac": "02:42:0a:58:00:01", "mac": mac, "mtu": 1400,
            "addresses": [{"address": address, "gateway": "10.88.0.1"}], "nameservers": self.nameservers, "faults": [],
            "inside": {"mac": mac, "mtu": 1400, "up": True, "addresses": [address],
                       "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}]},
        }
        return record

    async def delete(self, key: Record) -> None:
        self.known.pop(key_of(key), None)

    async def check(self, key: Record) -> Record:
        if key_of(key) not in self.known:
            raise NotFound("no such attachment")
        return self.known[key_of(key)]

    async def collect(self, network: str, valid: list[Record]) -> Record:
        self.kept = valid
        return {"removed": []}

    async def attachments(self) -> list[Record]:
        return list(self.known.values())
