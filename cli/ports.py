"""The port that `lastevent` serves on: whether it is free, and who has it when it is not."""

import errno
import os
import socket
from pathlib import Path

from shared.errors import ConfigurationError
from shared.exposure import addresses_of


def claim_port(host: str, port: int) -> int:
    """The port to serve on: `port` if it is free, any free one for 0.

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    family, _, _, _, address = addresses_of(host, port)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigurationError(_why_not(host, port, error)) from None
        return int(probe.getsockname()[1])


def base_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = _listener(port)
        return f"port {port} on {host} is taken{f' by {owner}' if owner else ''}; stop that, or choose another one with --port"
    if error.errno == errno.EACCES:
        return f"port {port} is not for ordinary users; choose one from 1024 up with --port"
    return f"cannot serve on {host} port {port}: {error.strerror or error}"


def _listener(port: int) -> str:
    """`name (pid 123)` of the process that listens on the port; empty where the system does not tell."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # gone meanwhile, or another user's
    return ""


def _listening_inodes(port: int) -> set[str]:
    """The sockets in state LISTEN on the port, as /proc/PID/fd names them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue  # not Linux
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
