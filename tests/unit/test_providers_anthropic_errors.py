"""worker/providers/anthropic_errors.py: every shape of failure, its code, and what it says."""

import json
from collections.abc import Mapping

import anthropic
import httpx2
import pytest

from shared.errors import ErrorCode
from tests.support.provider_calls import config_of
from worker.providers.anthropic_errors import failure_of

REQUEST = httpx2.Request("POST", "https://api.anthropic.com/v1/messages")
MODEL = "anthropic/m"
CONFIG = config_of("anthropic")


def answered(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> anthropic.APIStatusError:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return anthropic.APIStatusError(f"Error code: {status}", response=response, body=body)


def error(type: object, message: object = "…") -> dict[str, object]:
    return {"type": "error", "error": {"type": type, "message": message}}


def caused(error: anthropic.APIConnectionError, cause: Exception) -> anthropic.APIConnectionError:
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
        (409, "overloaded", True),
        (413, "bad_request", False),
        (429, "rate_limit", True),
        (500, "overloaded", True),
        (503, "overloaded", True),
        (504, "overloaded", True),
        (529, "overloaded", True),
    ],
)
def test_by_status_where_there_is_no_type(status: int, code: ErrorCode, retryable: bool) -> None:
    for body in (None, "words", error("never heard of it"), error(7), {"error": "words"}):
        failure = failure_of(answered(status, body), MODEL, CONFIG)
        assert (failure.code, failure.retryable) == (code, retryable)
        assert str(status) in str(failure)
        assert MODEL in str(failure)


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("invalid_request_error", "bad_request", False),
        ("request_too_large", "bad_request", False),
        ("not_found_error", "bad_request", False),
        ("authentication_error", "auth", False),
        ("permission_error", "auth", False),
        ("billing_error", "rate_limit", False),
        ("rate_limit_error", "rate_limit", True),
        ("timeout_error", "timeout", True),
        ("api_error", "overloaded", True),
        ("overloaded_error", "overloaded", True),
        ("never heard of it", "overloaded", True),
    ],
)
def test_in_mid_stream_by_type(kind: str, code: ErrorCode, retryable: bool) -> None:
    """The status is that of the stream: 200."""
    failure = failure_of(answered(200, error(kind)), MODEL, CONFIG)
    assert (failure.code, failure.retryable) == (code, retryable)
    assert "200" not in str(failure)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (anthropic.APITimeoutError(REQUEST), "timeout", "anthropic/m sent nothing for too long"),
        (httpx2.ReadTimeout("", request=REQUEST), "timeout", "anthropic/m sent nothing for too long"),
        (TimeoutError(), "timeout", "anthropic/m sent nothing for too long"),
        (anthropic.APIConnectionError(request=REQUEST), "connection", "The connection to anthropic/m broke"),
        (httpx2.RemoteProtocolError("peer left"), "connection", "The connection to anthropic/m broke (peer left)"),
        (httpx2.StreamClosed(), "connection", "The connection to anthropic/m broke"),
        (ConnectionResetError("reset"), "connection", "The connection to anthropic/m broke (reset)"),
        (json.JSONDecodeError("bad", "{", 0), "connection", "anthropic/m sent what is not an event stream"),
        (anthropic.AnthropicError("odd"), "connection", "anthropic/m sent what is not an event stream"),
        (
            caused(anthropic.APIConnectionError(request=REQUEST), httpx2.ConnectError("refused")),
            "connection",
            "anthropic/m could not be reached at llm.example (refused)",
        ),
        (
            caused(anthropic.APITimeoutError(REQUEST), httpx2.ConnectTimeout("")),
            "timeout",
            "anthropic/m could not be reached at llm.example (ConnectTimeout)",
        ),
    ],
)
def test_what_no_server_answered(error: Exception, code: ErrorCode, words: str) -> None:
    failure = failure_of(error, MODEL, CONFIG, host="llm.example")
    assert failure.code == code
    assert failure.retryable
    assert str(failure).startswith(words)


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (answered(401, error("authentication_error", "bad key sk-ant-1234")), "check ANTHROPIC_API_KEY where the workers run"),
        (answered(402, error("billing_error", None)), "check plan and billing"),
        (answered(402, error("billing_error", "Too low.")), "anthropic/m has no credit left (402 billing_error): Too low."),
        (answered(404, error("not_found_error", "model: m")), "check the model's name and ANTHROPIC_BASE_URL (model: m)."),
        (
            answered(400, error("invalid_request_error", "prompt is\n too long.")),
            "anthropic/m refused the request (400 invalid_request_error): prompt is too long.",
        ),
        (answered(200, error("overloaded_error", "Overloaded")), "anthropic/m failed (overloaded_error): Overloaded."),
        (answered(200, "just words"), "anthropic/m failed (in mid-stream): just words."),
        (answered(502, "<html>Bad Gateway</html>"), "anthropic/m failed (502)."),
        (answered(422, {"detail": "as FastAPI says it"}), "anthropic/m refused the request (422): as FastAPI says it."),
    ],
)
def test_what_is_said(failed: anthropic.APIStatusError, words: str) -> None:
    assert words in str(failure_of(failed, MODEL, CONFIG))


def test_a_key_is_scrubbed() -> None:
    key = "tenant-7-very-secret-token"
    failure = failure_of(
        answered(500, error("api_error", f"{'x' * 370} {key} sk-ant-api03-abcd")),
        MODEL,
        config_of("anthropic", anthropic_api_key=key),
    )
    assert "tenant" not in str(failure)
    assert "sk-ant" not in str(failure)


def test_retry_after() -> None:
    assert failure_of(answered(429, headers={"retry-after": "7"}), MODEL, CONFIG).retry_after_s == 7
    assert failure_of(answered(429), MODEL, CONFIG).retry_after_s is None
