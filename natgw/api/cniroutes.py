"""The requests that `natgw-cni` makes: an attachment is one interface of one container on one network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from natgw.api import schema
from natgw.api.backend import Backend, Record
from natgw.api.http import Handler, Request, Route
from natgw.api.schema import FLAG, FLAG_ON, INTEGER, NEEDED_TEXT, TEXT, TEXTS, Field, Fields


def _are_keys(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and set(one) == {"container_id", "ifname"} and all(isinstance(text, str) for text in one.values())
        for one in value)


KEY: Fields = {"network": NEEDED_TEXT, "container_id": NEEDED_TEXT, "ifname": NEEDED_TEXT}
ADD: Fields = {
    **KEY, "netns": NEEDED_TEXT, "name": TEXT, "aliases": TEXTS,
    "subnet": TEXT, "gateway": TEXT, "ip_range": TEXT, "ipv6": FLAG, "subnet6": TEXT, "gateway6": TEXT, "ip_range6": TEXT,
    "mtu": INTEGER, "link": TEXT, "internal": FLAG, "masquerade": FLAG_ON,
    "icc": FLAG_ON, "default_route": FLAG_ON, "ips": TEXTS, "mac": TEXT, "publish": TEXTS,
    "ingress_rate": INTEGER, "ingress_burst": INTEGER, "egress_rate": INTEGER, "egress_burst": INTEGER,
}
COLLECT: Fields = {
    "network": NEEDED_TEXT,
    "valid": Field("a list of objects with container_id and ifname", _are_keys, required=True),
}


class Answer(Protocol):
    def __call__(self, ask: Callable[[Request], Awaitable[Any]], *, status: int = 200) -> Handler: ...


def cni_routes(backend: Backend, answer: Answer) -> list[Route]:
    """`answer` makes a handler of a function that gives JSON."""

    async def add(request: Request) -> Record:
        return await backend.cni.add(_body(request, ADD))

    async def delete(request: Request) -> None:
        await backend.cni.delete(_body(request, KEY))

    async def check(request: Request) -> Record:
        return await backend.cni.check(_body(request, KEY))

    async def collect(request: Request) -> Record:
        body = _body(request, COLLECT)
        return await backend.cni.collect(body["network"], body["valid"])

    return [
        ("GET", "/v1/cni/attachments", answer(lambda request: backend.cni.attachments())),
        ("POST", "/v1/cni/attachments", answer(add, status=201)),
        ("DELETE", "/v1/cni/attachments", answer(delete)),
        ("POST", "/v1/cni/check", answer(check)),
        ("POST", "/v1/cni/gc", answer(collect)),
    ]


def _body(request: Request, fields: schema.Fields) -> dict[str, Any]:
    return schema.parse(request.body, fields)
