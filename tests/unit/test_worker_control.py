"""worker/control.py: what may be said to a running job from outside it."""

import asyncio

import pytest

from worker.control import Control, Running


async def _work() -> None:
    await asyncio.Event().wait()


async def test_a_stop_cancels_the_work_that_is_watched() -> None:
    control, work = Control(), asyncio.create_task(_work())
    control.watch(work)
    control.stop("cancel")
    with pytest.raises(asyncio.CancelledError):
        await work
    assert control.reason == "cancel"


async def test_a_stop_that_came_first_cancels_what_is_watched_later() -> None:
    control, work = Control(), asyncio.create_task(_work())
    control.stop("handover")
    control.watch(work)
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_the_first_reason_stands() -> None:
    """A job that was lost cannot be cancelled here any more."""
    control = Control()
    control.stop("lost")
    control.stop("cancel")
    assert control.reason == "lost"


async def test_nothing_is_cancelled_once_the_work_is_over() -> None:
    """A stop ends the provider's stream, never the writing of the end."""
    control, work = Control(), asyncio.create_task(_work())
    control.watch(work)
    control.watch(None)
    control.stop("cancel")
    await asyncio.sleep(0)
    assert not work.cancelled()
    work.cancel()


def test_running_jobs_by_id() -> None:
    running = Running()
    first, second = running.add("a"), running.add("b")
    assert (len(running), "a" in running, "c" in running) == (2, True, False)
    running.stop("a", "cancel")
    running.stop("gone already", "cancel")
    running.remove("a")
    running.remove("a")
    running.stop_all("handover")
    assert (first.reason, second.reason, len(running)) == ("cancel", "handover", 1)


def test_what_all_were_told_holds_for_a_job_that_begins_afterwards() -> None:
    """Leased before the worker was told to stop, and not yet running: else it would run on, and wait out its lease."""
    running = Running()
    running.stop_all("handover")
    assert running.add("late").reason == "handover"
