"""A conversation → ids, and whether it fits."""

from typing import Any

import pytest
from jinja2.exceptions import TemplateError

from shared.errors import GenerationFailed
from shared.job import ImagePart, JobRequest, Message, TextPart
from worker.engine.prompt import prompt_ids, room_for_answer


class FakeTokenizer:
    """Ids are characters."""

    def __init__(self, chat_template: str | None = "some", refuses: bool = False) -> None:
        self.chat_template = chat_template
        self._refuses = refuses

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> dict[str, list[int]]:
        assert options == {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
        if self._refuses:
            raise TemplateError("roles must alternate")
        return self("|".join(f"{m['role']}:{m['content']}" for m in messages))


def text_of(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_the_whole_conversation_goes_through_the_template_with_its_parts_joined() -> None:
    parts: list[TextPart | ImagePart] = [TextPart(type="text", text="a"), TextPart(type="text", text="b")]
    request = JobRequest(model="local/any", system="s", messages=[Message(role="user", content=parts)])
    assert text_of(prompt_ids(FakeTokenizer(), request, "local/any")) == "system:s|user:ab"


def test_a_model_without_a_template_gets_the_text() -> None:
    request = JobRequest(model="local/any", system="s", prompt="p")
    assert text_of(prompt_ids(FakeTokenizer(chat_template=None), request, "local/any")) == "s\n\np"


def test_what_the_template_refuses_is_the_callers_mistake() -> None:
    with pytest.raises(GenerationFailed, match="roles must alternate") as caught:
        prompt_ids(FakeTokenizer(refuses=True), JobRequest(model="local/any", prompt="p"), "local/any")
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    ("prompt", "answered", "asked", "room"),
    [
        (10, 0, None, 90),
        (10, 0, 5, 5),
        (10, 0, 500, 90),
        (10, 30, None, 60),
        (99, 0, None, 1),
        (60, 40, None, 0),
        (60, 40, 5, 0),
    ],
)
def test_the_answer_gets_what_is_asked_or_what_is_left(prompt: int, answered: int, asked: int | None, room: int) -> None:
    assert room_for_answer("local/any", prompt, answered, 100, asked) == room


def test_a_prompt_that_fills_the_context_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        GenerationFailed, match=r"9,000 tokens; local/any takes 8,192 .* at most 8,191.*by 809 tokens"
    ) as caught:
        room_for_answer("local/any", 9_000, 0, 8_192, 10)
    assert caught.value.code == "bad_request"
    assert not caught.value.retryable
