"""worker/recovery.py: what a claim does with a job as it is found (protocol P4, 2.1 `timeouts` and `on_interrupt`)."""

import time

import pytest

from shared.events import Cancelled, Done, Error, Reasoning, Started, Timing, Token, Usage
from shared.fold import Fold, Pace
from shared.ids import EventId
from shared.job import JobRequest
from shared.job_store import Record
from shared.ownership import KeptUpstream
from shared.settings import Settings
from tests.support.author import MODEL, request
from tests.support.provider_calls import config_of
from tests.support.scripted_provider import ScriptedProvider
from worker.providers.base import Prefix, Upstream
from worker.providers.openai_background import OpenAIBackgroundProvider
from worker.recovery import EndNow, GoOn, Limits, decide, final_timing, go_on, must_run_alone, paid, prefix_of, read_on

SETTINGS = Settings(max_losses=3)


def record(**changed: object) -> Record:
    usual: dict[str, object] = {
        "id": "job_x", "status": "running", "model": "openai/any", "lane": "api", "created_at": time.time(),
        "request_json": b"{}",
    }  # fmt: skip
    return Record(**{**usual, **changed})  # type: ignore[arg-type]


def state(*words: str, ids: tuple[int, ...] = ()) -> Fold:
    fold = Fold()
    fold.add(EventId(1, 0), Started(1, "openai/any", "w", "first", False, "0-1"))
    for n, word in enumerate(words, 1):
        fold.add(EventId(1, n), Token(word, ids), {"at": time.time()} if n == 1 else None)
    return fold


def what(found: Record, fold: Fold, asked: JobRequest | None = None, *, continues: bool = False) -> GoOn | EndNow:
    return decide(found, fold, asked or request(), SETTINGS, continues=continues)


def ended_with(decision: GoOn | EndNow) -> Done | Error | Cancelled:
    assert isinstance(decision, EndNow)
    return decision.event


def test_a_queued_job_starts() -> None:
    assert what(record(status="queued"), Fold()) == GoOn(reset=False, prefix=None)


def test_continue_takes_the_text_along_where_the_model_can_go_on() -> None:
    assert what(record(), state("a", "b"), continues=True) == GoOn(reset=False, prefix=Prefix("ab"))


def test_else_it_starts_over() -> None:
    assert what(record(), state("a"), continues=False) == GoOn(reset=True, prefix=None)
    assert what(record(), state("a"), request(on_interrupt="restart"), continues=True) == GoOn(reset=True, prefix=None)


def test_a_response_that_goes_on_upstream_is_read_on_unless_it_is_to_start_over() -> None:
    upstream, restart = Upstream("r", 3), request(on_interrupt="restart")
    assert go_on(state("a"), request(), continues=False, upstream=upstream) == GoOn(False, None, upstream)
    assert go_on(state("a"), request(), continues=True, upstream=upstream) == GoOn(False, None, upstream)
    assert go_on(state("a"), restart, continues=True, upstream=upstream) == GoOn(True, None)
    assert go_on(state(), restart, continues=False, upstream=upstream) == GoOn(False, None, upstream), "nothing to discard"


def test_what_can_be_read_on_from_where() -> None:
    kept, background = KeptUpstream("openai/any", "r"), background_provider()
    read = state("a")
    assert read_on(kept, background, MODEL, request(), read) == Upstream("r", 0)
    read.upstream_position = 7
    assert read_on(kept, background, MODEL, request(), read) == Upstream("r", 7)
    assert read_on(None, background, MODEL, request(), read) is None
    assert read_on(KeptUpstream("openai/other", "r"), background, MODEL, request(), read) is None, "another model's"
    assert read_on(kept, ScriptedProvider(), MODEL, request(), read) is None, "background mode was turned off"


def background_provider() -> OpenAIBackgroundProvider:
    return OpenAIBackgroundProvider(config_of("openai", openai_background=True))


@pytest.mark.parametrize("on_interrupt", ["continue", "restart"])
def test_without_text_there_is_nothing_to_reset(on_interrupt: str) -> None:
    assert what(record(), state(), request(on_interrupt=on_interrupt)) == GoOn(reset=False, prefix=None)


def test_fail_ends_a_lost_job_but_not_one_handed_over() -> None:
    asked = request(on_interrupt="fail")
    event = ended_with(what(record(), state("a"), asked))
    assert isinstance(event, Error)
    assert (event.code, event.retryable, event.partial) == ("interrupted", False, True)
    assert isinstance(what(record(handover=True), state("a"), asked), GoOn)


@pytest.mark.parametrize(
    ("losses", "lost_alone", "solitude", "goes_on"),
    [
        (0, 0, "alone", True),
        (2, 2, "alone", True),
        (3, 0, "alone", False),  # this death is the first that it died alone
        (3, 1, None, False),
        (3, 0, None, True),  # never alone: the killer may be another
        (8, 0, None, True),
        (9, 0, None, False),  # but nothing goes round for ever
        (9, 0, "waits", True),  # this death is none of its
    ],
)
def test_so_many_workers_may_be_lost(losses: int, lost_alone: int, solitude: str | None, goes_on: bool) -> None:
    decision = what(record(losses=losses, lost_alone=lost_alone, solitude=solitude), state())
    assert isinstance(decision, GoOn) == goes_on
    if not goes_on:
        event = ended_with(decision)
        assert isinstance(event, Error)
        assert event.code == "attempts_exhausted"
    assert isinstance(what(record(losses=losses, handover=True), state()), GoOn)


@pytest.mark.parametrize(
    ("changed", "suspected"),
    [
        ({"losses": 0}, False),  # the first death is mostly an accident
        ({"losses": 1}, True),
        ({"losses": 1, "solitude": "waits"}, False),
        ({"losses": 2, "solitude": "waits"}, True),
        ({"losses": 1, "handover": True}, False),
        ({"losses": 2, "handover": True}, True),
        ({"status": "queued"}, False),
    ],
)
def test_a_job_that_lost_two_workers_must_run_alone(changed: dict[str, object], suspected: bool) -> None:
    assert must_run_alone(record(**changed), SETTINGS) == suspected


def test_a_cancel_comes_before_everything_else() -> None:
    event = ended_with(what(record(cancel_asked=True, losses=99, created_at=0.0), state("a")))
    assert isinstance(event, Cancelled)
    assert event.partial


def test_time_runs_out_while_queued_and_in_all() -> None:
    late = time.time() - 10
    waiting = ended_with(what(record(status="queued", created_at=late), Fold(), request(timeouts={"queue_s": 5})))
    assert isinstance(waiting, Error)
    assert waiting.code == "expired"
    for status in ("queued", "running"):
        event = ended_with(what(record(status=status, created_at=late), Fold(), request(timeouts={"total_s": 5})))
        assert isinstance(event, Error)
        assert event.code == "timeout"
    assert isinstance(what(record(created_at=late), state(), request(timeouts={"queue_s": 5})), GoOn)


def test_limits_are_the_requests_within_the_servers() -> None:
    settings = Settings(queue_timeout_s=100, idle_timeout_s=10)
    limits = Limits.of(request(timeouts={"queue_s": 5, "idle_s": 50}), settings)
    assert (limits.queue_s, limits.idle_s) == (5, 10)
    assert (limits.first_token_s, limits.total_s) == (settings.first_token_timeout_s, settings.total_timeout_s)


def test_token_ids_go_along_only_if_all_are_known() -> None:
    assert prefix_of(state("a", "b", ids=(7,))) == Prefix("ab", (7, 7))
    mixed = state("a", ids=(7,))
    mixed.add(EventId(1, 2), Token("b"))
    assert prefix_of(mixed) == Prefix("ab", ())


def test_what_was_paid_counts_the_dead() -> None:
    """As each told, or was told for (worker/tokens.py); else its output from the log."""
    assert paid([], Usage(5, 6)) == Usage(5, 6)
    assert paid(state("a", "b").attempts, Usage(5, 6)) == Usage(5, 8, estimated=True)
    told = state("a", "b")
    told.attempts[0].own_usage = Usage(3, 4)
    assert paid(told.attempts, Usage(5, 6)) == Usage(8, 10)


def test_timing_is_told_as_far_as_there_is_any() -> None:
    created = time.time() - 2
    assert final_timing(record(created_at=created), Fold()) == Timing(
        total_s=pytest.approx(2, abs=0.5)  # type: ignore[arg-type]
    )
    timing = final_timing(record(created_at=created, started_at=created + 0.5), state("a", "b"))
    assert timing.queue_s == pytest.approx(0.5)
    assert timing.ttft_s == pytest.approx(2, abs=0.5)
    assert (timing.tokens_per_s, timing.inter_token_p50_s) == (None, None), "whoever knew is gone"


def test_the_rate_is_that_of_the_kept_output_from_its_first_piece_to_its_last() -> None:
    """A takeover goes on from what the dead one wrote; a reset begins anew. Silence after the last piece is no part."""
    created = time.time() - 100
    fold = Fold()
    fold.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    fold.add(EventId(1, 1), Token("one"), {"at": created + 10})
    fold.add(EventId(2, 0), Started(2, "m", "w", "takeover", False, "1-1"))
    fold.add(EventId(2, 1), Token(" two"), {"at": created + 30})
    fold.pace = Pace(last_at=created + 50, tokens=80, gap_p50_s=0.5, gap_p99_s=2.0)
    timing = final_timing(record(created_at=created), fold)
    assert timing.ttft_s == pytest.approx(10)
    assert timing.tokens_per_s == pytest.approx(2.0)
    assert (timing.inter_token_p50_s, timing.inter_token_p99_s) == (0.5, 2.0)

    fold.add(EventId(3, 0), Started(3, "m", "w", "retry", True, "2-1"))
    assert final_timing(record(created_at=created), fold).tokens_per_s is None
    fold.add(EventId(3, 1), Token("three"), {"at": created + 60})
    fold.pace = Pace(last_at=created + 70, tokens=80, gap_p50_s=0.5, gap_p99_s=2.0)
    timing = final_timing(record(created_at=created), fold)
    assert timing.ttft_s == pytest.approx(10)
    assert timing.tokens_per_s == pytest.approx(8.0)


def test_one_piece_has_no_rate() -> None:
    now = time.time()
    fold = Fold()
    fold.add(EventId(1, 1), Token("all at once"), {"at": now})
    fold.pace = Pace(last_at=now, tokens=0, gap_p50_s=None, gap_p99_s=None)
    assert final_timing(record(created_at=now - 1), fold).tokens_per_s is None


def test_a_thought_counts_as_partial_output() -> None:
    fold = state()
    fold.add(EventId(1, 1), Reasoning("hm"))
    event = ended_with(what(record(cancel_asked=True), fold))
    assert isinstance(event, Cancelled)
    assert event.partial
