"""Going on from a text at servers that speak OpenAI's API: each wants to be told in its own way. No I/O, no SDK.

    message     the last message is the assistant's, and that says it: llama.cpp's server, LMDeploy
    vllm        two flags in the body beside it: vLLM, SGLang
    prefix      a mark in the message itself: DeepSeek, under its /beta address

Where these come from: docs/decisions/0024.
"""

from typing import Any, Final

from shared.provider_table import PrefillStyle

_FLAGS: Final = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM refuses the one without the other."""


def continued(arguments: dict[str, Any], text: str, style: PrefillStyle) -> dict[str, Any]:
    """The arguments of a call whose answer goes on from `text`; as they are where it is empty."""
    if not text:
        return arguments
    messages, answer = arguments["messages"], {"role": "assistant", "content": text}
    if style == "vllm":
        return arguments | {"messages": [*messages, answer]} | _FLAGS
    if style == "prefix":
        return arguments | {"messages": [*messages, answer | {"prefix": True}]}
    return arguments | {"messages": _joined(messages, text)}


def _joined(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """With `text` at the end. A conversation that ends with the assistant's words was itself gone on from, so that both are
    one message: llama.cpp refuses two.
    """
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls"):
        return [*messages, {"role": "assistant", "content": text}]
    content = last["content"]
    said = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return [*messages[:-1], last | {"content": said + text}]
