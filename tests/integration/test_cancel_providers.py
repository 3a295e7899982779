"""A cancel closes the connection to whichever provider within 100 ms of the answer to the call (P6): a whole worker, a real
server of the wire format, pushed signals. OpenAI's is measured between processes, in tests/system/test_cancel.py."""

import math
import time
from collections.abc import Callable

import pytest

from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.models import resolve
from shared.providers import ProviderConfig, provider_configs
from shared.settings import Settings
from tests.support.anthropic_server import AnthropicServer
from tests.support.author import request
from tests.support.ollama_server import OllamaServer
from tests.support.provider_calls import CLOSED_WITHIN_S
from tests.support.servers import Making, running_worker
from tests.support.stack import figure
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import wait_until
from worker.providers.anthropic import AnthropicProvider
from worker.providers.base import Provider
from worker.providers.ollama import OllamaProvider

CANCELS, STREAMS = 100, 20

SERVERS: dict[str, tuple[type[ScriptedUpstream], Callable[[ProviderConfig], Provider], str]] = {
    "anthropic": (AnthropicServer, AnthropicProvider, "anthropic_base_url"),
    "ollama": (OllamaServer, OllamaProvider, "ollama_host"),
}


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_cancel_closes_the_connection_within_100_ms(
    kind: str, make_settings: Making, job_queue: JobQueue, job_store: JobStore
) -> None:
    """Half of them in mid-stream, half before the first word."""
    server_of, provider_of, setting = SERVERS[kind]
    async with server_of() as upstream:
        settings = make_settings(**{setting: upstream.origin, f"{kind}_api_key": "any"})
        async with running_worker(settings, provider_of(provider_configs(settings)[kind])):
            late_s: list[float] = []
            for start in range(0, CANCELS, STREAMS):
                names = [f"count:{1000 + i}:{50 if i % 2 else 0.01}" for i in range(start, start + STREAMS)]
                job_ids = [await _submit(job_queue, settings, f"{kind}/{name}") for name in names]
                await wait_until(lambda names=names: _all_flow(upstream, names), message="they stream")  # type: ignore[misc]
                for job_id, name in zip(job_ids, names, strict=True):
                    late_s.append(await _cancel(job_queue, job_id, upstream, name))
                for job_id in job_ids:
                    await wait_until(lambda job_id=job_id: _is_cancelled(job_store, job_id))  # type: ignore[misc]
    late_s.sort()
    what = f"cancel of {kind}, answer to closed connection"
    figure(f"{what}, p50 of {CANCELS}", late_s[CANCELS // 2], CLOSED_WITHIN_S)
    figure(f"{what}, p99 of {CANCELS}", late_s[math.ceil(0.99 * CANCELS) - 1], CLOSED_WITHIN_S)
    assert {received.done_at for received in upstream.requests} == {None}


async def _submit(queue: JobQueue, settings: Settings, model_id: str) -> str:
    model = resolve(model_id, settings)
    return (await queue.submit(request(model=model.id), model)).job_id


def _all_flow(upstream: ScriptedUpstream, names: list[str]) -> bool:
    """Each has its connection, and those that are to say something have said it."""
    received = [received for name in names for received in upstream.of(name)]
    return len(received) == len(names) and all(one.chunks_sent > 2 for one in received if one.model.endswith(":50"))


async def _cancel(queue: JobQueue, job_id: str, upstream: ScriptedUpstream, name: str) -> float:
    """Seconds from the answer to the closed connection, negative where that came first."""
    assert await queue.cancel(job_id) == "asked"
    answered_at = time.monotonic()
    (received,) = upstream.of(name)
    await wait_until(lambda: received.left_at is not None, message="the worker hung up")
    assert received.left_at is not None
    return received.left_at - answered_at


async def _is_cancelled(store: JobStore, job_id: str) -> bool:
    return (await store.record(job_id)).status == "cancelled"
