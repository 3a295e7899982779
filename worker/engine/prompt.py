"""A request's conversation → the ids a model starts from, and whether they fit. No torch."""

from typing import Any

from jinja2.exceptions import TemplateError

from shared.errors import GenerationFailed
from shared.job import JobRequest, Message, TextPart


def prompt_ids(tokenizer: Any, request: JobRequest, model_id: str) -> list[int]:
    """The conversation in the model's own chat template, ready for its answer; joined plainly where it has none.

    Raises:
        GenerationFailed: `bad_request`, when the template refuses the roles or their order.
    """
    messages = [{"role": message.role, "content": _text_of(message)} for message in request.chat()]
    if not tokenizer.chat_template:
        return list(tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"])
    try:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    except TemplateError as error:
        raise GenerationFailed("bad_request", f"{model_id} takes no such conversation: {error}") from None
    return list(encoded["input_ids"])


def _text_of(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content if isinstance(part, TextPart))
    return message.content or ""


def room_for_answer(model_id: str, prompt: int, answered: int, context: int, asked: int | None) -> int:
    """How many ids may still be generated: what is asked, or what the context has left. 0: the answer is as long as it can be.

    `context` is what prompt and answer have together, `answered` what the answer has already.

    Raises:
        GenerationFailed: `bad_request` with the numbers, when the prompt alone fills the context.
    """
    if prompt >= context:
        raise GenerationFailed(
            "bad_request",
            f"The prompt has {prompt:,} tokens; {model_id} takes {context:,} with room for the answer, "
            f"so at most {context - 1:,}. Shorten it by {prompt - context + 1:,} tokens or more.",
        )
    left = context - prompt - answered
    return max(0, left if asked is None else min(asked, left))
