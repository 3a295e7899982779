"""shared/job.py: the request as validated, and the one table of transitions (protocol 2.1, 2.2)."""

import json
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.events import AnyEvent
from shared.job import OPEN, TERMINAL, TRANSITIONS, JobRequest, Message, parse_request

BARE = {"model": "openai/gpt-4o-mini", "prompt": "Say hello."}


def parsed(**fields: Any) -> JobRequest:
    return parse_request(json.dumps({**BARE, **fields}).encode())


def test_a_bare_request() -> None:
    request = parsed()
    assert (request.model, request.prompt, request.messages) == ("openai/gpt-4o-mini", "Say hello.", None)
    assert (request.on_interrupt, request.fallbacks, request.metadata) == ("continue", [], {})


def test_a_prompt_and_a_system_are_a_conversation() -> None:
    assert parsed(system="Be brief.").chat() == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Say hello."),
    ]


def test_system_goes_before_messages() -> None:
    request = parsed(prompt=None, system="Be brief.", messages=[{"role": "user", "content": "Hi"}])
    assert [message.role for message in request.chat()] == ["system", "user"]


def test_every_form_of_message() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    request = parsed(prompt=None, messages=messages)
    assert [message.model_dump(exclude_unset=True) for message in request.chat()] == messages


@pytest.mark.parametrize(("stop", "listed"), [(None, []), ("a", ["a"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_stop_is_a_string_or_a_list(stop: object, listed: list[str]) -> None:
    assert parsed(stop=stop).stop_list() == listed


def test_what_is_stored_is_what_was_set() -> None:
    """So that defaults of a later release apply to requests of an earlier one."""
    sent = {**BARE, "temperature": 0.5, "timeouts": {"idle_s": 3}}
    stored = parsed(**sent).to_json()
    assert json.loads(stored) == sent
    assert parse_request(stored) == parsed(**sent)


def test_numbers_may_be_whole_where_fractions_are_allowed() -> None:
    assert parsed(temperature=1, top_p=1, timeouts={"total_s": 60}).timeouts.total_s == 60


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parsed().model = "openai/other"  # type: ignore[misc]  # that is the point


def test_a_refused_request_says_which_field_and_keeps_the_body_to_itself() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(temperature=7, prompt="my secret")
    assert str(caught.value) == "The request is not valid: temperature: must be at most 2."
    assert caught.value.problems == (("temperature", "must be at most 2"),)
    assert caught.value.__context__ is None
    assert caught.value.code == "invalid_request"


def test_the_table_covers_every_event_and_leaves_no_ended_job() -> None:
    """Protocol 3: nothing follows the terminal event; every open job can end in each way."""
    tag = {event: event.__struct_config__.tag for event in AnyEvent.__args__}
    terminal_tags = {tag[event] for event in AnyEvent.__args__ if event.terminal}
    assert {event for _, event in TRANSITIONS} == set(tag.values()) - {"queued"}
    assert {status for status, _ in TRANSITIONS} == set(OPEN)
    for (_, event), after in TRANSITIONS.items():
        assert (after in TERMINAL) == (event in terminal_tags)
    for status in OPEN:
        assert {TRANSITIONS.get((status, "cancelled")), TRANSITIONS.get((status, "error"))} == {"cancelled", "failed"}
    assert TRANSITIONS[("running", "done")] == "done"


def test_a_job_is_open_or_ended() -> None:
    assert OPEN.isdisjoint(TERMINAL)
    assert {status for status, _ in TRANSITIONS} | set(TRANSITIONS.values()) == OPEN | TERMINAL
