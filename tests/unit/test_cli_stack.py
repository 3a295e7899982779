"""The stack's own rules: what a lane needs, what children are told, which of several waits counts."""

import asyncio
import importlib.util
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from cli.stack import DRAIN_S, WEB_DRAIN_S, Stack, first
from cli.supervisor import KILL_AFTER_S, STAGE_ENDS_S
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.support.tenants import API_KEYS


async def test_the_local_lane_without_its_extra_is_one_line_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    stack = Stack(Settings(port=0), {"local": 1}, lambda _name, _line: None)
    with pytest.raises(
        ConfigurationError, match=r"the lane local needs torch: pip install 'lastevent\[local\]', or .*--lanes api"
    ):
        await stack.start()
    assert stack.supervisor.pids() == {}
    await stack.stop()


def test_children_are_named_after_their_lane() -> None:
    assert Stack.child_names({"api": 1, "local": 2}) == ["up", "redis", "web", "api-1", "local-1", "local-2"]


async def test_children_get_addresses_and_drains_from_the_stack_and_the_rest_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LASTEVENT_LEASE_S", "2")
    monkeypatch.setenv("LASTEVENT_DRAIN_S", "60")
    monkeypatch.setenv("LASTEVENT_API_KEYS", API_KEYS[0].entry)  # of the user's, which the demo takes none of
    monkeypatch.setenv("LASTEVENT_LAME_DUCK_S", "60")
    stack = Stack(Settings(drain_s=60, web_drain_s=0.5, api_keys=()), {"local": 2}, lambda _name, _line: None)
    env = stack._environment("unix:///tmp/redis.sock", 1234)
    assert env["LASTEVENT_REDIS_URL"] == "unix:///tmp/redis.sock"
    assert env["LASTEVENT_PORT"] == "1234"
    assert env["LASTEVENT_LANES"] == "local"
    assert env["LASTEVENT_API_KEYS"] == ""
    assert env["LASTEVENT_LEASE_S"] == "2"
    assert float(env["LASTEVENT_DRAIN_S"]) == DRAIN_S, "a longer one would not fit into a stop of 10 s"
    assert float(env["LASTEVENT_LAME_DUCK_S"]) == 0, "nor would this"
    assert float(env["LASTEVENT_WEB_DRAIN_S"]) == 0.5, "a shorter one is the user's wish"


@pytest.mark.parametrize(("port", "given"), [(None, [0, 0, 0]), (0, [0, 0, 0]), (9464, [9464, 9465, 9466])])
async def test_each_worker_gets_a_port_of_its_own_for_its_metrics(port: int | None, given: list[int]) -> None:
    """0: a free one, told in its log."""
    stack = Stack(Settings(worker_metrics_port=port), {"api": 2, "local": 1}, lambda _name, _line: None)
    assert [stack._metrics_port(n) for n in range(3)] == given


@pytest.mark.parametrize("exposed", [{"host": "0.0.0.0", "allow_remote": True}, {"allow_remote": True}])
async def test_chaos_is_for_loopback_alone(exposed: dict[str, Any]) -> None:
    stack = Stack(Settings(port=0, **exposed), {"api": 1}, lambda _name, _line: None, allow_chaos=True)
    with pytest.raises(ConfigurationError, match="it is for loopback alone"):
        await stack.start()
    assert stack.supervisor.pids() == {}
    await stack.stop()


def test_what_a_stop_may_take_fits_into_ten_seconds() -> None:
    web_ends, workers_end = STAGE_ENDS_S
    assert web_ends > WEB_DRAIN_S
    assert workers_end - web_ends >= DRAIN_S + 1, "a second to hand over, even after a web process that took all its time"
    assert workers_end + 1 < KILL_AFTER_S < 9


# --- first -----------------------------------------------------------------------------------------------------------


async def test_the_first_to_end_ends_the_wait_and_the_others() -> None:
    slow = asyncio.Event()
    waiting = asyncio.create_task(slow.wait())
    await first(asyncio.sleep(0), waiting)
    assert waiting.cancelled()


async def test_what_the_first_raises_is_raised() -> None:
    async def fails() -> None:
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError, match="no"):
        await first(fails(), asyncio.Event().wait())


async def test_a_wait_that_is_cancelled_takes_its_parts_along() -> None:
    part = asyncio.create_task(asyncio.Event().wait())
    whole = asyncio.create_task(first(part))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert part.cancelled()
