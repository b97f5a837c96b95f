"""Commands on a terminal and in the background: exit codes, signals, logs, and what the shell makes of them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.namespaces.topology import Lab, eventually

TRAPS = """
for name in INT QUIT TERM HUP USR1 USR2; do trap "echo $name; exit 5" $name; done
echo ready
while :; do sleep 0.05; done
"""


def foreground(lab: Lab, *words: str) -> subprocess.Popen[str]:
    """`natgw run` in a session of its own, so without a terminal; its output is a pipe."""
    return lab.gateway.spawn(*lab.natgw_command("run", *words), env={"NATGW_SOCKET": str(lab.socket)})


@pytest.mark.parametrize("name", ["INT", "QUIT", "TERM", "HUP", "USR1", "USR2"])
def test_a_signal_is_passed_on_to_the_command(lab: Lab, name: str) -> None:
    lab.up("--uplink", "none")
    process = foreground(lab, "--name", "one", "--", "bash", "-c", TRAPS)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    eventually(lambda: lab.json("ps")[0]["state"] == "running")
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert (process.communicate(timeout=10)[0], process.returncode) == (f"{name}\n", 5)
    eventually(lambda: lab.json("ps", "-a") == [])


def test_ctrl_c_reaches_the_command_once(lab: Lab, tmp_path: Path) -> None:
    lab.up("--uplink", "none")
    count = "trap 'echo interrupted' INT; echo ready; for i in 1 2 3 4 5 6 7 8; do sleep 0.1; done; exit 6"
    command = lab.gateway.command(*lab.natgw_command("run", "--", "bash", "-c", count))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**os.environ, "NATGW_SOCKET": str(lab.socket)})
    shown = b""
    try:
        while b"ready" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:  # EIO: nobody has the terminal open any more
        pass
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    assert shown.count(b"interrupted") == 1
