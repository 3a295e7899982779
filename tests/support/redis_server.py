"""A real redis-server of the tests' own, on a free port."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from cli.embedded_redis import find_redis_server


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RedisServer:
    """Starts, kills and starts again; its append-only file outlives a kill, as it does in production."""

    def __init__(self, *, append_only: bool = False, **options: str) -> None:
        """`options` are redis-server's own, with `_` for `-`."""
        self.port = free_port()
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._append_only = append_only
        self._dir = Path(tempfile.mkdtemp(prefix="lastevent-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._dir),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            # Written before the reply, so that a SIGKILL forgets nothing that was answered. Under `everysec` a slow fsync holds
            # writes back for up to two seconds, and what such a kill forgets is another test's subject.
            "appendfsync": "no",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            **self._options,
        }
        command = [find_redis_server().path, *(word for k, v in options.items() for word in (f"--{k}", v))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: what was written is in its file, nothing is said to anyone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def file_size(self) -> int:
        """Bytes of what it has written of its history so far."""
        return self._file.stat().st_size

    def forget_after(self, size: int) -> None:
        """Its file as a crash of its host may leave it, once it is killed: cut off in mid-command, a little after `size`."""
        os.truncate(self._file, min(size + 9, self.file_size))

    @property
    def _file(self) -> Path:
        (file,) = (self._dir / "appendonlydir").glob("*.incr.aof")
        return file

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(7) == b"+PONG\r\n"  # not while it is still loading its file
        except OSError:
            return False
