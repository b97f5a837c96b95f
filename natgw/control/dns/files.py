"""The resolv.conf of each container that natgw starts a command in: which resolver its programs ask.

    on a user-defined network   127.0.0.11, where natgw serves in every container
    on the default one          what the host asks, or the gateway if that is a resolver on the host's own loopback

The search list and the options are the host's, as with Docker. A file is written in place, so that one that is mounted over
/etc/resolv.conf (`natgw.host.mounts`) says at once what it says here.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from natgw.control.model import Endpoint
from natgw.host.resolvconf import ResolvConf

IN_CONTAINER = "127.0.0.11"


def folder(state_dir: Path) -> Path:
    """Where the files are."""
    return state_dir / "resolv"


def path_of(state_dir: Path, container_id: str) -> Path:
    """The file of a container, if it has one."""
    return folder(state_dir) / f"{container_id}.conf"


class ResolvFiles:
    """Files for the containers that have an endpoint."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._endpoints: dict[str, list[Endpoint]] = {}

    def clear(self) -> None:
        """Remove all of them, those of a natgw that was killed too."""
        self._endpoints.clear()
        shutil.rmtree(folder(self._state_dir), ignore_errors=True)

    def joined(self, endpoint: Endpoint, host: ResolvConf) -> None:
        """A container has one more endpoint."""
        if endpoint.owner == "natgw" and endpoint.container_id:
            self._endpoints.setdefault(endpoint.container_id, []).append(endpoint)
            self._write(endpoint.container_id, host)

    def left(self, endpoint: Endpoint, host: ResolvConf) -> None:
        """A container has lost an endpoint; with the last one, its file goes."""
        endpoints = self._endpoints.get(endpoint.container_id, [])
        if endpoint not in endpoints:
            return
        endpoints.remove(endpoint)
        if endpoints:
            self._write(endpoint.container_id, host)
        else:
            del self._endpoints[endpoint.container_id]
            path_of(self._state_dir, endpoint.container_id).unlink(missing_ok=True)

    def host_changed(self, host: ResolvConf) -> None:
        """The host asks others now."""
        for container_id in self._endpoints:
            self._write(container_id, host)

    def _write(self, container_id: str, host: ResolvConf) -> None:
        path = path_of(self._state_dir, container_id)
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(conf_for(self._endpoints[container_id], host).text())
        path.chmod(0o644)


def conf_for(endpoints: list[Endpoint], host: ResolvConf) -> ResolvConf:
    """What a container with these endpoints is to ask; `host` is what the host asks."""
    if any(not endpoint.network.is_default for endpoint in endpoints):
        options = [option for option in host.options if not option.startswith("ndots:")]
        return replace(host, servers=(IN_CONTAINER,), options=(*options, "ndots:0"))
    if host.asks_loopback:
        return replace(host, servers=(str(endpoints[0].network.gateway),))
    return host
