"""Calling `natgw-cni` as an engine does, and reading what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Record = dict[str, Any]

COMMAND = [sys.executable, "-m", "natgw.cni"]
CAPABILITIES = {"portMappings": True, "ips": True, "mac": True, "bandwidth": True, "dns": True, "aliases": True}


class CniFailure(AssertionError):
    """The plugin said no; `error` is what it printed."""

    def __init__(self, error: Record) -> None:
        super().__init__(json.dumps(error))
        self.error = error
        self.code: int = error["code"]


class Engine:
    """An engine without containers: it gives names of its own to namespaces."""

    def __init__(self, socket: Path, version: str = "1.0.0", command: list[str] | None = None) -> None:
        self.socket = socket
        self.version = version
        self.command = command or COMMAND

    def config(self, **changes: Any) -> Record:
        config = {"cniVersion": self.version, "name": "lab", "type": "natgw-cni", "capabilities": CAPABILITIES,
                  "ipam": {"subnet": "10.89.0.0/24"}, **changes}
        return {key: value for key, value in config.items() if value is not None}

    def call(self, command: str, config: Record | str, **parameters: str) -> Any:
        """What a command printed, None for nothing. Raises CniFailure."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("CNI_", "NATGW_"))}
        environment |= {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin", "NATGW_SOCKET": str(self.socket)}
        environment |= {f"CNI_{key.upper()}": value for key, value in parameters.items()}
        text = config if isinstance(config, str) else json.dumps(config)
        done = subprocess.run(self.command, input=text, capture_output=True, text=True, env=environment, timeout=60,
                              check=False)
        assert not done.stderr, done.stderr
        if done.returncode:
            raise CniFailure(json.loads(done.stdout))
        return json.loads(done.stdout) if done.stdout else None

    def add(self, container: str, netns: str, ifname: str = "eth0", **changes: Any) -> Record:
        result: Record = self.call("ADD", self.config(**changes), containerid=container, netns=netns, ifname=ifname)
        return result

    def delete(self, container: str, netns: str | None, ifname: str = "eth0", **changes: Any) -> None:
        where = {} if netns is None else {"netns": netns}
        assert self.call("DEL", self.config(**changes), containerid=container, ifname=ifname, **where) is None

    def check(self, container: str, netns: str, previous: Record, ifname: str = "eth0", **changes: Any) -> None:
        config = self.config(prevResult=previous, **changes)
        assert self.call("CHECK", config, containerid=container, netns=netns, ifname=ifname) is None
