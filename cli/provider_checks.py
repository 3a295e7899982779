"""What `lastevent doctor` looks at in providers: whether their keys are set, and whether something answers where a server of
one's own is said to be. No key leaves this machine for that, and OpenAI and Anthropic are not asked."""

import asyncio
from typing import Final

import httpx2

from cli.finding import Finding
from shared.errors import GenerationFailed
from shared.models import listed_models
from shared.providers import ProviderConfig, provider_configs
from shared.settings import API_LANE, Settings
from worker.providers.key import usable_key
from worker.providers.ollama import server_url
from worker.providers.upstream import address

WANTS_KEY: Final = frozenset({"openai", "anthropic"})
"""Kinds whose own makers serve nobody without a key."""

MAKERS: Final = (".openai.com", ".anthropic.com")
"""Whose servers are not one's own, though somebody may have written an address of theirs down."""

PATIENCE_S: Final = 2.0
"""A server that takes longer to say anything is as good as away."""

_REFUSED: Final = "All connection attempts failed"
"""What anyio says where nobody listens, which says no more than that nothing answers."""


async def provider_findings(settings: Settings) -> list[Finding]:
    """The providers whose models are listed or that have a table, as the workers of this environment would call them."""
    if API_LANE not in settings.lanes:
        return []
    listed = {model.provider for model in listed_models(settings)}
    configs = [
        config for config in provider_configs(settings).values() if config.name in listed or config.name in settings.providers
    ]
    return [*map(_key, configs), *await _servers(configs)]


def _key(config: ProviderConfig) -> Finding:
    name, wanted = f"key {config.name}", config.kind in WANTS_KEY and config.base_url is None
    try:
        key = usable_key(config, wanted=wanted)
    except GenerationFailed as error:
        # Its models are listed, whoever may want them: only a key that was asked for is a failure.
        told, _, advice = str(error).partition(": ")
        return Finding(name, "fail" if config.key_wanted else "warn", told, f"{advice} Until then {config.name}/… fails.")
    if key:
        return Finding(name, "ok", f"{config.key_env} is set")
    return Finding(name, "ok", f"none is wanted at {_shown(_url(config))}")


async def _servers(configs: list[ProviderConfig]) -> list[Finding]:
    """All are asked at once: together they take no longer than the slowest."""
    own = [config for config in configs if config.base_url is not None or config.kind == "ollama"]
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:  # by a proxy where the environment names one, as workers do
        found = await asyncio.gather(*(_server(client, config) for config in own))
    return [finding for finding in found if finding is not None]


async def _server(client: httpx2.AsyncClient, config: ProviderConfig) -> Finding | None:
    """None for a server that is not to be asked."""
    name, url = f"server {config.name}", address(_url(config))
    if url is None:
        advice = "mend it: no worker of the lane api starts with it"
        return Finding(name, "fail", f"{config.address_setting} is no address as http://host:port/v1", advice)
    if f".{url.host}".endswith(MAKERS):
        return None
    advice = f"start it, or check {config.address_setting}. Until then {config.name}/… fails."
    try:
        async with asyncio.timeout(PATIENCE_S), client.stream("GET", _without_password(url)) as answer:
            status = answer.status_code
    except TimeoutError:
        return Finding(name, "warn", f"{_shown(url)} says nothing for {PATIENCE_S:g} s", advice)
    except httpx2.RequestError as error:
        why = f": {error}" if str(error) not in ("", _REFUSED) else ""
        return Finding(name, "warn", f"nothing answers at {_shown(url)}{why}", advice)
    if status >= 500:
        return Finding(name, "warn", f"{_shown(url)} answers HTTP {status}", advice)
    return Finding(name, "ok", f"{_shown(url)} answers")


def _url(config: ProviderConfig) -> str:
    """Empty where the kind's own maker serves."""
    return server_url(config.base_url or "") if config.kind == "ollama" else config.base_url or ""


def _without_password(url: httpx2.URL) -> httpx2.URL:
    return url.copy_with(username=None, password=None)


def _shown(url: httpx2.URL | str) -> str:
    """An address as it may stand on a screen."""
    parsed = address(str(url))
    return str(_without_password(parsed)) if parsed is not None else "its server"
