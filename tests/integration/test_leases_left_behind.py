"""Leases that outlive what they were for: nothing of them stays, and no job stays with them."""

from redis.asyncio import Redis

from shared import keys
from shared.job_queue import JobQueue
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from worker.control import Running
from worker.leases import Leases
from worker.main import new_identity


def leases_of_a_worker(redis: Redis, settings: Settings) -> Leases:
    return Leases(redis, settings, new_identity(settings, "api"), Running())


async def test_one_that_outlived_its_job_is_given_back_without_a_trace(
    redis: Redis, settings: Settings, new_queued: NewAuthor, job_queue: JobQueue
) -> None:
    """Cancelled between the lease and the run."""
    await new_queued()
    leases = leases_of_a_worker(redis, settings)
    ((lease, *_),) = await leases.take(1)
    assert await job_queue.cancel(lease.job_id) == "ended"

    await leases.done_with(lease)

    left = [keys.arq_job(lease.job_id), keys.arq_in_progress(lease.job_id), keys.queue("api")]
    assert await redis.exists(*left) == 0


async def test_one_that_is_forgotten_is_kept_no_more(redis: Redis, settings: Settings, new_queued: NewAuthor) -> None:
    """A run that failed before it could give it back: kept, it would be renewed for ever, and nobody would run the job."""
    await new_queued()
    leases = leases_of_a_worker(redis, settings)
    ((lease, *_),) = await leases.take(1)
    leases.forget(lease)
    await redis.delete(keys.arq_in_progress(lease.job_id))  # it lapsed
    await redis.zadd(keys.queue("api"), {lease.job_id: 1})
    assert [taken.lease.job_id for taken in await leases.take(1)] == [lease.job_id]
