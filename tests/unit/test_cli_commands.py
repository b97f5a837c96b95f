"""Every command against a real API: what it asks for, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from natgw import __version__
from natgw.api import state_directory
from natgw.cli import lifecycle, output
from natgw.cli.containers import exec_exit_code
from natgw.cli.dockerview import docker_view
from natgw.cli.group import TeachingGroup
from natgw.cli.main import natgw as command_line
from natgw.control import natconfig
from natgw.control.options import DaemonOptions
from natgw.datapath import PRESETS
from natgw.datapath.allocation import POLICIES
from tests.unit.fake_daemon import CREATED, NETWORK, FakeDaemon, container, flow

Run = Callable[..., Result]


@pytest.fixture
def run(socket_path: Path) -> Run:
    """Run a command line in this process."""
    def run(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(command_line, words, **options)

    return run


@pytest.fixture
def natgw(run: Run, daemon: FakeDaemon) -> Callable[..., str]:
    """The same with a daemon there, and no failure: what it prints."""
    def natgw(*words: str) -> str:
        result = run(*words)
        assert (result.exit_code, result.stderr) == (0, ""), result.stderr
        return result.stdout

    return natgw


def rows(text: str) -> list[list[str]]:
    """The fields of a table, which stand at least three blanks apart."""
    return [[field.strip() for field in line.split("   ") if field.strip()] for line in text.splitlines()]


def all_commands(group: click.Group = command_line,
                 path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


COMMANDS = dict(all_commands())


# ---- help and usage --------------------------------------------------------------------------------------------------


def test_the_commands_of_the_reference() -> None:
    assert [path[-1] for path in COMMANDS if len(path) == 1] == [
        "up", "down", "status", "run", "exec", "logs", "stop", "ps", "inspect", "attach", "detach", "port", "publish",
        "unpublish", "network", "nat", "events", "cni", "flows", "fdb", "neigh", "stats"]


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=" ".join)
def test_help_teaches_by_example(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    text, _, examples = result.stdout.partition("\nExamples:\n")
    assert " ".join(["Usage: natgw", *path]) in text
    assert any(line.strip().startswith(" ".join(["natgw", *path])) or "natgw" in line for line in examples.splitlines())
    assert all(line.startswith("  ") for line in examples.splitlines())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_examples_are_command_lines_that_parse(path: tuple[str, ...]) -> None:
    """Each example of the command itself, as far as it is one: options exist, and nothing that is required is missing."""
    import shlex

    command = COMMANDS[path]
    assert hasattr(command, "examples")
    prefix = " ".join(["natgw", *path])
    lines = [line.strip().removeprefix("ip netns exec lab ") for line in command.examples.strip().splitlines()]
    found = [line for line in lines if line == prefix or line.startswith(prefix + " ")]
    assert found or isinstance(command, click.Group) or any(prefix in line for line in lines)
    for line in found:
        words = shlex.split(line.split(" | ")[0].split(" || ")[0].split(" >/dev/null")[0])[1:]
        target: click.Command = command_line
        context: click.Context | None = None
        while isinstance(target, click.Group):
            name, found_here, words = target.resolve_command(click.Context(target), words)
            assert found_here is not None, line
            target = found_here
            context = target.make_context(name, list(words), parent=context) if not isinstance(target, click.Group) else None


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)],
                         ids=" ".join)
def test_one_short_line_in_the_list_of_commands(path: tuple[str, ...]) -> None:
    assert not COMMANDS[path].get_short_help_str(45).endswith("...")


@pytest.mark.parametrize("words", [(), ("network",), ("nat",)])
def test_a_group_alone_shows_its_help(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Examples:" in result.stderr


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"natgw, version {__version__}\n"


@pytest.mark.parametrize(("words", "message"), [
    (("nosuch",), "natgw: No such command 'nosuch'"),
    (("ps", "--nosuch"), "natgw ps: No such option"),
    (("run", "--name", "x"), "natgw run: Missing a command to run, after '--'"),
    (("run", "--name", "x", "--"), "natgw run: Missing a command to run, after '--'"),
    (("exec", "web"), "natgw exec: Missing a command to run, after '--'"),
    (("exec",), "natgw exec: Missing argument 'NAME'"),
    (("stop",), "natgw stop: Missing argument 'NAME...'"),
    (("stop", "-t", "-1", "web"), "natgw stop: Invalid value for '-t' / '--time'"),
    (("publish", "web"), "natgw publish: Missing argument 'SPEC...'"),
    (("run", "--link", "wire", "--", "x"), "natgw run: Invalid value for '--link'"),
    (("run", "-e", "=x", "--", "x"), "natgw run: invalid environment variable: =x"),
    (("up", "--subnet", "10.0.0.1/8"), "natgw up: Invalid value for '--subnet': 10.0.0.1/8 has host bits set"),
    (("up", "--gateway", "10.0.0"), "natgw up: Invalid value for '--gateway'"),
    (("up", "--port-range", "5-4"), "natgw up: Invalid value for '--port-range': '5-4' is not LO-HI within 1-65535"),
    (("up", "--port-range", "0-65535"), "natgw up: Invalid value for '--port-range'"),
    (("up", "--port-range", "80"), "natgw up: Invalid value for '--port-range'"),
    (("up", "--mtu", "67"), "natgw up: Invalid value for '--mtu'"),
    (("flows", "--protocol", "ipx"), "natgw flows: Invalid value for '--protocol'"),
    (("flows", "--conntrack", "--json"), "natgw flows: --conntrack and --json exclude each other."),
    (("nat", "set"), "natgw nat set: Missing argument 'KEY=VALUE...'"),
    (("up", "--nat-type", "fullcone"), "natgw up: Invalid value for '--nat-type': 'fullcone' is not one of"),
    (("network", "inspect"), "natgw network inspect: Missing argument 'NETWORK...'"),
])
def test_a_wrong_command_line_is_one_line_and_exit_code_2(run: Run, words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert "--help'" in result.stderr


# ---- errors ----------------------------------------------------------------------------------------------------------

CLIENT_COMMANDS = [
    ("down",), ("status",), ("run", "--", "true"), ("run", "-d", "--", "true"), ("exec", "web", "--", "true"), ("logs", "web"),
    ("stop", "web"), ("ps",), ("inspect", "web"), ("attach", "lab"), ("detach", "web"), ("port",), ("port", "web"),
    ("publish", "web", "80"), ("unpublish", "web", "80"), ("network", "ls"), ("network", "inspect", "bridge"), ("flows",),
    ("fdb",), ("neigh",), ("stats",), ("nat", "show"), ("nat", "set", "type=full-cone"),
]


@pytest.mark.parametrize("words", CLIENT_COMMANDS, ids=" ".join)
def test_not_running(run: Run, socket_path: Path, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"natgw is not running on {socket_path}: start it with `natgw up`\n"


@pytest.mark.parametrize("words", [("--socket", "/nowhere/n.sock", "ps"), ("ps", "--socket", "/nowhere/n.sock"),
                                   ("network", "ls", "--socket", "/nowhere/n.sock"),
                                   ("--socket", "/elsewhere", "run", "--socket", "/nowhere/n.sock", "--", "x")])
def test_socket_may_stand_before_and_after(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).stderr == "natgw is not running on /nowhere/n.sock: start it with `natgw up`\n"


@pytest.mark.parametrize("words", [("inspect", "nobody"), ("exec", "nobody", "--", "true"), ("logs", "nobody"),
                                   ("stop", "nobody"), ("detach", "nobody"), ("port", "nobody"), ("publish", "nobody", "1:1"),
                                   ("flows", "--container", "nobody")], ids=" ".join)
def test_no_such_container(run: Run, daemon: FakeDaemon, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "natgw: No such container: nobody\n")


@pytest.mark.parametrize("words", [("inspect", ""), ("stop", ""), ("exec", "", "--", "true"), ("port", ""),
                                   ("network", "inspect", "")], ids=" ".join)
def test_an_empty_name(run: Run, daemon: FakeDaemon, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (1, "natgw: a name is missing: '' is none\n")


def test_a_name_that_is_not_text(run: Run, daemon: FakeDaemon) -> None:
    result = run("inspect", os.fsdecode(b"\xff"))
    assert result.exit_code == 1
    assert result.stderr.startswith("natgw: No such container: ")


@pytest.mark.parametrize("words", [("run", "--", "true"), ("run", "-d", "--", "true"), ("attach", "./here")], ids=" ".join)
def test_in_a_directory_that_is_gone(run: Run, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     words: tuple[str, ...]) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = run(*words)
    assert (result.exit_code, result.stderr) == (
        1, "natgw: the directory this command was started in is gone: cd to one that exists\n")


def test_a_bug_is_one_line_too(run: Run, daemon: FakeDaemon) -> None:
    daemon.broken = True
    result = run("status")
    assert (result.exit_code, result.stderr) == (1, "natgw: internal error: ZeroDivisionError: a bug in two lines\n")


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_of_the_command_itself(run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, debug: bool) -> None:
    def stumble(value: object) -> None:
        raise LookupError("of two\nlines")

    monkeypatch.setattr(output, "as_json", stumble)
    if debug:
        monkeypatch.setenv("NATGW_DEBUG", "1")
    result = run("status", "--json")
    assert result.exit_code == 1
    assert result.stderr.endswith("natgw: LookupError: of two lines (NATGW_DEBUG=1 shows where)\n")
    assert ("Traceback" in result.stderr) == debug


def test_ctrl_c(run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "as_json", interrupt)
    result = run("status", "--json")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


# ---- up, down, status ------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[DaemonOptions]:
    """What `natgw up` in the foreground would serve."""
    found: list[DaemonOptions] = []

    def serve(options: DaemonOptions, on_ready: Callable[[Any], None], *, log_to_file: bool = False) -> None:
        found.append(options)
        on_ready({"version": "9", "socket": str(options.socket), "network": "bridge", "subnet": str(options.subnet),
                  "gateway": "172.17.0.1", "uplink": None})

    monkeypatch.setattr(lifecycle, "_serve", serve)
    monkeypatch.setattr(lifecycle, "_require_powers", lambda: None)
    return found


def test_up_has_defaults(run: Run, asked: list[DaemonOptions], socket_path: Path) -> None:
    result = run("up")
    assert asked == [DaemonOptions(socket=socket_path, state_dir=state_directory(socket_path))]
    assert result.stdout.splitlines()[0] == f"natgw 9 serves on {socket_path}"
    assert "172.17.0.0/16" in result.stdout
    assert "Ctrl-C" in result.stdout


def test_up_hands_over_every_option(run: Run, asked: list[DaemonOptions]) -> None:
    result = run("up", "--uplink", "eth9", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.9", "--mtu", "9000",
                 "--link", "veth", "--port-range", "1024-2047", "--exclusive-uplink", "--socket", "relative.sock")
    assert result.exit_code == 0, result.stderr
    (options,) = asked
    assert (options.uplink, str(options.subnet), str(options.gateway)) == ("eth9", "10.9.0.0/24", "10.9.0.9")
    assert (options.mtu, options.link, options.port_range, options.exclusive_uplink) == (9000, "veth", (1024, 2047), True)
    assert options.socket == Path.cwd() / "relative.sock"
    assert options.state_dir == Path.cwd() / "relative.d"


def test_up_chooses_how_to_translate(run: Run, asked: list[DaemonOptions]) -> None:
    result = run("up", "--nat-type", "symmetric", "--nat", "udp.filtering=eif", "--nat", "timeouts.udp=2m")
    assert result.exit_code == 0, result.stderr
    assert asked[0].nat == natconfig.changed(PRESETS["symmetric"], {"udp.filtering": "eif", "timeouts.udp": 120})


def test_up_reads_a_file_and_the_command_line_overrides_it(run: Run, asked: list[DaemonOptions], tmp_path: Path) -> None:
    path = tmp_path / "natgw.toml"
    path.write_text('[up]\nuplink = "eth9"\nmtu = 1400\nlink = "veth"\n[nat]\nmapping = "adm"\nhairpin = false\n')
    result = run("up", "--config", str(path), "--mtu", "1300", "--nat-type", "full-cone")
    assert result.exit_code == 0, result.stderr
    (options,) = asked
    assert (options.uplink, options.mtu, options.link, str(options.subnet)) == ("eth9", 1300, "veth", "172.17.0.0/16")
    assert options.nat == natconfig.changed(PRESETS["full-cone"], {"hairpin": False})


def test_up_takes_a_default_that_is_named_for_an_override(run: Run, asked: list[DaemonOptions], tmp_path: Path) -> None:
    (tmp_path / "natgw.toml").write_text("[up]\nmtu = 1400\n")
    assert run("up", "--config", str(tmp_path / "natgw.toml"), "--mtu", "1500").exit_code == 0
    assert asked[0].mtu == 1500


@pytest.mark.parametrize(("text", "message"), [
    ("[up]\nuplnk = 'x'", '[up] unknown key "uplnk": did you mean "uplink"?'),
    ("[nat]\nudp.maping = 'eim'", '[nat] unknown key "udp.maping": did you mean "udp.mapping"?'),
    ("[nat]\nhairpin = 3", '[nat] hairpin: "3" is neither true nor false'),
])
def test_a_wrong_file_is_one_line(run: Run, asked: list[DaemonOptions], tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "natgw.toml"
    path.write_text(text)
    result = run("up", "--config", str(path))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"natgw: {path}: {message}\n")
    assert not asked


@pytest.mark.parametrize(("word", "message"), [
    ("udp.maping=eim", 'unknown key "udp.maping": did you mean "udp.mapping"?'), ("hairpin", '"hairpin" is not KEY=VALUE.'),
    ("timeouts.udp=soon", 'timeouts.udp: "soon" is not a time: seconds, or a number with ms, s, m, h or d.'),
])
def test_a_wrong_word_for_up(run: Run, asked: list[DaemonOptions], word: str, message: str) -> None:
    result = run("up", "--nat", word)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"natgw up: Invalid value for '--nat': {message} See 'natgw up --help'.\n"


@pytest.fixture
def policies_restored() -> Iterator[None]:
    before = dict(POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(before)


EXAMPLE_POLICY = Path(__file__).parents[2] / "docs" / "examples" / "own_policy.py"


def test_up_with_a_policy_of_ones_own(run: Run, asked: list[DaemonOptions], policies_restored: None) -> None:
    result = run("up", "--nat-type", "symmetric", "--port-policy", f"{EXAMPLE_POLICY}:Multiples")
    assert result.exit_code == 0, result.stderr
    assert asked[0].nat == natconfig.changed(PRESETS["symmetric"], {"allocation": "Multiples"})


def test_up_with_a_policy_that_is_not_there(run: Run, asked: list[DaemonOptions], policies_restored: None) -> None:
    result = run("up", "--port-policy", f"{EXAMPLE_POLICY}:Multipels")
    assert (result.exit_code, result.stderr) == (1, f"natgw: there is no Multipels in {EXAMPLE_POLICY}\n")
    assert not asked


def test_up_without_powers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_effective_capabilities", lambda: 1 << lifecycle.CAP_NET_ADMIN)
    result = run("up")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "natgw up needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): try sudo\n"


def test_status(natgw: Callable[..., str]) -> None:
    lines = dict(line.split(":", 1) for line in natgw("status").splitlines())
    assert {key: value.strip() for key, value in lines.items()} == {
        "version": "9.8.7", "pid": str(os.getpid()), "up": "5 minutes", "socket": "/run/natgw/natgw.sock",
        "network": "bridge, 172.17.0.0/16, gateway 172.17.0.1", "uplink": "eth0 (up), 192.0.2.2/24, mtu 1500",
        "ports": "40000-65535, shared with the host", "containers": "0", "flows": "3"}


def test_status_json(natgw: Callable[..., str]) -> None:
    assert json.loads(natgw("status", "--json"))["uplink"]["interface"] == "eth0"


def test_down_that_takes_too_long(run: Run, daemon: FakeDaemon, socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "DOWN_TIMEOUT_S", 0.05)
    result = run("down")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (f"natgw on {socket_path} has not ended after 0.05 seconds: "
                             f"{socket_path.with_suffix('.d')}/natgw.log may say why\n")


# ---- run, exec, logs, stop, ps, inspect ------------------------------------------------------------------------------


def test_run_detached(natgw: Callable[..., str], daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.chdir(tmp_path)
    printed = natgw("run", "-d", "--network", "lab", "--network-alias", "db",
                    "--name", "web", "-p", "8080:80", "-p", "53/udp", "--link", "veth", "--ip", "172.17.0.9",
                    "--mac", "02:00:00:00:00:09", "--mtu", "1400", "--no-offload", "-e", "A=b=c", "-e", "COLOUR",
                    "-e", "NO_SUCH_VARIABLE", "--", "sleep", "-x", "--", "y")
    assert printed == "2" * 64 + "\n"
    (request,) = daemon.wait_for("run")
    env = request.pop("env")
    assert (env["A"], env["COLOUR"], env["PATH"]) == ("b=c", "blue", os.environ["PATH"])
    assert "NO_SUCH_VARIABLE" not in env
    assert request == {"name": "web", "command": ["sleep", "-x", "--", "y"], "publish": ["8080:80", "53/udp"], "link": "veth",
                       "ip": "172.17.0.9", "ip6": None, "mac": "02:00:00:00:00:09", "mtu": 1400, "offload": False,
                       "dhcp": False, "detach": True,
                       "workdir": str(tmp_path), "network": "lab", "aliases": ["db"]}


@pytest.mark.parametrize("words", [("sleep", "-d", "--name"), ("--", "sleep", "-d", "--name")])
def test_what_follows_the_command_is_the_commands(natgw: Callable[..., str], daemon: FakeDaemon,
                                                  words: tuple[str, ...]) -> None:
    natgw("run", "-d", *words)
    assert daemon.wait_for("run")[0]["command"] == ["sleep", "-d", "--name"]


def test_run_detached_of_no_command(run: Run, daemon: FakeDaemon) -> None:
    result = run("run", "-d", "--", "nosuch")
    assert (result.exit_code, result.stdout) == (127, "")
    assert result.stderr == 'natgw: exec: "nosuch": executable file not found in $PATH\n'


@pytest.mark.parametrize(("message", "code"), [
    ('exec: "x": executable file not found in $PATH', 127), ('exec: "/x": stat /x: no such file or directory', 127),
    ('exec: "/": permission denied', 126), ("Address already in use", 1), ("container x not found", 1)])
def test_exit_codes_of_commands_that_cannot_run(message: str, code: int) -> None:
    assert exec_exit_code(message) == code


def test_run_of_a_name_that_is_taken(run: Run, daemon: FakeDaemon) -> None:
    daemon.add("web")
    for options in ((), ("-d",)):
        result = run("run", *options, "--name", "web", "--", "true")
        assert (result.exit_code, result.stderr) == (1, "natgw: endpoint with name web already exists in network bridge\n")
    assert list(daemon.containers) == ["web"]


def test_exec_in_one_that_has_ended(run: Run, daemon: FakeDaemon) -> None:
    daemon.add("web", state="exited")
    result = run("exec", "web", "--", "true")
    assert (result.exit_code, result.stderr) == (1, "natgw: container web is not running\n")


def test_logs(natgw: Callable[..., str], daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.add("web", state="exited")
    (tmp_path / "log").write_text("one\ntwo\n")
    assert natgw("logs", "web") == natgw("logs", "-f", "web") == "one\ntwo\n"


def test_stop(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    daemon.add("web")
    daemon.add("api", 3)
    assert natgw("stop", "-t", "0.5", "web", "api") == "web\napi\n"
    assert [call for call in daemon.calls if call[0] == "stop"] == [("stop", "web", 0.5), ("stop", "api", 0.5)]


def test_ps(natgw: Callable[..., str], daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "age_s", lambda created: 300.0)
    daemon.add("web", 2)
    daemon.add("lab", 3, kind="attached", command=None, created="2021" + CREATED[4:], ports=[], link="veth")
    daemon.add("old", 4, state="exited", exit_code=3, ip=None, ports=[], created="2019" + CREATED[4:])
    daemon.add("new", 5, state="created", created="2022" + CREATED[4:], ports=[])
    head = "CONTAINER ID   COMMAND       CREATED         STATUS               IP           LINK   PORTS".split("   ")
    table = rows(natgw("ps"))
    assert table[0] == [title.strip() for title in head if title] + ["NAMES"]
    assert table[1:] == [
        ["555555555555", '"sleep inf"', "5 minutes ago", "Created", "172.17.0.5", "tap", "new"],
        ["333333333333", "5 minutes ago", "Attached 5 minutes", "172.17.0.3", "veth", "lab"],
        ["222222222222", '"sleep inf"', "5 minutes ago", "Up 5 minutes", "172.17.0.2", "tap",
         "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp", "web"],
    ]
    assert rows(natgw("ps", "-a"))[-1] == ["444444444444", '"sleep inf"', "5 minutes ago", "Exited (3)", "tap", "old"]
    assert rows(natgw("ps", "--no-trunc"))[3][0] == "2" * 64
    assert natgw("ps", "-q") == "555555555555\n333333333333\n222222222222\n"
    assert natgw("ps", "-aq").count("\n") == 4


def test_ps_json(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    web = daemon.add("web")
    daemon.add("old", 3, state="exited")
    assert json.loads(natgw("ps", "--json")) == [web]
    assert len(json.loads(natgw("ps", "--json", "--all"))) == 2


def test_inspect(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    web, api = daemon.add("web"), daemon.add("api", 3)
    shown = json.loads(natgw("inspect", "web", "api"))
    assert shown == [web | docker_view(web), api | docker_view(api)]
    assert natgw("inspect", "web").startswith('[\n    {\n        "id": "2222')


# ---- attach, detach, ports -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "sent"), [("lab", "lab"), ("4711", "4711"), ("/proc/1/ns/net", "/proc/1/ns/net"),
                                              ("./here", "{cwd}/here"), ("../up/there", "{parent}/up/there")])
def test_attach(natgw: Callable[..., str], daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str,
                sent: str) -> None:
    monkeypatch.chdir(tmp_path)  # wherever the tests are started: the parent of a checkout may be /
    assert natgw("attach", target, "--name", "lab", "-p", "80:80", "--ifname", "net1") == "2" * 64 + "\n"
    assert daemon.wait_for("attach") == ({
        "target": sent.format(cwd=Path.cwd(), parent=Path.cwd().parent), "name": "lab", "publish": ["80:80"], "link": None,
        "ip": None, "ip6": None, "mac": None, "mtu": None, "offload": True, "dhcp": False, "ifname": "net1",
        "network": None, "aliases": []},)


def test_attach_without_offload(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    natgw("attach", "lab", "--no-offload")
    assert daemon.wait_for("attach")[0]["offload"] is False


def test_detach(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    daemon.add("one", kind="attached")
    daemon.add("two", 3, kind="attached")
    assert natgw("detach", "one", "two") == "one\ntwo\n"
    assert not daemon.containers


def test_port(natgw: Callable[..., str], run: Run, daemon: FakeDaemon) -> None:
    daemon.add("web")
    daemon.add("dns", 3, ports=[{"protocol": "udp", "host_ip": "127.0.0.1", "host_port": 53, "container_port": 53}])
    assert natgw("port", "web") == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    assert natgw("port") == "dns 53/udp -> 127.0.0.1:53\nweb 80/tcp -> 0.0.0.0:8080\nweb 80/tcp -> [::]:8080\n"
    assert natgw("port", "web", "80") == natgw("port", "web", "80/tcp") == "0.0.0.0:8080\n[::]:8080\n"
    result = run("port", "dns", "53")
    assert (result.exit_code, result.stderr) == (1, "natgw: no public port '53/tcp' published for dns\n")
    assert json.loads(natgw("port", "dns", "--json")) == [
        {"container": "dns", "protocol": "udp", "host_ip": "127.0.0.1", "host_port": 53, "container_port": 53}]


def test_publish_and_unpublish(natgw: Callable[..., str], run: Run, daemon: FakeDaemon) -> None:
    daemon.add("web")
    assert natgw("publish", "web", "8080:80", "53/udp") == "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    assert daemon.wait_for("publish") == ("web", ["8080:80", "53/udp"])
    assert natgw("unpublish", "web", "8080:80") == ""
    assert daemon.wait_for("unpublish") == ("web", ["8080:80"])
    assert [port["host_ip"] for port in json.loads(natgw("publish", "--json", "web", "8080:80"))] == ["0.0.0.0", "::"]
    assert json.loads(natgw("unpublish", "web", "8080:80", "--json")) == []
    result = run("publish", "web", "80")
    assert (result.exit_code, result.stderr) == (1, "natgw: Bind for 0.0.0.0:80 failed: port is already allocated\n")


# ---- how it translates -----------------------------------------------------------------------------------------------


def test_nat_show(natgw: Callable[..., str]) -> None:
    table = rows(natgw("nat", "show"))
    assert table[0] == ["KEY", "VALUE", "MAY BE"]
    shown = {name: value for name, value, _ in table[1:]}
    assert (shown["type"], shown["udp.mapping"], shown["udp.filtering"], shown["hairpin"]) == (
        "port-restricted", "eim", "apdf", "true")
    assert (shown["timeouts.tcp_established"], shown["external_addresses"], shown["pooling"]) == ("7440", "none", "paired")
    assert set(shown) == {*natconfig.KEYS, "type", "timeouts.profile"}


def test_nat_set(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    assert natgw("nat", "set", "type=symmetric", "timeouts.udp=2m", "untranslated=10.0.0.0/8,192.168.0.0/16") == ""
    assert daemon.wait_for("set_nat") == ({"type": "symmetric", "timeouts.udp": "2m",
                                           "untranslated": "10.0.0.0/8,192.168.0.0/16"},)
    found = json.loads(natgw("nat", "show", "--json"))
    assert (found["type"], found["timeouts"]["profile"], found["timeouts"]["udp"]) == ("symmetric", None, 120)
    assert found["untranslated"] == ["10.0.0.0/8", "192.168.0.0/16"]
    assert json.loads(natgw("nat", "set", "type=linux", "--json")) == json.loads(natgw("nat", "show", "--json"))


def test_what_nat_set_refuses_changes_nothing(run: Run, daemon: FakeDaemon) -> None:
    before = daemon.nat_config
    result = run("nat", "set", "type=linux", "hairpn=off")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'natgw: unknown key "hairpn": did you mean "hairpin"?\n'
    assert daemon.nat_config == before


def test_help_of_nat_set_has_every_key(run: Run) -> None:
    text = run("nat", "set", "--help").stdout
    assert not [name for name in natconfig.KNOWN if name.rpartition(".")[2] not in text]
    assert all(word in text for word in (*PRESETS, "eim", "adm", "apdm", "eif", "adf", "apdf"))


def test_no_command_waits_for_the_datapath(socket_path: Path) -> None:
    """Only those that need it import it: it costs more than all the rest of a command."""
    program = ("import sys; from natgw.cli.main import natgw\ntry: natgw(['flows', '--conntrack'])\n"
               "except SystemExit: print([name for name in sys.modules if name.startswith('natgw.datapath')])")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- what the gateway knows ------------------------------------------------------------------------------------------


def test_networks(natgw: Callable[..., str], run: Run) -> None:
    assert rows(natgw("network", "ls")) == [["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
                                           ["7b7b7b7b7b7b", "bridge", "bridge", "local"]]
    assert rows(natgw("network", "ls", "--no-trunc"))[1][0] == "7b" * 32
    assert json.loads(natgw("network", "ls", "--json")) == [NETWORK]
    assert natgw("network", "inspect", "bridge") == json.dumps([NETWORK], indent=4) + "\n"
    assert natgw("network", "inspect", "bridge", "--json") == natgw("network", "inspect", "bridge")
    assert run("network", "inspect", "bridge", "x").stderr == "natgw: network x not found\n"


def test_flows(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    table = rows(natgw("flows"))
    assert table[0] == ["PROTOCOL", "STATE", "TIMEOUT", "KIND", "ORIGINAL", "REPLY", "PACKETS", "BYTES"]
    assert table[1] == ["tcp", "ESTABLISHED", "7437s", "outbound", "172.17.0.2:5000 -> 192.0.2.9:80",
                        "192.0.2.9:80 -> 192.0.2.2:45000", "5/4", "600B/1.5kB"]
    assert [row[0] for row in table[1:]] == ["tcp", "tcp", "udp"]


def test_flows_as_conntrack_lists_them(natgw: Callable[..., str]) -> None:
    lines = natgw("flows", "--conntrack", "--protocol", "tcp").splitlines()
    assert lines[0] == (
        "tcp      6 7437 ESTABLISHED src=172.17.0.2 dst=192.0.2.9 sport=5000 dport=80 packets=5 bytes=600 "
        "src=192.0.2.9 dst=192.0.2.2 sport=80 dport=45000 packets=4 bytes=1500 [ASSURED] mark=0 use=1")
    assert len(lines) == 2


@pytest.mark.parametrize(("words", "ports"), [
    ((), [5000, 4000, 53]), (("--sort", "bytes"), [53, 4000, 5000]), (("--protocol", "tcp"), [5000, 4000]),
    (("--container", "api"), [4000, 53]), (("--container", "api", "--protocol", "udp"), [53]),
])
def test_flows_filtered_and_sorted(natgw: Callable[..., str], daemon: FakeDaemon, words: tuple[str, ...],
                                   ports: list[int]) -> None:
    daemon.add("api", 3)
    assert [flow["original"]["sport"] for flow in json.loads(natgw("flows", "--json", *words))] == ports


def test_flows_are_sorted_by_number(natgw: Callable[..., str], daemon: FakeDaemon) -> None:
    daemon.flow_records = [flow(src="172.17.0.10"), flow(src="172.17.0.9")]
    assert [one["original"]["src"] for one in json.loads(natgw("flows", "--json"))] == ["172.17.0.9", "172.17.0.10"]


def test_fdb(natgw: Callable[..., str]) -> None:
    assert rows(natgw("fdb")) == [["MAC", "PORT", "TYPE", "AGE"], ["02:42:ac:11:00:01", "natgw0", "static", "-"],
                                 ["02:42:ac:11:00:02", "web", "learned", "2s"]]
    assert json.loads(natgw("fdb", "--json"))[0]["static"] is True


def test_neigh(natgw: Callable[..., str]) -> None:
    assert rows(natgw("neigh")) == [["ADDRESS", "PORT", "MAC", "STATE", "AGE"],
                                   ["172.17.0.2", "web", "02:42:ac:11:00:02", "REACHABLE", "12s"],
                                   ["192.0.2.1", "-", "-", "INCOMPLETE", "0s"]]
    assert json.loads(natgw("neigh", "--json"))[1]["mac"] is None


def test_stats(natgw: Callable[..., str]) -> None:
    parts = [rows(part) for part in natgw("stats").split("\n\n")]
    assert parts == [
        [["VERDICT", "COUNT"], ["bridged", "7"], ["translated_out", "1234"]],
        [["DROP", "COUNT"], ["drop_ttl", "3"]],
        [["EVENT", "COUNT"], ["fast_path", "1200"]],
        [["PORT", "KIND", "MTU", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "TX DROPS", "SEGMENTED"],
         ["web", "endpoint", "1500", "10", "12.3kB", "8", "999B", "1", "2"]],
    ]
    assert ["flooded", "0"] in rows(natgw("stats", "--all"))
    assert set(json.loads(natgw("stats", "--json"))) == {"counters", "ports", "groups"}


# ---- Tab ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "incomplete", "offered"), [
    (["stop"], "w", ["web", "worker"]), (["stop", "web"], "", ["web", "worker", "lab"]), (["logs"], "x", []),
    (["network", "inspect"], "b", ["bridge"]), (["flows", "--container"], "l", ["lab"]), ([], "fl", ["flows"]),
    (["nat", "set"], "timeouts.u", ["timeouts.udp=", "timeouts.udp_stream=", "timeouts.udplite=", "timeouts.udplite_stream="]),
])
def test_completion(daemon: FakeDaemon, words: list[str], incomplete: str, offered: list[str]) -> None:
    from click.shell_completion import ShellComplete

    for number, name in enumerate(["web", "worker", "lab"], 2):
        daemon.containers[name] = container(name, number)
    completion = ShellComplete(command_line, {}, "natgw", "_NATGW_COMPLETE")
    assert [item.value for item in completion.get_completions(words, incomplete)] == offered


def test_completion_without_a_daemon_offers_nothing(socket_path: Path) -> None:
    from click.shell_completion import ShellComplete

    completion = ShellComplete(command_line, {}, "natgw", "_NATGW_COMPLETE")
    assert completion.get_completions(["stop"], "") == []


def test_groups_list_their_commands_in_the_order_of_use() -> None:
    assert isinstance(command_line, TeachingGroup)
    assert command_line.list_commands(click.Context(command_line))[:2] == ["up", "down"]
