"""What the log's scripts publish: ready-made frames of what they wrote, and of nothing else (protocol P5)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared import keys
from shared.errors import Superseded
from shared.event_log import EventLog
from shared.events import Error, Timing, Token, Usage
from shared.ids import QUEUED, START, EventId
from shared.push import Push, parse_push
from tests.integration.conftest import NewAuthor
from tests.support.author import DONE, MODEL, Author, append, end

FAILED = Error("timeout", "late", True, True, Usage(), Timing())


class Listener:
    """What the readers' hub would be told about one job."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    async def push(self) -> Push:
        async with asyncio.timeout(5):
            while (message := await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=5)) is None:
                pass
        return parse_push(message["data"])

    async def all(self, redis: Redis, channel: str) -> list[Push]:
        """Everything pushed so far: what comes before a mark of our own."""
        await redis.publish(channel, b"0-0 0-0 0 .\nmark")
        pushes = []
        while (push := await self.push()).frames != b"mark":
            pushes.append(push)
        return pushes


@pytest.fixture
async def pubsub(redis: Redis) -> AsyncIterator[PubSub]:
    async with redis.pubsub() as pubsub:
        yield pubsub


async def listen(pubsub: PubSub, author: Author) -> Listener:
    await pubsub.subscribe(keys.log(author.job_id))
    await pubsub.get_message(timeout=5)
    return Listener(pubsub)


async def test_every_write_is_pushed_as_ready_made_frames(new_queued: NewAuthor, pubsub: PubSub, redis: Redis) -> None:
    author = await new_queued()
    listener = await listen(pubsub, author)
    await author.claim()
    await author.put(Token("a"), Token("b"))
    await author.end()
    claim, tokens, end = await listener.all(redis, keys.log(author.job_id))
    assert (claim.before, claim.after, claim.n, claim.terminal) == (QUEUED, EventId(1, 0), 1, False)
    assert (tokens.before, tokens.after, tokens.n, tokens.terminal) == (EventId(1, 0), EventId(1, 2), 2, False)
    assert tokens.frames == (b'id: 1-1\ndata: {"type":"token","text":"a"}\n\nid: 1-2\ndata: {"type":"token","text":"b"}\n\n')
    assert (end.before, end.after, end.n, end.terminal) == (EventId(1, 2), EventId(1, 3), 1, True)


async def test_only_what_was_added_is_pushed(new_author: NewAuthor, pubsub: PubSub, redis: Redis) -> None:
    author = await new_author()
    assert author.owner is not None
    await author.put(Token("a"))
    listener = await listen(pubsub, author)
    await append(redis, author.owner, 1, Token("a"), Token("b"))
    await append(redis, author.owner, 1, Token("a"), Token("b"))
    [push] = await listener.all(redis, keys.log(author.job_id))
    assert (push.before, push.after, push.n) == (EventId(1, 1), EventId(1, 2), 1)


async def test_what_is_refused_reaches_no_reader(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, pubsub: PubSub
) -> None:
    """P5."""
    author = await new_author()
    zombie = author.owner
    assert zombie is not None
    await author.claim(worker="w2")
    listener = await listen(pubsub, author)
    for write in (append(redis, zombie, 1, Token("zombie")), end(redis, zombie, 1, DONE)):
        with pytest.raises(Superseded):
            await write
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9", seen=START.next()) == "moved"
    assert await listener.all(redis, keys.log(author.job_id)) == []
