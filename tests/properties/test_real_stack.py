"""Any cut + resume ≡ the uninterrupted stream, on a real Redis and a real server, while the log is written: few examples."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.reader import JobReader
from shared.event_log import EventLog
from shared.events import Content
from shared.job import Job
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.redis_client import make_client
from shared.settings import Settings
from tests.properties.strategies import contents
from tests.support.author import Author
from tests.support.redis_server import RedisServer
from tests.support.servers import running_web

Attempts = list[tuple[bool, list[list[Content]]]]
"""For each attempt: whether it resets, and what it appends, script by script."""

batches = st.lists(st.lists(contents, min_size=1, max_size=4), max_size=5)
attempts = st.lists(st.tuples(st.booleans(), batches), min_size=1, max_size=3)


async def write(author: Author, written: Attempts) -> None:
    for reset, batches in written:
        await author.claim(reset=reset)
        for batch in batches:
            await author.put(*batch)
    await author.end()


async def read(reader: JobReader, cuts: set[int]) -> None:
    """To the end, losing the connection after these frames."""
    n = 0
    async for frame in reader:
        if frame["type"] == "dropped":
            continue
        n += 1
        if n in cuts:
            reader.drop()


async def write_and_read(url: str, written: Attempts, cuts: set[int], merge: bool) -> tuple[JobReader, Job]:
    options = Settings(redis_url=url, lanes=("api",), retry_min_ms=0, retry_max_ms=1, log_check_s=0.5)
    redis = make_client(options)
    log = EventLog(redis, options)
    try:
        async with running_web(options) as web:
            author = await Author.submit(redis, log, JobQueue(redis, options))
            reader = JobReader(web.url, author.job_id, merge=merge)
            await asyncio.gather(read(reader, cuts), write(author, written))
            return reader, await JobStore(redis, log).job(author.job_id)
    finally:
        await redis.aclose()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attempts, st.sets(st.integers(1, 20), max_size=6), st.booleans())
def test_cut_anywhere_while_it_is_written(redis_server: RedisServer, written: Attempts, cuts: set[int], merge: bool) -> None:
    """The reader ends with what the snapshot shows, and proves from the ids that nothing was lost or doubled."""
    reader, job = asyncio.run(write_and_read(redis_server.url, written, cuts, merge))
    assert (reader.lost, reader.doubled) == (0, 0)
    assert (reader.text, reader.reasoning, reader.refusal) == (job.text, job.reasoning, job.refusal)
    assert reader.tool_calls == job.tool_calls
    assert [frame["attempt"] for frame in reader.attempts] == [attempt.number for attempt in job.attempts]
    assert reader.terminal is not None
    assert reader.cursor == job.last_event_id
