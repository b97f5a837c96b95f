"""Network namespaces: naming them, entering them for a moment, making and removing them.

A namespace is entered by a thread of its own that ends right after, because setns(2) is per thread and coming back can
fail. No descriptor is kept of a namespace that is somebody else's: it would keep it alive when its container is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from natgw.errors import NatgwError, NotFound

CLONE_NEWNET = 0x40000000
NAMED = (Path("/run/netns"), Path("/var/run/netns"))

Params = ParamSpec("Params")
Result = TypeVar("Result")

_libc = ctypes.CDLL(None, use_errno=True)


def resolve_target(target: str) -> str:
    """The path of a namespace given by name (`ip netns`), path or pid. Raises NotFound."""
    if target.isdigit():
        path = Path("/proc") / target / "ns" / "net"
        if not path.exists():
            raise NotFound(f"no process {target}: give the pid of a process that runs in the namespace")
        return str(path)
    if "/" in target:
        if not Path(target).exists():
            raise NotFound(f"no namespace at {target}")
        return target
    for folder in NAMED:
        if (folder / target).is_file():
            return str(folder / target)
    raise NotFound(f"no namespace named {target or repr(target)}: `ip netns list` shows those there are; a path or a pid "
                   "will do too")


def namespace_id(path: str) -> tuple[int, int]:
    """What makes a namespace the same as another: device and inode. Raises NotFound."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise NotFound(f"no namespace at {path}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def run_inside(path: str, function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
    """Call a function with its thread in the namespace at `path`, and give its result or raise what it raised.

    Raises NatgwError if there is no namespace at `path`, or no right to enter it.
    """
    result: list[Result] = []
    failure: list[BaseException] = []

    def visit() -> None:
        try:
            _enter(path)
            result.append(function(*args, **kwargs))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=visit, name=f"netns {path}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _enter(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would have us wait for its writer
    except OSError as error:
        raise NotFound(f"no namespace at {path}: {error.strerror}") from None
    try:
        if _libc.setns(fd, CLONE_NEWNET):
            code = ctypes.get_errno()
            if code == errno.EINVAL:
                raise NatgwError(f"{path} is not a network namespace")
            raise NatgwError(f"cannot enter the network namespace at {path}: {os.strerror(code)}")
    finally:
        os.close(fd)


def create() -> int:
    """A new namespace, as a descriptor that keeps it alive until it is closed. Raises NatgwError.

    No bind mount, as `ip netns` makes one: a mount is seen only in its own mount namespace, and outlives a kill -9. The
    namespace has a path all the same, see `path_of`.
    """
    result: list[int] = []
    failure: list[int] = []

    def make() -> None:
        if _libc.unshare(CLONE_NEWNET):
            failure.append(ctypes.get_errno())
        else:
            result.append(os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make, name="new netns")
    thread.start()
    thread.join()
    if not result:
        raise NatgwError(f"cannot make a network namespace: {os.strerror(failure[0])} (natgw needs root)")
    return result[0]


def path_of(fd: int) -> str:
    """The path by which any process of the machine finds the namespace of a descriptor of ours."""
    return f"/proc/{os.getpid()}/fd/{fd}"
