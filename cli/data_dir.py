"""The folder in which `lastevent up` keeps its Redis: there, writable, with room, and used by one stack at a time."""

import asyncio
import contextlib
import fcntl
import os
import time
from pathlib import Path

from shared.errors import ConfigurationError

ROOM = 1024 * 1024
"""Bytes that must fit: less, and Redis could not even begin its append-only file."""

ORPHAN_S = 5.0
"""How long to wait for the Redis of a supervisor that was killed a moment ago: the kernel ends it at once (tether.py)."""


class DataDir:
    """A data folder, locked while this object is open.

    The lock is a flock on `lock`, and its descriptor is handed down to Redis: it is free once the last process is gone that
    may write here, not when the supervisor is. The file's content, a pid, is for the message alone.
    """

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd

    @classmethod
    async def open(cls, path: Path) -> "DataDir":
        """Makes the folder if need be, locks it, and tries that it takes data.

        Raises:
            ConfigurationError: in use, not writable, or full.
        """
        path, fd = _open_lock(path)
        try:
            await _lock(path, fd)
            _probe(path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(fd)
            raise _unusable(path, error) from None
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd)

    def close(self) -> None:
        """Gives the lock back, unless a Redis still holds it."""
        os.close(self.lock_fd)


def _open_lock(path: Path) -> tuple[Path, int]:
    path = path.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path, os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None


async def _lock(path: Path, fd: int) -> None:
    deadline = time.monotonic() + ORPHAN_S
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        holder = _holder(fd)
        if (holder and _is_alive(holder)) or time.monotonic() > deadline:
            by = f" (pid {holder})" if holder else ""
            raise ConfigurationError(f"another `lastevent up`{by} uses {path}; stop it, or choose another --data-dir")
        await asyncio.sleep(0.05)  # a lock that another process holds tells nobody when it is free


def _holder(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _probe(path: Path) -> None:
    """Writes ROOM bytes to the disk and takes them away again. Raises OSError."""
    probe = path / f"probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())  # some file systems (NFS, quotas) say "full" here and not before
    finally:
        probe.unlink(missing_ok=True)


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    why = (error.strerror or str(error)).lower()
    return ConfigurationError(f"cannot keep data in {path}: {why}; mend that, or choose another --data-dir")
