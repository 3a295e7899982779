"""What `lastevent doctor` looks at in Redis: where it is, its version, what it keeps, what it drops, and who lives by it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cli.embedded_redis import find_redis_server
from cli.finding import Finding
from shared.errors import ConfigurationError
from shared.event_log import EventLog
from shared.job_store import JobStore, WorkerInfo
from shared.redis_client import check_redis, describe, make_client
from shared.settings import Lane, Settings

TIMEOUT_S: Final = 2.0
"""A Redis that takes longer to say PONG is as good as away."""

NEARLY_FULL: Final = 0.8


async def redis_findings(settings: Settings) -> list[Finding]:
    """The Redis that is configured, else the one that `lastevent up` runs, else whether `up` could run one."""
    given = "redis_url" in settings.model_fields_set
    socket = settings.data_dir.expanduser().absolute() / "redis.sock"
    if not given and socket.is_socket():
        settings = _with_redis(settings, f"unix://{quote(str(socket))}")
    client = make_client(_with_redis(settings, settings.redis_url.get_secret_value(), redis_timeout_s=TIMEOUT_S))
    try:
        await check_redis(client, settings)
        return await _looked_into(client, settings)
    except ConfigurationError as error:
        return [_refused(error) if given else _none_yet(error)]
    finally:
        await client.aclose()


def _with_redis(settings: Settings, url: str, **more: Any) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(url), **more})


def _refused(error: ConfigurationError) -> Finding:
    told, _, advice = str(error).partition(": ")
    return Finding("Redis", "fail", told, advice)


def _none_yet(error: ConfigurationError) -> Finding:
    """No URL was given, so one that does not answer is none: `lastevent up` brings its own."""
    if "does not answer" not in str(error):
        return _refused(error)
    try:
        path, version = find_redis_server()
    except ConfigurationError as missing:
        return _refused(missing)
    return Finding("Redis", "ok", f"not running; `lastevent up` starts {path}, {'.'.join(map(str, version))}")


async def _looked_into(client: Redis, settings: Settings) -> list[Finding]:
    where = describe(settings.redis_url.get_secret_value())
    try:
        info = await client.info()
        syncs = await _config(client, "appendfsync")
        workers = await JobStore(client, EventLog(client, settings)).workers()
    except RedisError as error:
        return [Finding("Redis", "fail", f"{where} answers, and then not: {error}")]
    return [
        Finding("Redis", "ok", f"{info['redis_version']} at {where}"),
        _append_only(info, syncs),
        _eviction(info),
        _memory(info),
        *_workers(settings.lanes, workers),
    ]


async def _config(client: Redis, name: str) -> str | None:
    """None where the server does not tell, as many that are rented do not."""
    try:
        return (await client.config_get(name)).get(name)  # type: ignore[no-any-return]  # redis-py types none of it
    except RedisError:
        return None


def _append_only(info: Mapping[str, Any], syncs: str | None) -> Finding:
    if not info.get("aof_enabled"):
        advice = "CONFIG SET appendonly yes, and the same in redis.conf (docs/OPERATIONS.md)"
        return Finding("append-only", "warn", "off: what a crash of Redis forgets is everything", advice)
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding("append-only", "fail", "Redis cannot write its file", "make room on its disk, then look into its log")
    if syncs == "no":
        advice = "CONFIG SET appendfsync everysec, and the same in redis.conf"
        return Finding("append-only", "warn", "on, synced whenever the system likes, seconds to half a minute", advice)
    return Finding("append-only", "ok", f"on{f', synced {syncs}' if syncs else ''}")


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Finding("eviction", "ok", "noeviction")
    advice = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
    if not info.get("maxmemory"):
        return Finding("eviction", "warn", f"{policy}, without effect so long as maxmemory is 0", advice)
    return Finding("eviction", "fail", f"{policy}: a full Redis would drop logs that are being read", advice)


def _memory(info: Mapping[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        return Finding("memory", "ok", f"{used >> 20:,} MiB used, no limit")
    told = f"{used >> 20:,} of {most >> 20:,} MiB used"
    if used > NEARLY_FULL * most:
        return Finding("memory", "warn", told, "raise maxmemory, or lower LASTEVENT_RETENTION_S: a full Redis takes no submits")
    return Finding("memory", "ok", told)


def _workers(lanes: tuple[Lane, ...], workers: list[WorkerInfo]) -> Iterator[Finding]:
    for lane in lanes:
        live = [worker for worker in workers if worker.lane == lane]
        name = f"lane {lane}"
        if live:
            running, slots = sum(worker.running for worker in live), sum(worker.slots for worker in live)
            yield Finding(name, "ok", f"{len(live)} live, {running} of {slots} slots in use")
        else:
            yield Finding(name, "warn", "no live worker", f"lastevent worker --lane {lane}, or lastevent up")
