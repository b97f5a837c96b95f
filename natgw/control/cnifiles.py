"""`natgw cni install` and `uninstall`: the plugin and a network's configuration, where engines look for them.

The plugin that is written is a few lines that start `natgw.cni` with the interpreter and the natgw that run now, without the
`site` module: half of the start-up of a command that pip makes goes into that. Both files say that they are natgw's, the
configuration with a digest of the rest of it. So what somebody else wrote, or has changed since, is neither overwritten nor
taken away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import natgw
from natgw.cni.call import VERSIONS, valid_network_name
from natgw.control.ipam import check_subnet
from natgw.control.ipam6 import check_subnet6
from natgw.errors import Conflict, NatgwError, NotFound

PLUGIN = "natgw-cni"
BIN_DIR, CONF_DIR = Path("/opt/cni/bin"), Path("/etc/cni/net.d")
"""Where the CNI project's own documentation has them; podman and containerd look there too."""
CONF_VERSION = "1.0.0"
"""The newest that podman 4 and containerd 1 know; who knows `cniVersions` chooses from that."""
CAPABILITIES = ("aliases", "bandwidth", "dns", "ips", "mac", "portMappings")

_MARK = "# Written by `natgw cni install`; `natgw cni uninstall` removes it."
_SEAL = "natgw.installed"
_LONGEST_SHEBANG = 255
_SCRIPT = """#!{python} -IS
{mark}
import sys

sys.path.append({folder!r})

from natgw.cni import main

sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class CniNetwork:
    """What the configuration says of a network; None leaves it to the daemon. `socket` None: the default one."""

    name: str = "natgw"
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None
    mtu: int | None = None
    link: str | None = None
    internal: bool = False
    ipv6: bool = False
    subnet6: IPv6Network | None = None
    socket: Path | None = None

    def __post_init__(self) -> None:
        if not valid_network_name(self.name):
            raise NatgwError(f"invalid network name {self.name}: letters, digits, dots, dashes and underscores, a letter or "
                             "digit first")
        if self.subnet is not None:
            check_subnet(self.subnet)
        if self.gateway is not None and (self.subnet is None or self.gateway not in self.subnet):
            raise NatgwError(f"gateway {self.gateway} is not an address of the subnet: give --subnet with it")
        if self.subnet6 is not None:
            check_subnet6(self.subnet6)
            if not self.ipv6:
                raise NatgwError("--subnet6 needs --ipv6")

    def conflist(self) -> dict[str, Any]:
        """The configuration as engines read it."""
        addresses = {"subnet": self.subnet, "gateway": self.gateway, "subnet6": self.subnet6}
        ipam = {key: str(value) for key, value in addresses.items() if value is not None}
        plugin: dict[str, Any] = {"type": PLUGIN, "capabilities": dict.fromkeys(CAPABILITIES, True)}
        chosen = {"ipam": ipam, "mtu": self.mtu, "link": self.link, "internal": self.internal, "ipv6": self.ipv6,
                  "socket": None if self.socket is None else str(self.socket)}
        plugin |= {key: value for key, value in chosen.items() if value}
        return {"cniVersion": CONF_VERSION, "cniVersions": list(VERSIONS), "name": self.name, "plugins": [plugin]}


def install(network: CniNetwork, bin_dir: Path, conf_dir: Path) -> list[Path]:
    """Write both files; gives their paths. Raises Conflict for a file that is not natgw's, NatgwError if it cannot write."""
    plugin, conf = bin_dir / PLUGIN, conf_dir / f"{network.name}.conflist"
    for path, ours in ((plugin, _is_our_plugin), (conf, _is_our_conflist)):
        if os.path.lexists(path) and not ours(path):
            raise Conflict(f"{path} is there already, and not as natgw wrote it: remove it, or choose another place or name")
    _write(plugin, _script(), 0o755)
    _write(conf, _sealed(network.conflist()), 0o644)
    return [plugin, conf]


def uninstall(name: str | None, bin_dir: Path, conf_dir: Path) -> list[Path]:
    """Take away what `install` wrote there: the network `name`, or all, and the plugin when no network needs it any more.

    Gives the paths of what is gone. Raises NotFound if there is nothing of natgw's, Conflict if a file was changed since.
    """
    found = sorted(path for path in conf_dir.glob("*.conflist") if _mentions_plugin(path))
    chosen = [path for path in found if name is None or path.name == f"{name}.conflist"]
    changed = [path for path in chosen if not _is_our_conflist(path)]
    if changed:
        raise Conflict(f"{changed[0]} is not as natgw wrote it: remove it yourself")
    plugin = bin_dir / PLUGIN
    if chosen == found and _is_our_plugin(plugin):
        chosen.append(plugin)
    if not chosen:
        raise NotFound(f"nothing to remove: `natgw cni install` wrote nothing like that to {conf_dir} and {bin_dir}")
    for path in chosen:
        with _explained(path):
            path.unlink()
    return chosen


def _script() -> str:
    if len(sys.executable) + len("#! -IS\n") > _LONGEST_SHEBANG:
        raise NatgwError(f"the path of the interpreter is too long to start a plugin with: {sys.executable}")
    return _SCRIPT.format(python=sys.executable, mark=_MARK, folder=str(Path(natgw.__file__).resolve().parents[1]))


def _is_our_plugin(path: Path) -> bool:
    try:
        return _MARK in path.read_text().splitlines()[:2]
    except (OSError, UnicodeDecodeError):
        return False


def _sealed(conflist: dict[str, Any]) -> str:
    return json.dumps(conflist | {_SEAL: _digest(conflist)}, indent=2) + "\n"


def _is_our_conflist(path: Path) -> bool:
    conflist = _read(path)
    seal = conflist.pop(_SEAL, None)
    return bool(seal == _digest(conflist))


def _mentions_plugin(path: Path) -> bool:
    plugins = _read(path).get("plugins")
    return isinstance(plugins, list) and any(isinstance(one, dict) and one.get("type") == PLUGIN for one in plugins)


def _digest(conflist: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(conflist, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """A configuration; an empty one if there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: str, mode: int) -> None:
    """All of it or nothing: an engine may look while it is written, and takes no half-written file for one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(content)
            beside.chmod(mode)
            beside.rename(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise NatgwError(f"permission denied on {path}: try sudo, or choose other directories") from None
    except OSError as error:
        raise NatgwError(f"cannot change {path}: {error.strerror or error}") from None
