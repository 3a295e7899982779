"""`python -m worker.alive`: has a worker of this host renewed its entry within its lease? A container's health check."""

import asyncio
import sys

from shared.errors import LasteventError
from shared.event_log import EventLog
from shared.job_store import JobStore
from shared.redis_client import UNREACHABLE, make_client
from shared.settings import Settings, load_settings


async def missing(settings: Settings) -> str | None:
    """Why no worker of this host counts as live; None when one does."""
    redis = make_client(settings)
    try:
        workers = await JobStore(redis, EventLog(redis, settings)).workers()
    except UNREACHABLE as error:
        return f"Redis is away: {error}"
    finally:
        await redis.aclose()
    if any(worker.host == settings.hostname for worker in workers):
        return None
    return f"no worker of {settings.hostname} is live"


def main() -> None:
    try:
        why = asyncio.run(missing(load_settings()))
    except LasteventError as error:
        why = str(error)
    sys.exit(why and f"worker.alive: {why}")


if __name__ == "__main__":
    main()
