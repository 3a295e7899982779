"""worker/providers/openai.py, for a server with a name of its own: what it says, and how it is asked to go on from a text."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.errors import ConfigurationError
from shared.events import Token
from shared.job import JobRequest
from tests.support.openai_server import DONE, OpenAIServer, Status, answer, finish, role, text
from tests.support.provider_calls import collected, config_of, failed
from worker.providers.base import Call, Finish, Prefix
from worker.providers.openai import OpenAIProvider


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


def named(base_url: str, **table: object) -> OpenAIProvider:
    """A provider with a table of its own, called vllm."""
    return OpenAIProvider(config_of("vllm", providers={"vllm": {"kind": "openai", "base_url": base_url, **table}}))


def call_of(model: str = "m", prefix: Prefix | None = None, **request: Any) -> Call:
    body = {"model": f"vllm/{model}", "prompt": "Say hello.", **request}
    return Call("job_x", model, JobRequest.model_validate(body), None, prefix)


async def test_it_speaks_of_its_own_variable_and_models(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    failure, _ = await failed(named(server.url, api_key_env="VLLM_API_KEY"), call_of())
    assert str(failure) == "VLLM_API_KEY is not set where the workers run: set it and start them again."
    assert server.requests == []
    server.on("m", Status(401))
    provider = named(server.url)
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert str(failure).startswith("vllm/m refused the key (401): name the key's variable in api_key_env of [providers.vllm]")


async def test_a_server_that_is_not_found_is_looked_for_in_its_table(server: OpenAIServer) -> None:
    server.on("m", Status(404))
    provider = named(server.url)
    failure, _ = await failed(provider, call_of())
    await provider.close()
    assert failure.code == "bad_request"
    assert "check the model's name and base_url of [providers.vllm]" in str(failure)


# --- going on from a text ------------------------------------------------------------------------------------------------


def test_it_goes_on_from_no_text_unless_it_is_told_so() -> None:
    """A server that cannot would answer it, with a status of 200."""
    provider = named("http://127.0.0.1:1/v1")
    assert provider.can_continue(call_of())
    assert provider.can_continue(call_of(prefix=Prefix("")))
    assert not provider.can_continue(call_of(prefix=Prefix("Once")))


def test_only_the_models_that_are_set_go_on_from_a_text() -> None:
    provider = named("http://127.0.0.1:1/v1", prefill=["qwen*"])
    assert provider.can_continue(call_of("qwen3-8b", prefix=Prefix("Once")))
    assert not provider.can_continue(call_of("llama3", prefix=Prefix("Once")))
    assert provider.can_continue(call_of("llama3"))


@pytest.mark.parametrize(
    ("style", "last_message", "flags"),
    [
        ("message", {"role": "assistant", "content": "Once"}, {}),
        ("vllm", {"role": "assistant", "content": "Once"}, {"continue_final_message": True, "add_generation_prompt": False}),
        ("prefix", {"role": "assistant", "content": "Once", "prefix": True}, {}),
    ],
)
async def test_the_text_so_far_is_the_last_message(
    server: OpenAIServer, style: str, last_message: dict[str, object], flags: dict[str, object]
) -> None:
    """Without the white space at its end, which the model then most likely repeats."""
    provider = named(server.url, prefill=["*"], prefill_style=style)
    server.on("m", role(), text("\n"), text(" "), text("upon"), text(" a time"), finish(), DONE)
    call = call_of("m", prefix=Prefix("Once \n"))
    assert await collected(provider, call) == [Token("upon"), Token(" a time"), Finish("stop")]
    await provider.close()
    body = server.requests[0].body
    assert body["messages"] == [{"role": "user", "content": "Say hello."}, last_message]
    assert {name: body[name] for name in body.keys() - {"model", "messages", "stream", "stream_options"}} == flags


async def test_a_model_that_takes_no_prefix_is_sent_none(server: OpenAIServer) -> None:
    provider = named(server.url, prefill=["other"], prefill_style="vllm")
    server.on("m", *answer(" anew"))
    assert (await collected(provider, call_of("m", prefix=Prefix("Once "))))[0] == Token(" ")
    await provider.close()
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "continue_final_message" not in body


async def test_openai_itself_is_not_to_go_on_from_a_text() -> None:
    """It would answer the text, and the reader's would go on with the beginning of another."""
    provider = OpenAIProvider(config_of("openai", openai_base_url=None, providers={"openai": {"prefill": ["*"]}}))
    with pytest.raises(ConfigurationError, match=r"prefill of \[providers\.openai\] is for other servers"):
        await provider.start()
