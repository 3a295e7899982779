"""How many files this process may have open, and how many readers fit: each one is a file."""

import resource
from contextlib import suppress
from typing import Final

from shared.settings import Settings

MANY_READERS: Final = 5_000
"""The crowd that one web process is built to carry; where the system lets it have fewer, one line says so."""

_OUR_OWN: Final = 64
"""Files that no reader is: logs, libraries, the listening socket, callers that submit and leave."""


def raise_file_limit() -> int:
    """Raises the limit to what the system lets this process have, which usually is far above the 1,024 it begins with, and
    returns what it is then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS calls it unlimited, and takes no such limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def readers_that_fit(files: int, settings: Settings) -> int:
    """How many readers a web process can serve with so many files."""
    pools = 2 if settings.durable_submit else 1
    return max(0, files - pools * settings.redis_connections - _OUR_OWN)


def few_readers(files: int, settings: Settings) -> str | None:
    """One line that says so where they are few, and what to do; else None."""
    readers = readers_that_fit(files, settings)
    if readers >= MANY_READERS:
        return None
    return (
        f"this system allows {files:,} open files, so {readers:,} readers fit into a web process: raise the hard limit "
        "(LimitNOFILE= in systemd, ulimits: in compose, nofile in /etc/security/limits.conf)"
    )
