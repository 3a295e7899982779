"""worker/job_upstream.py: who cancels a response that goes on upstream, and who leaves it to whoever has the job."""

import asyncio
from typing import cast

import pytest

from shared.errors import Superseded
from shared.ownership import KeptUpstream
from worker.job_upstream import JobUpstream
from worker.upstreams import Upstreams

KEPT = KeptUpstream("openai/m", "resp_1")


class FakeLog:
    """Takes a note once `open` is set; `refuses` it after that."""

    def __init__(self) -> None:
        self.noted: list[KeptUpstream] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refuses = False

    async def note(self, upstream: KeptUpstream) -> None:
        await self.open.wait()
        if self.refuses:
            raise Superseded("j")
        self.noted.append(upstream)


class FakeUpstreams:
    def __init__(self) -> None:
        self.abandoned: list[KeptUpstream] = []
        self.sweeps = 0

    async def abandon(self, kept: KeptUpstream) -> None:
        await asyncio.sleep(0)
        self.abandoned.append(kept)

    async def sweep(self) -> None:
        self.sweeps += 1


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def upstreams() -> FakeUpstreams:
    return FakeUpstreams()


@pytest.fixture
def upstream(log: FakeLog, upstreams: FakeUpstreams) -> JobUpstream:
    return JobUpstream(log.note, cast(Upstreams, upstreams))


async def test_what_nobody_reads_on_is_cancelled_once(upstream: JobUpstream, upstreams: FakeUpstreams) -> None:
    await upstream.note(KEPT)
    upstream.abandon()
    upstream.abandon()
    await upstream.settle()
    assert (upstreams.abandoned, upstream.kept) == ([KEPT], None)


async def test_what_has_ended_by_itself_is_not(upstream: JobUpstream, upstreams: FakeUpstreams) -> None:
    await upstream.note(KEPT)
    upstream.over()
    upstream.abandon()
    await upstream.settle()
    assert upstreams.abandoned == []


async def test_what_the_record_names_goes_with_the_job(upstream: JobUpstream, upstreams: FakeUpstreams) -> None:
    await upstream.note(KEPT)
    upstream.lost()
    upstream.opened(KEPT, left=False)
    upstream.lost()
    await upstream.settle()
    assert upstreams.abandoned == []


async def test_what_the_record_does_not_name_is_ours_to_cancel(
    upstream: JobUpstream, log: FakeLog, upstreams: FakeUpstreams
) -> None:
    log.refuses = True
    with pytest.raises(Superseded):
        await upstream.note(KEPT)
    upstream.lost()
    await upstream.settle()
    assert upstreams.abandoned == [KEPT]


async def test_a_hand_over_finishes_a_note_that_was_cut_off(
    upstream: JobUpstream, log: FakeLog, upstreams: FakeUpstreams
) -> None:
    log.open.clear()
    noting = asyncio.create_task(upstream.note(KEPT))
    await asyncio.sleep(0)
    noting.cancel()
    await asyncio.gather(noting, return_exceptions=True)
    log.open.set()
    await upstream.hand_over()
    await upstream.hand_over()
    await upstream.settle()
    assert (log.noted, upstreams.abandoned) == ([KEPT], [])


async def test_a_claim_that_left_one_behind_is_followed_by_a_sweep(upstream: JobUpstream, upstreams: FakeUpstreams) -> None:
    upstream.opened(None, left=False)
    assert upstreams.sweeps == 0
    upstream.opened(None, left=True)
    await upstream.settle()
    assert upstreams.sweeps == 1
