"""The control API's requests: each handler checks what came in, asks the daemon, and answers with JSON.

Paths, bodies and answers are in docs/cli.md. Errors are {"message": "..."} with a 4xx status, as Docker's are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from natgw.api import schema
from natgw.api.backend import Backend, Record
from natgw.api.cniroutes import cni_routes
from natgw.api.counters import groups
from natgw.api.filters import event_filter, flow_filter, follow_flag
from natgw.api.http import Application, Handler, HttpError, Request, Response, Route, json_response
from natgw.api.logstream import pieces
from natgw.api.orphans import Orphans
from natgw.control.events import Subscription
from natgw.errors import NatgwError, NotFound

log = logging.getLogger(__name__)


def make_app(backend: Backend, shut_down: Callable[[], None]) -> Application:
    """The application; `shut_down` is called when a request asks for the daemon's end."""
    api = Api(backend, shut_down)
    return Application(api.routes(), failure, api.close)


def failure(request: Request, error: Exception) -> Response:
    """Every failure in the same form; what nobody foresaw goes to the log with its traceback."""
    if isinstance(error, NatgwError):
        return _message(error.status, str(error))
    if isinstance(error, HttpError):
        return _message(error.status, f"page not found: {request.path}" if error.status == 404 else str(error))
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return _message(500, f"internal error: {type(error).__name__}: {error}")


def _message(status: int, text: str) -> Response:
    return json_response({"message": text}, status)


class Api:
    def __init__(self, backend: Backend, shut_down: Callable[[], None]) -> None:
        self.backend = backend
        self.shut_down = shut_down
        self.ending = False
        self.orphans = Orphans(backend)
        self.subscriptions: set[Subscription] = set()

    def routes(self) -> list[Route]:
        return [
            ("GET", "/v1/status", self.answer(lambda request: self.backend.status())),
            ("POST", "/v1/shutdown", self.shutdown),
            ("GET", "/v1/containers", self.answer(lambda request: self.backend.list_containers())),
            ("POST", "/v1/containers", self.run),
            ("GET", "/v1/containers/{name}", self.answer(lambda request: self.backend.container(_name(request)))),
            ("POST", "/v1/containers/{name}/started", self.answer(self.started)),
            ("POST", "/v1/containers/{name}/stop", self.answer(self.stop)),
            ("GET", "/v1/containers/{name}/logs", self.logs),
            ("POST", "/v1/containers/{name}/ports", self.answer(self.publish)),
            ("DELETE", "/v1/containers/{name}/ports", self.answer(self.unpublish)),
            ("POST", "/v1/endpoints", self.answer(self.attach, status=201)),
            ("DELETE", "/v1/endpoints/{name}", self.answer(lambda request: self.backend.detach(_name(request)))),
            ("GET", "/v1/ports", self.answer(lambda request: self.backend.ports())),
            ("GET", "/v1/networks", self.answer(lambda request: self.backend.list_networks())),
            ("POST", "/v1/networks", self.answer(self.create_network, status=201)),
            ("POST", "/v1/networks/prune", self.answer(self.prune_networks)),
            ("GET", "/v1/networks/{name}", self.answer(lambda request: self.backend.inspect_network(_name(request)))),
            ("DELETE", "/v1/networks/{name}", self.answer(lambda request: self.backend.remove_network(_name(request)))),
            ("POST", "/v1/networks/{name}/connect", self.answer(self.connect)),
            ("POST", "/v1/networks/{name}/disconnect", self.answer(self.disconnect)),
            ("GET", "/v1/events", self.events),
            ("GET", "/v1/nat", self.answer(lambda request: self.backend.nat())),
            ("PATCH", "/v1/nat", self.answer(self.set_nat)),
            ("GET", "/v1/flows", self.answer(self.flows)),
            ("GET", "/v1/fdb", self.answer(lambda request: self.backend.fdb())),
            ("GET", "/v1/neigh", self.answer(lambda request: self.backend.neigh())),
            ("GET", "/v1/stats", self.answer(self.stats)),
            ("GET", "/metrics", self.metrics),
            *cni_routes(self.backend, self.answer),
        ]

    def answer(self, ask: Callable[[Request], Awaitable[Any]], *, status: int = 200) -> Handler:
        """A handler that gives what `ask` returns as JSON; nothing (204) for None."""

        async def handler(request: Request) -> Response:
            value = await ask(request)
            if value is None:
                return Response(status=204)
            return json_response(value, status)

        return handler

    async def shutdown(self, request: Request) -> Response:
        if _body(request, schema.SHUTDOWN)["keep"]:
            await self.backend.keep()
        self.shut_down()
        return Response(status=202)

    async def run(self, request: Request) -> Response:
        body = _body(request, schema.RUN)
        container = await self.backend.run(body)
        if not body["detach"]:
            self.orphans.adopt(container["id"], request.peer)
        return json_response(container, 201)

    async def started(self, request: Request) -> Any:
        body = _body(request, schema.STARTED)
        return await self.backend.started(_name(request), body["pid"])

    async def stop(self, request: Request) -> Any:
        body = _body(request, schema.STOP)
        return await self.backend.stop(_name(request), body["timeout_s"])

    async def attach(self, request: Request) -> Any:
        return await self.backend.attach(_body(request, schema.ATTACH))

    async def publish(self, request: Request) -> Any:
        body = _body(request, schema.PUBLISH)
        return await self.backend.publish(_name(request), body["publish"])

    async def unpublish(self, request: Request) -> Any:
        body = _body(request, schema.PUBLISH)
        return await self.backend.unpublish(_name(request), body["publish"])

    async def create_network(self, request: Request) -> Any:
        return await self.backend.create_network(_body(request, schema.NETWORK))

    async def prune_networks(self, request: Request) -> Any:
        _body(request, schema.NOTHING)
        return {"NetworksDeleted": await self.backend.prune_networks()}

    async def connect(self, request: Request) -> Any:
        body = _body(request, schema.CONNECT)
        return await self.backend.connect(_name(request), body["container"], body)

    async def disconnect(self, request: Request) -> Any:
        body = _body(request, schema.DISCONNECT)
        return await self.backend.disconnect(_name(request), body["container"])

    async def events(self, request: Request) -> Response:
        """Events from now on, one JSON object a line, until the client has enough or the daemon ends."""
        wanted = event_filter(request.query)

        async def lines() -> AsyncGenerator[bytes, None]:
            subscription = self.backend.watch()
            self.subscriptions.add(subscription)
            try:
                yield b""
                async for event in subscription:
                    record = event.record()
                    if wanted.fits(record):
                        yield _compact(record).encode() + b"\n"
            finally:
                subscription.close()
                self.subscriptions.discard(subscription)

        body = lines()
        await anext(body)  # before the answer begins: who has it misses nothing from then on
        return Response(body=body, content_type="application/x-ndjson")

    async def set_nat(self, request: Request) -> Any:
        return await self.backend.set_nat(schema.parse_object(request.body))

    async def flows(self, request: Request) -> list[Record]:
        wanted = flow_filter(dict(request.query))
        ips: set[str] = set()
        if wanted.container is not None:
            endpoints = (await self.backend.container(wanted.container))["networks"].values()
            ips = {each[key] for each in endpoints for key in ("ip", "ip6") if each.get(key)}
        return wanted.apply(await self.backend.flows(), ips)

    async def stats(self, request: Request) -> Record:
        stats = await self.backend.stats()
        return stats | {"groups": groups(stats["counters"])}

    async def logs(self, request: Request) -> Response:
        follows = follow_flag(dict(request.query))
        name = _name(request)

        async def over() -> bool:
            return not follows or self.ending or await self._has_ended(name)

        path = await self.backend.logs(name)
        return Response(body=pieces(path, over), content_type="text/plain; charset=utf-8")

    async def _has_ended(self, name: str) -> bool:
        try:
            state: str = (await self.backend.container(name))["state"]
        except NotFound:
            return True
        return state == "exited"

    async def metrics(self, request: Request) -> Response:
        from natgw.api import metrics  # prometheus-client, which few daemons are ever asked for

        text = metrics.exposition(await self.backend.status(), await self.backend.stats())
        return Response(body=text, content_type=metrics.CONTENT_TYPE)

    async def close(self) -> None:
        """End what would keep the server waiting."""
        self.ending = True
        self.orphans.close()
        for subscription in list(self.subscriptions):
            subscription.close()


def _name(request: Request) -> str:
    return request.parts["name"]


def _body(request: Request, fields: schema.Fields) -> dict[str, Any]:
    return schema.parse(request.body, fields)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
