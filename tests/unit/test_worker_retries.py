"""worker/retries.py: what follows a failed call (protocol 2.1 `fallbacks`, architecture 4)."""

import time

import pytest

from shared.errors import DeadlinePassed, ErrorCode, GenerationFailed, UpstreamExpired
from shared.events import Started, StartReason, Token
from shared.fold import Fold
from shared.ids import EventId
from shared.job import JobRequest
from shared.settings import Settings
from tests.support.author import request
from worker.retries import NextCall, current_model, next_call

SETTINGS = Settings(model_tries=3, max_failures=6, retry_base_s=0.5, retry_longest_s=1.0, retry_after_most_s=30)
BUSY = GenerationFailed("overloaded", "Try later.")
REFUSED = GenerationFailed("auth", "Check the key.")


def after(*attempts: tuple[StartReason, str], words: int = 0) -> Fold:
    """A log with these attempts, the last of which said so many words and has failed just now."""
    state = Fold()
    for number, (reason, model) in enumerate(attempts, 1):
        state.add(EventId(number, 0), Started(number, model, "w", reason, False, "0-1"))
    for seq in range(1, words + 1):
        state.add(EventId(len(attempts), seq), Token("word "))
    return state


def follows(failure: GenerationFailed, state: Fold, asked: JobRequest | None = None, **changed: object) -> NextCall | None:
    settings = SETTINGS.model_copy(update=changed)
    return next_call(failure, state, asked or request(), time.time(), settings)


FIRST: tuple[StartReason, str] = ("first", "openai/a")
RETRY: tuple[StartReason, str] = ("retry", "openai/a")


# --- the same model again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["timeout", "connection", "rate_limit", "overloaded", "incomplete"])
def test_what_may_pass_is_tried_again(code: ErrorCode) -> None:
    following = follows(GenerationFailed(code, "…"), after(FIRST))
    assert following is not None
    assert (following.reason, following.model) == ("retry", "openai/a")


def test_a_response_that_has_expired_upstream_is_asked_for_anew_at_once() -> None:
    expired = UpstreamExpired("incomplete", "Not handed out any more.")
    assert follows(expired, after(FIRST, RETRY)) == NextCall("retry", "openai/a", 0.0)
    assert follows(expired, after(FIRST, RETRY, RETRY)) is None, "but not for ever"


@pytest.mark.parametrize("code", ["auth", "bad_request", "content_filter", "unsupported", "internal"])
def test_what_would_fail_again_is_not(code: ErrorCode) -> None:
    assert follows(GenerationFailed(code, "…"), after(FIRST)) is None


def test_so_often_and_no_more() -> None:
    assert follows(BUSY, after(FIRST, RETRY)) is not None
    assert follows(BUSY, after(FIRST, RETRY, RETRY)) is None


@pytest.mark.parametrize("reason", ["takeover", "handover"])
def test_attempts_that_follow_a_worker_are_no_failed_calls(reason: StartReason) -> None:
    moved: tuple[StartReason, str] = (reason, "openai/a")
    assert follows(BUSY, after(FIRST, moved, moved, moved, RETRY)) is not None
    assert follows(BUSY, after(FIRST, RETRY, moved, RETRY)) is None


@pytest.mark.parametrize(("retries", "longest_s"), [(0, 0.5), (1, 1.0), (4, 1.0)])
def test_the_pause_doubles_up_to_its_limit_and_is_drawn_from_the_whole_of_it(retries: int, longest_s: float) -> None:
    """Full jitter: the jobs of a failing provider do not come back together."""
    pauses = []
    for _ in range(200):
        following = follows(BUSY, after(FIRST, *[RETRY] * retries), model_tries=10, max_failures=20)
        assert following is not None
        pauses.append(following.after_s)
    assert 0 <= min(pauses) < 0.2 * longest_s
    assert 0.8 * longest_s < max(pauses) <= longest_s


def test_retry_after_is_waited_for_and_the_jitter_comes_on_top() -> None:
    following = follows(GenerationFailed("rate_limit", "…", retry_after_s=7), after(FIRST))
    assert following is not None
    assert 7 <= following.after_s <= 7.5


def test_a_retry_after_beyond_the_limit_is_no_retry() -> None:
    assert follows(GenerationFailed("rate_limit", "…", retry_after_s=31), after(FIRST)) is None


def test_a_pause_that_the_job_would_not_outlive_is_no_retry() -> None:
    asked = request(timeouts={"total_s": 5})
    assert follows(GenerationFailed("rate_limit", "…", retry_after_s=6), after(FIRST), asked) is None


# --- fallbacks -----------------------------------------------------------------------------------------------------------


def test_a_fallback_comes_once_the_tries_are_used_up() -> None:
    asked = request(fallbacks=["openai/b"])
    following = follows(BUSY, after(FIRST, RETRY, RETRY), asked)
    assert following == NextCall("fallback", "openai/b", 0.0)


def test_a_fallback_comes_at_once_where_a_retry_is_of_no_use() -> None:
    asked = request(fallbacks=["openai/b"])
    assert follows(REFUSED, after(FIRST), asked) == NextCall("fallback", "openai/b", 0.0)
    assert follows(GenerationFailed("rate_limit", "…", retry_after_s=99), after(FIRST), asked) == NextCall(
        "fallback", "openai/b", 0.0
    )


def test_fallbacks_are_tried_in_order_each_as_often_as_the_first() -> None:
    asked = request(fallbacks=["openai/b", "openai/c"])
    b: tuple[StartReason, str] = ("fallback", "openai/b")
    assert follows(REFUSED, after(FIRST, b), asked) == NextCall("fallback", "openai/c", 0.0)
    again = follows(BUSY, after(FIRST, RETRY, b, ("retry", "openai/b")), asked)
    assert again is not None
    assert (again.reason, again.model) == ("retry", "openai/b")


def test_after_the_last_fallback_the_job_ends() -> None:
    asked = request(fallbacks=["openai/b"])
    assert follows(REFUSED, after(FIRST, ("fallback", "openai/b")), asked) is None


# --- the end -------------------------------------------------------------------------------------------------------------


def test_a_deadline_of_the_jobs_own_ends_it() -> None:
    """Protocol 2.1: the `timeouts` end the job, fallbacks or not."""
    assert follows(DeadlinePassed("Too late."), after(FIRST), request(fallbacks=["openai/b"])) is None


def test_a_jobs_failed_calls_are_bounded_over_all_its_models() -> None:
    asked = request(fallbacks=["openai/b"])
    assert follows(BUSY, after(FIRST), asked, max_failures=2) is not None
    assert follows(BUSY, after(FIRST, RETRY), asked, max_failures=2) is None


def test_on_interrupt_fail_keeps_text_that_was_streamed() -> None:
    """Whoever asked for no second text gets none; before the first piece nothing would be replaced."""
    asked = request(on_interrupt="fail", fallbacks=["openai/b"])
    assert follows(BUSY, after(FIRST, words=1), asked) is None
    assert follows(BUSY, after(FIRST), asked) is not None


def test_a_job_is_at_the_model_of_its_newest_attempt() -> None:
    assert current_model(Fold(), "openai/a") == "openai/a"
    assert current_model(after(FIRST, ("fallback", "openai/b"), ("takeover", "openai/b")), "openai/a") == "openai/b"
