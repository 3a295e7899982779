"""worker/providers/openai_prefill.py: a call's arguments with the text so far, in each of the ways to say it."""

from typing import Any, get_args

import pytest

from shared.provider_table import PrefillStyle
from worker.providers.openai_prefill import continued

ASKED = {"role": "user", "content": "Tell me."}


def messages(*chat: dict[str, Any], style: PrefillStyle = "message") -> list[dict[str, Any]]:
    after: list[dict[str, Any]] = continued({"messages": [ASKED, *chat]}, "so far", style)["messages"]
    assert after[0] == ASKED
    return after[1:]


@pytest.mark.parametrize("style", get_args(PrefillStyle))
def test_without_a_text_nothing_is_added(style: PrefillStyle) -> None:
    arguments = {"model": "m", "messages": [ASKED]}
    assert continued(arguments, "", style) == {"model": "m", "messages": [ASKED]}


@pytest.mark.parametrize("style", get_args(PrefillStyle))
def test_the_arguments_given_stay_as_they_are(style: PrefillStyle) -> None:
    """They are the caller's conversation, which a later attempt sends again."""
    arguments = {"model": "m", "messages": [ASKED]}
    continued(arguments, "so far", style)
    assert arguments == {"model": "m", "messages": [ASKED]}


def test_by_message_the_assistants_own_last_words_are_one_with_it() -> None:
    said = {"role": "assistant", "content": "Well, "}
    assert messages(said) == [{"role": "assistant", "content": "Well, so far"}]
    parts = [{"type": "text", "text": "We"}, {"type": "text", "text": "ll, "}]
    assert messages({"role": "assistant", "content": parts}) == [{"role": "assistant", "content": "Well, so far"}]


@pytest.mark.parametrize(
    "last",
    [
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
    ],
)
def test_by_message_what_is_no_text_of_the_assistants_stays_apart(last: dict[str, Any]) -> None:
    assert messages(last) == [last, {"role": "assistant", "content": "so far"}]


@pytest.mark.parametrize("style", ["vllm", "prefix"])
def test_told_otherwise_the_first_attempt_had_begun_a_message_of_its_own(style: PrefillStyle) -> None:
    said = {"role": "assistant", "content": "Well, "}
    [first, second] = messages(said, style=style)
    assert (first, second["content"]) == (said, "so far")
