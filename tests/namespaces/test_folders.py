"""Tests that were killed: what they left goes with the next ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.namespaces.topology import Lab, eventually

ROOT = Path(__file__).parents[2]
LEAVE = """
import time
from tests.namespaces.topology import Lab, eventually
lab = Lab()
lab.up()
print(lab.folder, lab.suffix, lab.json("status")["pid"], flush=True)
time.sleep(60)
"""


@pytest.mark.requires("ip", "tc")
def test_what_killed_tests_left_goes_with_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", LEAVE], stdout=subprocess.PIPE, text=True, cwd=ROOT) as killed:
        assert killed.stdout is not None
        folder, suffix, daemon = killed.stdout.readline().split()
        with Lab() as beside:  # while it lives, it is left alone
            assert Path(folder).exists() and Path(f"/proc/{daemon}").exists()
        killed.send_signal(signal.SIGKILL)
    with Lab() as beside:
        assert beside.folder.exists()
        assert not Path(folder).exists()
        assert eventually(lambda: not Path(f"/proc/{daemon}").exists())
        assert not list(Path("/run/netns").glob(f"t-*-{suffix}"))
