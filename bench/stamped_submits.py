"""Submits jobs to the stamping worker as the web tier does, each when it is told to (`bench.queues.submitter`).

Run as `python -m bench.stamped_submits`; settings come from the environment.
"""

from typing import Final

from bench.queues import submitter
from shared.job import JobRequest
from shared.job_queue import JobQueue
from shared.models import resolve
from shared.redis_client import make_client
from shared.settings import load_settings

MODEL: Final = "openai/instant"


async def main() -> None:
    settings = load_settings()
    queue = JobQueue(make_client(settings), settings)
    request, model = JobRequest(model=MODEL, prompt="Hello"), resolve(MODEL, settings)

    async def enqueue() -> str:
        return (await queue.submit(request, model)).job_id

    await submitter.submit_when_told(enqueue)


if __name__ == "__main__":
    submitter.run(main)
