"""Other task queues, for scenario C, in a Python environment of their own: two of them want a redis-py that arq refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import installing

REQUIREMENTS: Final = Path(__file__).parent / "queues" / "requirements.txt"


class Peer(NamedTuple):
    """A queue of `bench.queues`: its module there submits, and `python -m` with these arguments works."""

    name: str
    module: str
    worker: tuple[str, ...]


PEERS: Final = (
    Peer("saq", "saq_queue", ("saq", "bench.queues.saq_queue.settings")),
    Peer("streaq", "streaq_queue", ("streaq", "run", "bench.queues.streaq_queue:worker")),
    Peer("taskiq", "taskiq_queue", ("taskiq", "worker", "--workers", "1", "bench.queues.taskiq_queue:broker")),
)


async def installed(say: Callable[[str], None]) -> Path:
    """The Python that has the peers. Raises PeerMissing."""
    return await installing.environment("queue-peers", REQUIREMENTS, say)
