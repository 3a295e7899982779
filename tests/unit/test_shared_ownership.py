"""Who may write to a log, and what that reads upstream, as text."""

from shared.ownership import KeptUpstream
from tests.support.author import ownership


def test_an_owner_is_of_one_job() -> None:
    assert ownership("job_x", 3, "takeover").job_id == "job_x"


def test_a_response_upstream_is_written_as_it_is_read() -> None:
    kept = KeptUpstream("vllm/meta-llama/Llama-3", "resp_1")
    assert (str(kept), kept.provider) == ("vllm/meta-llama/Llama-3 resp_1", "vllm")
    assert KeptUpstream.parse(str(kept).encode()) == kept
