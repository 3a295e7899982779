"""worker/providers/openai_responses.py: each event's deltas, and how far they say the stream was read."""

from typing import Any

import pytest

from shared.errors import GenerationFailed, UpstreamOver
from shared.events import Reasoning, Refusal, Token, ToolCall, Usage
from worker.providers.base import Delta, Upstream
from worker.providers.openai_responses import ResponseReader

Json = dict[str, Any]


def event(kind: str, position: int | None = 1, **fields: Any) -> Json:
    return {"type": kind, "sequence_number": position, **fields}


def text(piece: object, position: int = 1, item: int = 0) -> Json:
    return event("response.output_text.delta", position, output_index=item, delta=piece)


def response(**fields: Any) -> Json:
    return {"id": "resp_1", "output": [], "usage": None, "incomplete_details": None, "error": None, **fields}


def reading() -> ResponseReader:
    """A reader in the middle of a response."""
    return ResponseReader("openai/m", Upstream("resp_1", 4))


def read(reader: ResponseReader, *events: Json) -> list[Delta]:
    return [delta for one in events for delta in reader.read(one)]


# --- which response, and how far -----------------------------------------------------------------------------------------


def test_the_first_event_says_which_response_it_is() -> None:
    reader = ResponseReader("openai/m")
    assert reader.read(event("response.created", 0, response=response())) == [Upstream("resp_1", 0)]
    assert reader.read(event("response.in_progress", 1, response=response())) == []


def test_content_comes_behind_the_position_that_it_is_read_up_to() -> None:
    assert read(reading(), text("Hel", 5), text("lo", 6)) == [
        Upstream("resp_1", 5), Token("Hel"), Upstream("resp_1", 6), Token("lo")
    ]  # fmt: skip


def test_what_adds_nothing_moves_nothing() -> None:
    """Nothing is lost by reading it again."""
    reader = reading()
    assert read(reader, event("keepalive", 5), event("response.content_part.added", 6), text("", 7)) == []
    assert reader.upstream == Upstream("resp_1", 4)


def test_half_a_character_holds_its_whole_piece_back() -> None:
    """Were the first part handed on with its position, who reads on from there would never see the half."""
    reader = reading()
    assert reader.read(text("so \ud83d", 5)) == []
    assert reader.read(text("\ude42 it", 6)) == [Upstream("resp_1", 6), Token("so 🙂 it")]


def test_halves_of_two_items_do_not_meet() -> None:
    assert read(reading(), text("\ud83d", 5, item=0), text("\ude42", 6, item=1))[1] == Token("�")


# --- content -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("response.output_text.delta", Token("x")),
        ("response.refusal.delta", Refusal("x")),
        ("response.reasoning_summary_text.delta", Reasoning("x")),
        ("response.reasoning_text.delta", Reasoning("x")),
    ],
)
def test_kinds_of_text(kind: str, made: Delta) -> None:
    assert reading().read(event(kind, 5, output_index=0, delta="x"))[1] == made


def test_parts_of_a_summary_are_paragraphs() -> None:
    first, second = (event("response.reasoning_summary_part.added", 5 + i, output_index=0, summary_index=i) for i in (0, 1))
    assert read(reading(), first, second) == [Upstream("resp_1", 6), Reasoning("\n\n")]


def test_a_tool_call_goes_by_its_place_in_the_output() -> None:
    """So that one who reads on from the middle numbers it alike."""
    item = {"type": "function_call", "call_id": "call_1", "name": "weather"}
    added = event("response.output_item.added", 5, output_index=2, item=item)
    piece = event("response.function_call_arguments.delta", 6, output_index=2, delta='{"a":1}')
    assert read(reading(), added, piece) == [
        Upstream("resp_1", 5), ToolCall(2, "call_1", "weather"), Upstream("resp_1", 6), ToolCall(2, arguments='{"a":1}')
    ]  # fmt: skip


def test_other_items_are_no_content() -> None:
    for item in ({"type": "reasoning"}, {"type": "message"}, None):
        assert reading().read(event("response.output_item.added", 5, output_index=0, item=item)) == []


# --- ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "told", "finish"),
    [
        ("response.completed", {}, "stop"),
        ("response.completed", {"output": None}, "stop"),
        ("response.completed", {"output": [{"type": "message"}]}, "stop"),
        (
            "response.completed",
            {"output": [{"type": "reasoning"}, {"type": "function_call"}]},
            "tool_calls",
        ),
        ("response.incomplete", {"incomplete_details": Json(reason="max_output_tokens")}, "length"),
        ("response.incomplete", {"incomplete_details": Json(reason="content_filter")}, "content_filter"),
    ],
)
def test_finish_reasons(kind: str, told: dict[str, Any], finish: str) -> None:
    reader = reading()
    usage = {"input_tokens": 9, "output_tokens": 3}
    assert reader.read(event(kind, 5, response=response(**told, usage=usage))) == []
    assert (reader.ended, reader.finish, reader.usage) == (True, finish, Usage(9, 3))


@pytest.mark.parametrize(
    "over",
    [
        event("response.incomplete", 5, response=response(incomplete_details={"reason": "steered"})),
        event("response.incomplete", 5, response=response()),
        event("response.cancelled", 5, response={"id": "resp_1", "status": "cancelled"}),
    ],
)
def test_ends_that_are_none_of_ours(over: Json) -> None:
    with pytest.raises(UpstreamOver) as caught:
        reading().read(over)
    assert (caught.value.code, caught.value.retryable) == ("incomplete", True)


@pytest.mark.parametrize(
    "over",
    [
        event("response.failed", 5, response=response(error={"code": "server_error", "message": "Sorry."})),
        event("error", 5, code="server_error", message="Sorry."),
    ],
)
def test_the_servers_own_words_on_a_failure(over: Json) -> None:
    reader = reading()
    assert reader.read(over) == []
    assert (reader.ended, reader.finish, reader.error) == (True, None, {"code": "server_error", "message": "Sorry."})


def test_a_response_that_fails_with_its_first_event_is_known_all_the_same() -> None:
    reader = ResponseReader("openai/m")
    assert reader.read(event("response.failed", 0, response=response())) == [Upstream("resp_1", 0)]
    assert reader.error == {"code": None, "message": None}


@pytest.mark.parametrize(
    ("reader", "odd"),
    [
        (ResponseReader("openai/m"), text("x")),
        (ResponseReader("openai/m"), event("response.created", 0, response={})),
        (ResponseReader("openai/m"), event("response.created", None, response=response())),
        (reading(), text("x", None)),  # type: ignore[arg-type]  # the point
        (reading(), text(None)),
        (reading(), text("x", item=None)),  # type: ignore[arg-type]
    ],
)
def test_servers_without_ids_or_numbers_have_no_background_mode(reader: ResponseReader, odd: Json) -> None:
    with pytest.raises(GenerationFailed) as caught:
        reader.read(odd)
    assert (caught.value.code, caught.value.retryable) == ("unsupported", False)
