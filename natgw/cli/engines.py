"""Containers of an engine as targets of `natgw attach`: `docker:NAME`, `podman:NAME`.

The engine's own command is asked for the pid, here and not in the daemon: it knows which engine is meant (DOCKER_HOST,
contexts, a user's own podman), as it does for the person who types.
"""

from __future__ import annotations

import subprocess

from natgw.errors import NatgwError, NotFound

ENGINES = ("docker", "podman")
ANSWER_S = 20.0


def split_target(target: str) -> tuple[str, str] | None:
    """(engine, container) of `docker:NAME`; None for a target of another kind."""
    engine, colon, name = target.partition(":")
    return (engine, name) if colon and engine in ENGINES else None


def namespace_of(engine: str, name: str) -> str:
    """The path of a running container's network namespace. Raises NatgwError that says what the engine said."""
    if not name:
        raise NatgwError(f"{engine}: which container? Give its name or id, as in {engine}:web")
    try:
        done = subprocess.run([engine, "container", "inspect", "--format", "{{.State.Pid}}", "--", name], capture_output=True,
                              text=True, timeout=ANSWER_S, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise NatgwError(f"there is no command {engine} here to ask about {name}: give the pid of a process in the container "
                         "instead") from None
    except subprocess.TimeoutExpired:
        raise NatgwError(f"{engine} did not answer within {ANSWER_S:g} seconds: is it running?") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        if any("no such" in line.lower() for line in said):
            raise NotFound(f"no container {name} in {engine}: `{engine} ps` shows those that run")
        raise NatgwError(f"{engine} cannot tell about {name}: {said[-1] if said else f'exit code {done.returncode}'}")
    pid = done.stdout.strip()
    if not pid.isdecimal() or pid == "0":
        raise NatgwError(f"container {name} is not running: `{engine} start {name}` first")
    return f"/proc/{pid}/ns/net"
