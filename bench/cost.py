"""What a process costs, as the kernel counts it: CPU and memory. Linux."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cli.embedded_redis import find_redis_server

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, of all living threads, to the nanosecond, from /proc/PID/task/TID/schedstat. Where the
    kernel keeps no such account: from /proc/PID/stat, in steps of 10 ms, proc(5)."""
    accounts = [*Path(f"/proc/{pid}/task").glob("*/schedstat")]
    if accounts:
        return sum(int(account.read_text().split()[0]) for account in accounts) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before may hold spaces
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def family(pid: int) -> list[int]:
    """A process and its living descendants: a master of workers costs what they cost. From /proc/PID/task/PID/children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def busy_s() -> float:
    """Seconds that all cores together have worked since the machine started, stolen ones among them. From /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory. From /proc/PID/statm, proc(5)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "redis-server": ".".join(map(str, find_redis_server().version)),
        **{name: version(name) for name in ("arq", "redis", "uvicorn", "uvloop", "starlette", "sse-starlette", "openai")},
    }


def load() -> float:
    """How busy the machine is with other things: the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
