"""worker/upstreams.py: whose provider cancels; the lane's list is in tests/integration/test_generate_background.py."""

from typing import cast

import pytest
from redis.asyncio import Redis

from shared.ownership import KeptUpstream
from tests.support.scripted_provider import ScriptedProvider
from worker.providers.base import Provider
from worker.upstreams import Upstreams


class Resumable(ScriptedProvider):
    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.abandoned: list[str] = []

    async def abandon(self, upstream_id: str) -> None:
        self.abandoned.append(upstream_id)


def upstreams(*providers: Provider) -> Upstreams:
    return Upstreams(cast(Redis, None), {provider.name: provider for provider in providers}, "api")


async def test_a_response_is_cancelled_by_the_provider_that_made_it() -> None:
    openai, other = Resumable("openai"), Resumable("other")
    await upstreams(openai, other).abandon(KeptUpstream("other/a/b", "resp_1"))
    assert (openai.abandoned, other.abandoned) == ([], ["resp_1"])


@pytest.mark.parametrize("provider", [ScriptedProvider(name="openai"), Resumable("other")])
async def test_one_that_no_provider_here_can_cancel_is_told_in_the_log(
    provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """Background mode was turned off, or the provider's table is gone, since it began."""
    await upstreams(provider).abandon(KeptUpstream("openai/m", "resp_1"))
    told = capsys.readouterr().out
    assert "may go on upstream" in told
    assert "resp_1" in told
