"""worker/providers/openai_errors.py: every shape of failure, its code, and what it says."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import openai
import pytest

from shared.errors import ErrorCode, GenerationFailed
from tests.support.provider_calls import config_of
from worker.providers.failure_text import scrub
from worker.providers.openai_errors import failure_of

REQUEST = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")
MODEL = "openai/m"
CONFIG = config_of("openai")


def answered(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> openai.APIStatusError:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return openai.APIStatusError(f"Error code: {status}", response=response, body=body)


def streamed(**body: object) -> openai.APIError:
    return openai.APIError("An error occurred during streaming", REQUEST, body=body)


def caused(error: openai.APIConnectionError, cause: Exception) -> openai.APIConnectionError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "bad_request", False),
        (401, "auth", False),
        (402, "rate_limit", False),
        (403, "auth", False),
        (404, "bad_request", False),
        (408, "timeout", True),
        (409, "overloaded", True),
        (413, "bad_request", False),
        (422, "bad_request", False),
        (425, "overloaded", True),
        (429, "rate_limit", True),
        (500, "overloaded", True),
        (501, "unsupported", False),
        (502, "overloaded", True),
        (503, "overloaded", True),
        (504, "overloaded", True),
        (529, "overloaded", True),
    ],
)
def test_by_status(status: int, code: ErrorCode, retryable: bool) -> None:
    failure = failure_of(answered(status), MODEL, CONFIG)
    assert (failure.code, failure.retryable) == (code, retryable)
    assert str(status) in str(failure)
    assert MODEL in str(failure)


@pytest.mark.parametrize(
    ("slug", "code", "retryable"),
    [
        ("insufficient_quota", "rate_limit", False),
        ("billing_hard_limit_reached", "rate_limit", False),
        ("rate_limit_exceeded", "rate_limit", True),
        ("content_filter", "content_filter", False),
        ("context_length_exceeded", "bad_request", False),
        ("BadRequestError", "bad_request", False),
        ("invalid_api_key", "auth", False),
        ("server_error", "overloaded", True),
        ("invalid_image_url", "bad_request", False),
        ("bio_policy", "content_filter", False),
        ("never heard of it", "overloaded", True),
        ("503", "overloaded", True),
        ("401", "auth", False),
    ],
)
def test_in_mid_stream_by_code_then_type(slug: str, code: ErrorCode, retryable: bool) -> None:
    for body in ({"code": slug, "type": "server_error"}, {"code": None, "type": slug}):
        failure = failure_of(streamed(message="…", **body), MODEL, CONFIG)
        assert (failure.code, failure.retryable) == (code, retryable)


def test_a_slug_that_says_more_than_the_status() -> None:
    assert failure_of(answered(400, {"code": "content_filter"}), MODEL, CONFIG).code == "content_filter"
    assert failure_of(answered(403, {"code": "insufficient_quota"}), MODEL, CONFIG).code == "rate_limit"
    assert failure_of(answered(401, {"code": "invalid_api_key", "type": "invalid_request_error"}), MODEL, CONFIG).code == "auth"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (openai.APITimeoutError(REQUEST), "timeout", "openai/m sent nothing for too long"),
        (httpx2.ReadTimeout("", request=REQUEST), "timeout", "openai/m sent nothing for too long"),
        (TimeoutError(), "timeout", "openai/m sent nothing for too long"),
        (openai.APIConnectionError(request=REQUEST), "connection", "The connection to openai/m broke"),
        (httpx2.RemoteProtocolError("peer left"), "connection", "The connection to openai/m broke (peer left)"),
        (httpx2.StreamClosed(), "connection", "The connection to openai/m broke"),
        (ConnectionResetError("reset"), "connection", "The connection to openai/m broke (reset)"),
        (json.JSONDecodeError("bad", "{", 0), "connection", "openai/m sent what is not an event stream"),
        (
            caused(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("refused")),
            "connection",
            "openai/m could not be reached at llm.example (refused)",
        ),
        (
            caused(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("")),
            "timeout",
            "openai/m could not be reached at llm.example (ConnectTimeout)",
        ),
    ],
)
def test_what_no_server_answered(error: Exception, code: ErrorCode, words: str) -> None:
    failure = failure_of(error, MODEL, CONFIG, host="llm.example")
    assert failure.code == code
    assert failure.retryable
    assert str(failure).startswith(words)


def test_what_to_do_is_said() -> None:
    assert "check OPENAI_API_KEY where the workers run" in str(failure_of(answered(401), MODEL, CONFIG))
    assert "check plan and billing" in str(failure_of(answered(429, {"code": "insufficient_quota"}), MODEL, CONFIG))
    assert "check the model's name and OPENAI_BASE_URL" in str(failure_of(answered(404), MODEL, CONFIG))
    assert "no model m" in str(failure_of(answered(404, {"message": "There is no model m."}), MODEL, CONFIG))
    body = {"message": "max_tokens is too large: 9.", "code": "invalid_value"}
    assert str(failure_of(answered(400, body), MODEL, CONFIG)) == (
        "openai/m refused the request (400 invalid_value): max_tokens is too large: 9."
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "two\n  lines."}, ": two lines."),
        ({"detail": "as FastAPI says it"}, ": as FastAPI says it."),
        ({"message": None}, "(500)."),
        ({"message": ["a", "list"]}, "(500)."),
        ("plain words", ": plain words."),
        ("<html><body>Bad Gateway</body></html>", "(500)."),
        (["odd"], "(500)."),
        (None, "(500)."),
    ],
)
def test_the_servers_own_words_on_one_line(body: object, words: str) -> None:
    assert str(failure_of(answered(500, body), MODEL, CONFIG)).endswith(words)


def test_long_words_are_cut() -> None:
    assert len(str(failure_of(answered(500, {"message": "x" * 10_000}), MODEL, CONFIG))) < 420


@pytest.mark.parametrize("at", [0, 340, 370, 390, 397])
def test_a_key_is_scrubbed_before_the_cut(at: int) -> None:
    key = "tenant-7-very-secret-token"
    failure = failure_of(answered(500, {"message": "x" * at + key}), MODEL, config_of("openai", openai_api_key=key))
    assert "tenant" not in str(failure)


@pytest.mark.parametrize("text", ["sk-proj-abcdEFGH1234", "sk-abc***********wxyz", "Authorization: Bearer abc.def.ghi"])
def test_what_looks_like_a_key_is_scrubbed(text: str) -> None:
    assert scrub(f"no {text} here").endswith("[key] here")


def test_a_placeholder_key_does_not_eat_the_words() -> None:
    assert scrub("exact", "x") == "exact"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "1250"}, 1.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: Mapping[str, str], seconds: float | None) -> None:
    assert failure_of(answered(429, headers=headers), MODEL, CONFIG).retry_after_s == seconds


def test_retry_after_as_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert failure_of(answered(503, headers={"retry-after": later}), MODEL, CONFIG).retry_after_s == pytest.approx(90, abs=5)


def test_only_answers_carry_retry_after() -> None:
    assert isinstance(failure_of(streamed(message="x"), MODEL, CONFIG), GenerationFailed)
    assert failure_of(streamed(message="x"), MODEL, CONFIG).retry_after_s is None
