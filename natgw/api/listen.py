"""Being the one daemon of a socket: the lock that says so, the socket itself, and what a dead daemon left of them.

The lock is flock(2) on a file in the state directory. The kernel drops it when its holder ends, however that happens, so
whoever gets it knows that any socket still lying there is nobody's. It is kept until everything else is removed: a
daemon that is still cleaning up refuses its successor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from natgw.api import state_directory
from natgw.api.peer import peer_pid
from natgw.errors import Conflict, NatgwError

LONGEST_PATH_BYTES = 107  # sun_path of unix(7), less its end mark
PROBE_TIMEOUT_S = 2.0
BACKLOG = 128
LOCK_TRIES = 100
LONGEST_NOTE_BYTES = 65536
LOG_NAME = "natgw.log"


class Claim:
    """The right to listen on `path`, from `Claim(path)` to the end of its `with`, and the directories that go with it.

    Raises Conflict if another daemon has it, NatgwError if the path cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        if len(os.fsencode(self.path)) > LONGEST_PATH_BYTES:
            raise NatgwError(f"socket path {self.path} is longer than {LONGEST_PATH_BYTES} bytes")
        self.state = state_directory(self.path)
        self.log = self.state / LOG_NAME
        self._lock_path = self.state / "lock"
        self._made: list[Path] = []
        self._bound: tuple[int, int] | None = None
        try:
            self._make_directory(self.path.parent)
            self._lock = self._take_lock()
        except OSError as error:
            self._remove_directories()
            raise NatgwError(f"cannot use {self.path}: {error.strerror}: {error.filename}") from None
        except NatgwError:
            self._remove_directories()
            raise
        try:
            self._remove_stale_socket()
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # A log is worth keeping only if it says what nobody foresaw.
        self.release(keep_log=kind is not None and not issubclass(kind, NatgwError))

    def listen(self) -> socket.socket:
        """The socket, listening, which nobody but root (or who started natgw) can connect to."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(self.path))
        except OSError as error:
            listening.close()
            raise NatgwError(f"cannot listen on {self.path}: {error.strerror}") from None
        finally:
            os.umask(before)
        self._bound = _identity(self.path)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        return listening

    def release(self, *, keep_log: bool = False) -> None:
        """Remove the socket, the lock, and the directories that we made and that are empty; the log unless kept."""
        if self._bound is not None and _identity(self.path) == self._bound:
            self.path.unlink(missing_ok=True)
        if not keep_log:
            self.log.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        if self.state not in self._made:
            self._made.append(self.state)
        self._remove_directories()

    def _make_directory(self, path: Path) -> None:
        """Make a directory, and those above it that are missing, for nobody but us; leave one that exists as it is."""
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
            self._made.append(parent)
        status = os.lstat(path)
        if path == self.state and (not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid()):
            raise NatgwError(f"{path} is not a directory of ours: remove it or choose another --socket")

    def _take_lock(self) -> int:
        for _ in range(LOCK_TRIES):
            try:
                self._make_directory(self.state)
                descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except (FileNotFoundError, FileExistsError):
                continue  # the last holder has just removed the directory; mkdir may see it before, and not after
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).partition(b"\n")[0].decode()
                os.close(descriptor)
                raise self._taken(holder) from None
            # The last holder may have removed the file between our opening and our locking it.
            if _identity(self._lock_path) == _identity(descriptor):
                self._sign(descriptor)
                return descriptor
            os.close(descriptor)
        raise self._taken("")

    def _sign(self, lock: int) -> None:
        """Write our pid in the lock and, for a successor should we be killed, the directories we made; take over those of a
        predecessor that was."""
        _, *theirs = os.pread(lock, LONGEST_NOTE_BYTES, 0).split(b"\0")
        inherited = [Path(os.fsdecode(name)) for name in theirs]
        self._made = [*inherited, *(path for path in self._made if path not in inherited)]
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"\0".join([b"%d\n" % os.getpid(), *map(os.fsencode, self._made)]), 0)

    def _remove_stale_socket(self) -> None:
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise NatgwError(f"{self.path} exists and is not a socket: remove it or choose another --socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            refused = probe.connect_ex(str(self.path))
            if refused == 0:
                raise self._taken(str(peer_pid(probe)))
        if refused != errno.ECONNREFUSED:
            raise self._taken("")
        self.path.unlink(missing_ok=True)

    def _taken(self, pid: str) -> Conflict:
        return Conflict(f"natgw is already running on {self.path}" + (f" (pid {pid})" if pid not in ("", "0") else ""))

    def _remove_directories(self) -> None:
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:
                return  # somebody else's files are in it, or it is gone already


def _identity(place: Path | int) -> tuple[int, int] | None:
    try:
        status = os.stat(place)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
