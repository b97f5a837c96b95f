"""`tools/bench core --compare REV`: another commit's datapath in turn with this one's, so that both have the same minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TURNS = 3


def with_revision(revision: str) -> list[tuple[str, float, float]]:
    """(path, nanoseconds there, nanoseconds here): the best of some turns, for the paths both know. Raises RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="natgw-bench-") as folder:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=False)
        if archive.returncode:
            raise RuntimeError(f"git knows no {revision}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        there: dict[str, float] = {}
        here: dict[str, float] = {}
        for _ in range(TURNS):
            for best, root in ((there, folder), (here, str(ROOT))):
                for name, value in _measure(root):
                    best[name] = min(value, best.get(name, value))
    return [(name, there[name], here[name]) for name in there if name in here]


def _measure(root: str) -> list[tuple[str, float]]:
    done = subprocess.run([sys.executable, "-m", "tools.benchlib", "core", "--json"], cwd=root, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": root})
    if done.returncode:
        raise RuntimeError(f"tools/bench core in {root}: {done.stderr.strip()[-300:]}")
    return [(each["path"], float(each["nanoseconds"])) for each in json.loads(done.stdout)]
