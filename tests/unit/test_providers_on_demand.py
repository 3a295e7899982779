"""worker/providers/on_demand.py: made once, in a thread, and only where somebody asks."""

import asyncio
import threading

import pytest

from worker.providers.on_demand import OnDemand


class Maker:
    def __init__(self, fails: bool = False) -> None:
        self.threads: list[threading.Thread] = []
        self.may_go_on = threading.Event()
        self._fails = fails

    def __call__(self) -> str:
        self.threads.append(threading.current_thread())
        assert self.may_go_on.wait(5)
        if self._fails:
            raise ImportError("no such package")
        return "made"


@pytest.fixture
def make() -> Maker:
    return Maker()


async def test_nobody_asked(make: Maker) -> None:
    assert await OnDemand(make).if_begun() is None
    assert make.threads == []


async def test_all_who_ask_get_the_one(make: Maker) -> None:
    value = OnDemand(make)
    value.begin()
    value.begin()
    asking = [asyncio.create_task(value.get()) for _ in range(3)]
    make.may_go_on.set()
    assert await asyncio.gather(*asking) == ["made"] * 3
    assert await value.if_begun() == "made"
    assert len(make.threads) == 1
    assert make.threads[0] is not threading.current_thread()


async def test_who_stops_asking_takes_it_from_nobody(make: Maker) -> None:
    value = OnDemand(make)
    first, second = asyncio.create_task(value.get()), asyncio.create_task(value.get())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    make.may_go_on.set()
    assert await second == "made"


async def test_a_failure_is_told_to_each_who_asks() -> None:
    make = Maker(fails=True)
    make.may_go_on.set()
    value = OnDemand(make)
    value.begin()
    assert await value.if_begun() is None
    for _ in range(2):
        with pytest.raises(ImportError, match="no such package"):
            await value.get()


async def test_it_can_be_looked_at_without_making_it(make: Maker) -> None:
    value = OnDemand(make)
    assert value.made() is None
    assert not make.threads
    value.begin()
    assert value.made() is None
    make.may_go_on.set()
    assert await value.get() == value.made() == "made"


async def test_what_could_not_be_made_is_not_there() -> None:
    make = Maker(fails=True)
    make.may_go_on.set()
    value = OnDemand(make)
    with pytest.raises(ImportError):
        await value.get()
    assert value.made() is None
