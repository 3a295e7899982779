"""shared/keys.py: names, and which of them may stay; tests/architecture checks its table."""

import pytest

from shared import keys


def test_a_logs_channel_bears_its_streams_name() -> None:
    assert keys.log("job_x").encode() == keys.LOG_PREFIX + b"job_x"
    assert keys.signal("w1") == keys.SIGNAL_PREFIX + "w1"


def test_without_keys_the_listing_is_the_tenantless_one() -> None:
    assert (keys.jobs_of(""), keys.jobs_of("web")) == (keys.JOBS, f"{keys.JOBS}:web")


@pytest.mark.parametrize("key", [keys.queue("api"), keys.open_jobs("local"), keys.JOBS, keys.WORKERS, keys.PRIMARY,
                                 keys.TOKEN_SECRET])  # fmt: skip
def test_what_is_bounded_may_stay(key: str) -> None:
    assert keys.is_permanent(key)


@pytest.mark.parametrize(
    "key",
    [keys.job("x"), keys.log("x"), keys.idempotency("x"), keys.wake("api"), keys.signal("w"), keys.worker("w"),
     keys.jobs_of("web"), keys.active("web"), keys.rate("web"),
     keys.reaper("api"), keys.arq_job("x"), keys.arq_in_progress("x"), "lastevent:jobs2", "other"],
)  # fmt: skip
def test_all_else_must_go_by_itself(key: str) -> None:
    assert not keys.is_permanent(key)
