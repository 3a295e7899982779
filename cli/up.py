"""`lastevent up`: the whole stack on one machine, in one terminal."""

from collections.abc import Mapping

from cli.log_lines import LogLines
from cli.signals import on_stop_signals
from cli.stack import Stack, first
from shared.errors import ConfigurationError
from shared.file_limit import raise_file_limit
from shared.settings import API_LANE, LOCAL_LANE, Lane, Settings


def workers_by_lane(settings: Settings, api_workers: int, local_workers: int) -> dict[Lane, int]:
    """How many workers each configured lane gets.

    Raises:
        ConfigurationError: a lane that is wanted would have none.
    """
    wanted = {API_LANE: api_workers, LOCAL_LANE: local_workers}
    for lane in settings.lanes:
        if wanted[lane] < 1:
            raise ConfigurationError(f"the lane {lane} would have no worker: leave it out of --lanes instead")
    return {lane: wanted[lane] for lane in settings.lanes}


async def run_up(settings: Settings, workers: Mapping[Lane, int], *, allow_chaos: bool = False) -> None:
    """Runs the stack until it is told to stop. A later second signal kills what is still stopping.

    Args:
        allow_chaos: the page may kill workers.

    Raises:
        ConfigurationError: one line that says what is wrong; nothing is left running.
    """
    raise_file_limit()  # for Redis and the workers too; web says where it is low
    log = LogLines(Stack.child_names(workers))
    own_redis = "redis_url" not in settings.model_fields_set
    stack = Stack(settings, workers, log, own_redis=own_redis, allow_chaos=allow_chaos)
    stopped = on_stop_signals(stack.supervisor.kill)
    try:
        await first(stack.start(), stopped.wait())
        if not stopped.is_set():
            print(f"ready {stack.base_url}", flush=True)
            await first(stopped.wait(), stack.supervisor.fatal())
        log("up", "stopping")
    finally:
        await stack.stop()
