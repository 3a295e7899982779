"""worker/metrics.py: jobs and calls by model, with labels that nobody outside can multiply."""

from prometheus_client import generate_latest

from shared.events import Cancelled, Done, Error, Timing, Usage
from shared.loop_lag import LoopLag
from shared.models import resolve
from shared.settings import Settings
from worker.metrics import WorkerMetrics

SETTINGS = Settings(openai_models=("listed",), lanes=("api",))
LISTED, STRANGE = (resolve(f"openai/{name}", SETTINGS) for name in ("listed", "x" * 200))
TIMING = Timing(queue_s=0.1, ttft_s=0.3, total_s=2.0, tokens_per_s=20.0)
OF_LISTED = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="listed"'


def metrics() -> WorkerMetrics:
    return WorkerMetrics(SETTINGS, "api", LoopLag())


def text_of(metrics: WorkerMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_a_finished_job_is_one_request_with_its_first_token_and_its_pace() -> None:
    seen = metrics()
    seen.ended_job(LISTED, Done("stop", Usage(7, 40), TIMING))
    text = text_of(seen)
    assert f'gen_ai_server_request_duration_seconds_sum{{error_type="",{OF_LISTED}}} 2.0' in text
    assert f"gen_ai_server_time_to_first_token_seconds_sum{{{OF_LISTED}}} 0.3" in text
    assert f"gen_ai_server_time_per_output_token_seconds_sum{{{OF_LISTED}}} 0.05" in text
    assert 'lastevent_jobs_ended_total{code="",status="done"} 1.0' in text


def test_a_failed_one_has_its_code_and_no_pace() -> None:
    """The conventions count first tokens of successful responses alone."""
    seen = metrics()
    usage = Usage(7, 40)
    seen.ended_job(LISTED, Error("timeout", "Late.", True, True, usage, TIMING))
    seen.ended_job(LISTED, Cancelled("user", True, usage, TIMING))
    text = text_of(seen)
    assert f'gen_ai_server_request_duration_seconds_count{{error_type="timeout",{OF_LISTED}}} 1.0' in text
    assert f'gen_ai_server_request_duration_seconds_count{{error_type="cancelled",{OF_LISTED}}} 1.0' in text
    assert "gen_ai_server_time_to_first_token_seconds_count{" not in text
    assert 'lastevent_jobs_ended_total{code="timeout",status="failed"} 1.0' in text
    assert 'lastevent_jobs_ended_total{code="",status="cancelled"} 1.0' in text


def test_a_call_tells_its_length_its_first_chunk_and_its_tokens() -> None:
    seen = metrics()
    seen.called(LISTED, 1.5, 0.25, Usage(7, 40), "")
    seen.called(LISTED, 0.5, None, Usage(), "rate_limit")
    text = text_of(seen)
    assert f'gen_ai_client_operation_duration_seconds_sum{{error_type="",{OF_LISTED}}} 1.5' in text
    assert f'gen_ai_client_operation_duration_seconds_sum{{error_type="rate_limit",{OF_LISTED}}} 0.5' in text
    assert f"gen_ai_client_operation_time_to_first_chunk_seconds_count{{{OF_LISTED}}} 1.0" in text
    assert f'gen_ai_client_token_usage_sum{{{OF_LISTED},gen_ai_token_type="output"}} 40.0' in text


def test_a_model_that_no_setting_names_is_another() -> None:
    seen = metrics()
    seen.called(STRANGE, 1.0, None, Usage(), "")
    assert STRANGE.name not in text_of(seen)
    assert 'gen_ai_request_model="other"' in text_of(seen)
