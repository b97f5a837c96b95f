"""The control API's requests: each handler checks what came in, asks the daemon, and answers with JSON.

Paths, bodies and answers are in docs/cli.md. Errors are {"message": "..."} with a 4xx status, as Docker's are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from natgw.api import schema
from natgw.api.backend import Backend, Record
from natgw.api.cniroutes import cni_routes
from natgw.api.counters import groups
from natgw.api.filters import event_filter, flow_filter, follow_flag
from natgw.api.logstream import pieces
from natgw.api.orphans import Orphans
from natgw.control.events import Subscription
from natgw.errors import NatgwError, NotFound

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(backend: Backend, shut_down: Callable[[], None]) -> web.Application:
    """The application; `shut_down` is called when a request asks for the daemon's end."""
    api = Api(backend, shut_down)
    app = web.Application(middlewares=[errors_as_json])
    app.add_routes(api.routes())
    app.on_shutdown.append(api.close)
    return app


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure in the same form; what nobody foresaw goes to the log with its traceback."""
    try:
        return await handler(request)
    except NatgwError as error:
        return _message(error.status, str(error))
    except web.HTTPNotFound:
        return _message(404, f"page not found: {request.path}")
    except web.HTTPException as error:
        return _message(error.status, error.reason)
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        return _message(500, f"internal error: {type(error).__name__}: {error}")


def _message(status: int, text: str) -> web.Response:
    return web.json_response({"message": text}, status=status)


class Api:
    def __init__(self, backend: Backend, shut_down: Callable[[], None]) -> None:
        self.backend = backend
        self.shut_down = shut_down
        self.ending = False
        self.orphans = Orphans(backend)
        self.subscriptions: set[Subscription] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self.answer(lambda request: self.backend.status())),
            web.post("/v1/shutdown", self.shutdown),
            web.get("/v1/containers", self.answer(lambda request: self.backend.list_containers())),
            web.post("/v1/containers", self.run),
            web.get("/v1/containers/{name}", self.answer(lambda request: self.backend.container(_name(request)))),
            web.post("/v1/containers/{name}/started", self.answer(self.started)),
            web.post("/v1/containers/{name}/stop", self.answer(self.stop)),
            web.get("/v1/containers/{name}/logs", self.logs),
            web.post("/v1/containers/{name}/ports", self.answer(self.publish)),
            web.delete("/v1/containers/{name}/ports", self.answer(self.unpublish)),
            web.post("/v1/endpoints", self.answer(self.attach, status=201)),
            web.delete("/v1/endpoints/{name}", self.answer(lambda request: self.backend.detach(_name(request)))),
            web.get("/v1/ports", self.answer(lambda request: self.backend.ports())),
            web.get("/v1/networks", self.answer(lambda request: self.backend.list_networks())),
            web.post("/v1/networks", self.answer(self.create_network, status=201)),
            web.post("/v1/networks/prune", self.answer(self.prune_networks)),
            web.get("/v1/networks/{name}", self.answer(lambda request: self.backend.inspect_network(_name(request)))),
            web.delete("/v1/networks/{name}", self.answer(lambda request: self.backend.remove_network(_name(request)))),
            web.post("/v1/networks/{name}/connect", self.answer(self.connect)),
            web.post("/v1/networks/{name}/disconnect", self.answer(self.disconnect)),
            web.get("/v1/events", self.events),
            web.get("/v1/nat", self.answer(lambda request: self.backend.nat())),
            web.patch("/v1/nat", self.answer(self.set_nat)),
            web.get("/v1/flows", self.answer(self.flows)),
            web.get("/v1/fdb", self.answer(lambda request: self.backend.fdb())),
            web.get("/v1/neigh", self.answer(lambda request: self.backend.neigh())),
            web.get("/v1/stats", self.answer(self.stats)),
            web.get("/metrics", self.metrics),
            *cni_routes(self.backend, self.answer),
        ]

    def answer(self, ask: Callable[[web.Request], Awaitable[Any]], *, status: int = 200) -> Handler:
        """A handler that gives what `ask` returns as JSON; nothing (204) for None."""

        async def handler(request: web.Request) -> web.StreamResponse:
            value = await ask(request)
            if value is None:
                return web.Response(status=204)
            return web.json_response(value, status=status, dumps=_compact)

        return handler

    async def shutdown(self, request: web.Request) -> web.StreamResponse:
        if (await _body(request, schema.SHUTDOWN))["keep"]:
            await self.backend.keep()
        self.shut_down()
        return web.Response(status=202)

    async def run(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, schema.RUN)
        container = await self.backend.run(body)
        if not body["detach"]:
            self.orphans.adopt(container["id"], request.transport)
        return web.json_response(container, status=201, dumps=_compact)

    async def started(self, request: web.Request) -> Any:
        body = await _body(request, schema.STARTED)
        return await self.backend.started(_name(request), body["pid"])

    async def stop(self, request: web.Request) -> Any:
        body = await _body(request, schema.STOP)
        return await self.backend.stop(_name(request), body["timeout_s"])

    async def attach(self, request: web.Request) -> Any:
        return await self.backend.attach(await _body(request, schema.ATTACH))

    async def publish(self, request: web.Request) -> Any:
        body = await _body(request, schema.PUBLISH)
        return await self.backend.publish(_name(request), body["publish"])

    async def unpublish(self, request: web.Request) -> Any:
        body = await _body(request, schema.PUBLISH)
        return await self.backend.unpublish(_name(request), body["publish"])

    async def create_network(self, request: web.Request) -> Any:
        return await self.backend.create_network(await _body(request, schema.NETWORK))

    async def prune_networks(self, request: web.Request) -> Any:
        await _body(request, schema.NOTHING)
        return {"NetworksDeleted": await self.backend.prune_networks()}

    async def connect(self, request: web.Request) -> Any:
        body = await _body(request, schema.CONNECT)
        return await self.backend.connect(_name(request), body["container"], body)

    async def disconnect(self, request: web.Request) -> Any:
        body = await _body(request, schema.DISCONNECT)
        return await self.backend.disconnect(_name(request), body["container"])

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Events from now on, one JSON object a line, until the client has enough or the daemon ends."""
        wanted = event_filter(request.query.items())
        subscription = self.backend.watch()
        self.subscriptions.add(subscription)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            async for event in subscription:
                record = event.record()
                if wanted.fits(record):
                    await response.write(_compact(record).encode() + b"\n")
            await response.write_eof()
        except ConnectionError:
            pass  # who listened has gone
        finally:
            subscription.close()
            self.subscriptions.discard(subscription)
        return response

    async def set_nat(self, request: web.Request) -> Any:
        return await self.backend.set_nat(schema.parse_object(await request.read()))

    async def flows(self, request: web.Request) -> list[Record]:
        wanted = flow_filter(request.query)
        ips: set[str] = set()
        if wanted.container is not None:
            endpoints = (await self.backend.container(wanted.container))["networks"].values()
            ips = {each[key] for each in endpoints for key in ("ip", "ip6") if each.get(key)}
        return wanted.apply(await self.backend.flows(), ips)

    async def stats(self, request: web.Request) -> Record:
        stats = await self.backend.stats()
        return stats | {"groups": groups(stats["counters"])}

    async def logs(self, request: web.Request) -> web.StreamResponse:
        follows = follow_flag(request.query)
        name = _name(request)

        async def over() -> bool:
            disconnected = request.transport is None or request.transport.is_closing()
            return not follows or self.ending or disconnected or await self._has_ended(name)

        path = await self.backend.logs(name)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        async for piece in pieces(path, over):
            await response.write(piece)
        await response.write_eof()
        return response

    async def _has_ended(self, name: str) -> bool:
        try:
            state: str = (await self.backend.container(name))["state"]
        except NotFound:
            return True
        return state == "exited"

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        from natgw.api import metrics  # prometheus-client, which few daemons are ever asked for

        text = metrics.exposition(await self.backend.status(), await self.backend.stats())
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def close(self, app: web.Application) -> None:
        """End what would keep the server waiting."""
        self.ending = True
        self.orphans.close()
        for subscription in list(self.subscriptions):
            subscription.close()


def _name(request: web.Request) -> str:
    return request.match_info["name"]


async def _body(request: web.Request, fields: schema.Fields) -> dict[str, Any]:
    return schema.parse(await request.read(), fields)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
