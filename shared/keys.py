"""Every Redis key: type, who writes it, when it goes. docs/REDIS.md shows them with an example.

key                          type     written by                    goes
lastevent:job:{id}           hash     submit, claim, end            open: 7 d, then the retention
lastevent:log:{id}           stream   submit, claim, append, end    with its record, in the same scripts
lastevent:log:{id}           channel  every log script              (pub/sub: nothing is kept)
lastevent:idem:{hash}        string   submit                        24 h (setting)
lastevent:wake:{lane}        list     submit, hand-over             60 s; popped by an idle worker
lastevent:signal:{worker}    list     cancel, delete, the worker    60 s; popped by that worker
lastevent:worker:{worker}    string   the worker                    its lease, renewed
lastevent:reaper:{lane}      string   the reaper on duty            its round
lastevent:abandoned:{lane}   list     claim, again, move, endings   1 h; popped by a worker of the lane
lastevent:jobs:{tenant}      zset     submit, delete                open TTL + retention after the last submit; as jobs, below
lastevent:active:{tenant}    zset     submit, end                   the same; a member an open job; score: created, Unix ms
lastevent:rate:{tenant}      string   submit                        once the tenant may submit as much at once as ever
lastevent:operations:{step}  hash     the workers, endings          20 min
arq:job:{id}                 string   submit                        with the record; deleted at the end
arq:in-progress:{id}         string   take, renew                   the lease; value: the lease's token
permanent, and bounded:
lastevent:queue:{lane}       zset     submit, take, renew, finish   a member an open job; score: when to look at it, Unix ms
lastevent:leased:{lane}      zset     take, renew, finish           a member a leased job; score: the lease's end, Unix ms
lastevent:open:{lane}        zset     submit, end                   a member an open job; score: created, Unix ms
lastevent:jobs               zset     submit, delete                a member a tenantless job; score: created, Unix ms; trimmed
lastevent:workers            zset     the workers                   a member a worker; score: alive until, Unix ms; dead trimmed
lastevent:primary            hash     claim, renew                  `replid` of the primary, `since` when it is known, Unix ms
lastevent:token_secret       string   the web processes             what signs stream tokens, where no setting does
"""

import re
from typing import Final

PREFIX: Final = "lastevent:"

JOBS: Final = PREFIX + "jobs"
WORKERS: Final = PREFIX + "workers"
PRIMARY: Final = PREFIX + "primary"
TOKEN_SECRET: Final = PREFIX + "token_secret"

LIST_TTL_MS: Final = 60_000
"""A wake-up or signal nobody popped in a minute has lost its use: the poll and the renewal found the same meanwhile."""


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def log(job_id: str) -> str:
    """The stream's key, and the name of the channel on which what it took is pushed."""
    return f"{PREFIX}log:{job_id}"


LOG_PREFIX: Final = log("").encode()


def idempotency(digest: str) -> str:
    return f"{PREFIX}idem:{digest}"


def queue(lane: str) -> str:
    return f"{PREFIX}queue:{lane}"


def leased(lane: str) -> str:
    return f"{PREFIX}leased:{lane}"


def open_jobs(lane: str) -> str:
    return f"{PREFIX}open:{lane}"


def jobs_of(tenant: str) -> str:
    """The listing. Without keys there is one tenant, which has no name."""
    return f"{JOBS}:{tenant}" if tenant else JOBS


def active(tenant: str) -> str:
    """A tenant's open jobs: those that its limit counts."""
    return f"{PREFIX}active:{tenant}"


def rate(tenant: str) -> str:
    return f"{PREFIX}rate:{tenant}"


def wake(lane: str) -> str:
    return f"{PREFIX}wake:{lane}"


def signal(worker_id: str) -> str:
    return f"{PREFIX}signal:{worker_id}"


SIGNAL_PREFIX: Final = signal("")


def reaper(lane: str) -> str:
    return f"{PREFIX}reaper:{lane}"


def abandoned(lane: str) -> str:
    """Responses that go on at a provider's and that nobody reads any more."""
    return f"{PREFIX}abandoned:{lane}"


def operations(step: int | str) -> str:
    """What was counted in 15 s; `step` is their beginning, Unix seconds."""
    return f"{PREFIX}operations:{step}"


def worker(worker_id: str) -> str:
    return f"{PREFIX}worker:{worker_id}"


# arq's own names; it has no way to change them.


def arq_job(job_id: str) -> str:
    return f"arq:job:{job_id}"


def arq_in_progress(job_id: str) -> str:
    return f"arq:in-progress:{job_id}"


_PERMANENT = re.compile(r"lastevent:(queue:.+|leased:.+|open:.+|jobs|workers|primary|token_secret)")


def is_permanent(key: str) -> bool:
    """Whether a key may live without a TTL; every other one without is a leak."""
    return _PERMANENT.fullmatch(key) is not None
