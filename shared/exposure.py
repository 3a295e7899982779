"""Who reaches what is served, by the address that it is served on: others only with keys, and a chaos button nobody but
this machine."""

import ipaddress
import socket

from shared.errors import ConfigurationError
from shared.settings import Settings

Address = tuple[int, int, int, str, tuple[str, int]]
"""Family, type, protocol, canonical name, and what `bind` takes: as `getaddrinfo` has it."""


def check_exposure(settings: Settings) -> None:
    """Refuses a host that others can reach, unless there are keys, or it is explicitly wanted without.

    Raises:
        ConfigurationError: with what to do.
    """
    if settings.api_keys or settings.allow_remote or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"host {settings.host} can be reached from other machines, and without keys whoever reaches the port can spend your "
        "money. Make a key with `lastevent keys new NAME` and set LASTEVENT_API_KEYS; or use 127.0.0.1; or set "
        "LASTEVENT_ALLOW_REMOTE=1 where something in front of it keeps strangers out"
    )


def check_chaos(settings: Settings) -> None:
    """Refuses to let a page kill workers where others reach it: keys open a host to them, but no process of this machine.

    Raises:
        ConfigurationError: with what to do.
    """
    if settings.allow_remote or not is_loopback(settings.host):
        raise ConfigurationError(
            "--allow-chaos lets whoever reaches the page kill workers, so it is for loopback alone: leave it out, or unset "
            "LASTEVENT_ALLOW_REMOTE and use 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches it. Raises ConfigurationError where it has no address."""
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in addresses_of(host, 0))


def addresses_of(host: str, port: int) -> list[Address]:
    """To serve on. Raises ConfigurationError where there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"host {host!r} has no address: {error.strerror or error}") from None
    return found  # type: ignore[return-value]  # each family has a tuple of its own, and all begin with these two
