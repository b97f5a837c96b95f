"""`natgw cni install` and `uninstall`: the files, and which of them are natgw's to change."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from natgw.cli.main import natgw as command_line
from natgw.cni.call import VERSIONS
from natgw.control import cnifiles
from natgw.control.cnifiles import CniNetwork, install, uninstall
from natgw.errors import Conflict, NatgwError, NotFound


@pytest.fixture
def natgw(tmp_path: Path) -> Callable[..., Result]:
    def run(*words: str) -> Result:
        directories = ("--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "conf"))
        return CliRunner().invoke(command_line, ["cni", *words, *directories])

    return run


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_install_and_uninstall(natgw: Callable[..., Result], tmp_path: Path, socket_path: Path) -> None:
    done = natgw("install", "--name", "lab", "--subnet", "10.89.0.0/24", "--gateway", "10.89.0.9", "--mtu", "1400", "--link",
                 "veth", "--internal")
    plugin, conf = tmp_path / "bin" / "natgw-cni", tmp_path / "conf" / "lab.conflist"
    assert (done.exit_code, done.stdout.split()) == (0, [str(plugin), str(conf)])
    conflist = json.loads(conf.read_text())
    assert (conflist["name"], conflist["cniVersion"], conflist["cniVersions"]) == ("lab", "1.0.0", list(VERSIONS))
    assert conflist["plugins"] == [{
        "type": "natgw-cni", "capabilities": dict.fromkeys(cnifiles.CAPABILITIES, True),
        "ipam": {"subnet": "10.89.0.0/24", "gateway": "10.89.0.9"}, "mtu": 1400, "link": "veth", "internal": True,
        "socket": str(socket_path)}]
    assert natgw("install", "--name", "both", "--ipv6", "--subnet6", "fd00:89::/64").exit_code == 0
    both = tmp_path / "conf" / "both.conflist"
    asked = json.loads(both.read_text())["plugins"][0]
    assert (asked["ipv6"], asked["ipam"]) == (True, {"subnet6": "fd00:89::/64"})
    assert natgw("uninstall", "--name", "both").stdout.split() == [str(both)]
    assert json.loads(natgw("install", "--json").stdout) == [str(plugin), str(tmp_path / "conf" / "natgw.conflist")]
    assert natgw("uninstall", "--name", "lab").stdout.split() == [str(conf)]
    assert files(tmp_path) == ["natgw-cni", "natgw.conflist"]
    assert json.loads(natgw("uninstall", "--json").stdout) == [str(tmp_path / "conf" / "natgw.conflist"), str(plugin)]
    assert files(tmp_path) == []
    again = natgw("uninstall")
    assert (again.exit_code, "nothing to remove" in again.stderr) == (1, True)


def test_what_is_installed_runs(tmp_path: Path) -> None:
    """By itself: without an environment, in another directory."""
    plugin, _ = install(CniNetwork(), tmp_path / "bin", tmp_path / "conf")
    done = subprocess.run([plugin], input="", capture_output=True, text=True, env={"CNI_COMMAND": "VERSION"}, cwd="/",
                          check=True)
    assert json.loads(done.stdout)["supportedVersions"] == list(VERSIONS)
    assert plugin.stat().st_mode & 0o777 == 0o755


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    bin_dir, conf_dir = tmp_path / "bin", tmp_path / "conf"
    install(CniNetwork(), bin_dir, conf_dir)
    (conf_dir / "podman.conflist").write_text('{"cniVersion": "1.0.0", "name": "podman", "plugins": [{"type": "bridge"}]}')
    (conf_dir / "broken.conflist").write_text("{")
    changed = conf_dir / "natgw.conflist"
    changed.write_text(changed.read_text().replace("1.0.0", "0.4.0", 1))
    with pytest.raises(Conflict, match=r"natgw\.conflist"):
        install(CniNetwork(), bin_dir, conf_dir)
    for name in (None, "natgw"):
        with pytest.raises(Conflict, match=r"natgw\.conflist"):
            uninstall(name, bin_dir, conf_dir)
    changed.unlink()
    assert uninstall(None, bin_dir, conf_dir) == [bin_dir / "natgw-cni"]
    assert files(tmp_path) == ["broken.conflist", "podman.conflist"]
    (bin_dir / "natgw-cni").write_text("#!/bin/sh\n")
    with pytest.raises(Conflict, match="natgw-cni is there already"):
        install(CniNetwork(), bin_dir, conf_dir)
    with pytest.raises(NotFound):
        uninstall(None, bin_dir, conf_dir)


def test_installing_again_changes_the_network(tmp_path: Path) -> None:
    install(CniNetwork(), tmp_path, tmp_path)
    install(CniNetwork(subnet=IPv4Network("10.89.0.0/24")), tmp_path, tmp_path)
    assert json.loads((tmp_path / "natgw.conflist").read_text())["plugins"][0]["ipam"] == {"subnet": "10.89.0.0/24"}
    assert files(tmp_path) == ["natgw-cni", "natgw.conflist"]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: CniNetwork(name="../x"), "invalid network name"),
        (lambda: CniNetwork(subnet=IPv4Network("127.0.0.0/8")), "no host can have"),
        (lambda: CniNetwork(gateway=IPv4Address("10.0.0.1")), "give --subnet with it"),
        (lambda: CniNetwork(subnet6=IPv6Network("fd00::/64")), "--subnet6 needs --ipv6"),
        (lambda: CniNetwork(ipv6=True, subnet6=IPv6Network("fe80::/64")), "no host can have"),
    ])
def test_what_makes_no_sense(network: Callable[[], CniNetwork], said: str) -> None:
    with pytest.raises(NatgwError, match=said):
        network()


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NatgwError, match="cannot change"):
        install(CniNetwork(), tmp_path / "file", tmp_path)
    if os.geteuid():
        with pytest.raises(NatgwError, match="permission denied"):
            install(CniNetwork(), Path("/proc/natgw"), tmp_path)
