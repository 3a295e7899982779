"""shared/loop_lag.py: a loop that is held up shows it."""

import time

import pytest

from shared.loop_lag import LoopLag
from tests.support.waiting import wait_until


async def test_a_loop_that_was_held_up_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.loop_lag._PERIOD_S", 0.02)
    lag = LoopLag()
    lag.start()
    await wait_until(lambda: sum(lag.seconds.counts) >= 2, message="two looks")
    before = lag.seconds.total
    time.sleep(0.15)  # noqa: ASYNC251 - what it is to find
    await wait_until(lambda: lag.seconds.total - before > 0.1, message="the stall shows")
    lag.stop()
