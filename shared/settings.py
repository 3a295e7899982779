"""Every knob, with its unit, its bound and why it stands where it stands. Read from the environment, prefix `LASTEVENT_`, and
below it from lastevent.toml (`shared/config_file.py`).

Settings are read once, at a process' start, and passed on; nothing else reads the environment. Durations are seconds, sizes
bytes, unless the name says otherwise. Secrets are `SecretStr`: no repr, log or error shows them.
"""

import json
import math
import os
import re
import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.api_keys import ApiKey, parse_entries
from shared.config_file import REFUSED, ConfigFile, FileRefused
from shared.errors import ConfigurationError
from shared.provider_table import ProviderName, ProviderTable, named_tables
from shared.setting_problems import RELATION, lines_of

Lane = str
API_LANE: Lane = "api"
LOCAL_LANE: Lane = "local"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
"""In lower case, as browsers send it: what differs by a letter would never be matched."""

_JSON_EXAMPLES = {
    "local_models": '{"my-model": "/folder or Hugging Face id"}',
    "providers": '{"vllm": {"kind": "openai", "base_url": "http://host:port/v1"}}',
}


def _default_cache_dir() -> Path:
    return Path.home() / ".cache" / "lastevent"


def _default_data_dir() -> Path:
    """Where the XDG base directory specification wants it."""
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "share") / "lastevent"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LASTEVENT_", frozen=True, extra="ignore", populate_by_name=True)

    # --- Redis -------------------------------------------------------------------------------------------------------
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://`, `unix://`, or `sentinel://host1:26379,host2:26379/name/0`. Secret because it may carry a
    password."""
    redis_timeout_s: float = Field(5.0, gt=0, le=60)
    """A command without an answer for so long is an error; above a slow fsync, below a lease."""
    redis_connections: int = Field(64, ge=4, le=10_000)
    """At most so many connections a process; callers past it wait for one."""
    durable_submit: bool = False
    """A submit is answered only once Redis has it on its disk (protocol P2). Needs Redis 7.2 with an append-only file; what it
    costs stands in docs/OPERATIONS.md."""
    durable_timeout_s: float = Field(3.0, gt=0, le=60, validate_default=True)
    """How long such a submit waits for the disk before it is 503; above `everysec`'s second and a slow fsync's two, below
    `redis_timeout_s`."""

    # --- lanes and slots ---------------------------------------------------------------------------------------------
    lanes: Annotated[tuple[Lane, ...], NoDecode] = (API_LANE, LOCAL_LANE)
    """The lanes this deployment runs; `/readyz` wants a live worker in each."""
    api_slots: int = Field(200, ge=1, le=10_000)
    """Jobs at once of a worker that only waits for other people's servers."""
    local_slots: int = Field(8, ge=1, le=256)
    """Jobs at once of a worker that computes: the engine's batch."""
    queue_limit: int = Field(10_000, ge=1)
    """Jobs a lane may hold, waiting and running; past it submits get 503 `queue_full`."""

    # --- ownership ---------------------------------------------------------------------------------------------------
    lease_s: float = Field(5.0, ge=0.5, le=300)
    """A worker that has not renewed for so long is taken for dead (protocol P4). Renewed every third of it."""
    poll_s: float = Field(0.5, ge=0.05, le=60)
    """The safety net under the wake-up: how often an idle worker looks by itself. It also bounds how late a lapsed lease
    is seen, so P4's "plus 1 s" needs it under 1."""
    drain_s: float = Field(20.0, ge=0, le=3600)
    """What a stopping worker gives its running jobs before it hands them over."""
    max_losses: int = Field(3, ge=1, le=100)
    """Workers a job may lose before it ends as `attempts_exhausted`, one of them while it ran alone: then it is the killer. One
    that never ran alone may be another's victim, and may lose three times as many."""
    alone_after_losses: int = Field(2, ge=1, le=100)
    """A job that lost so many workers runs alone until it is past where it was lost. Not after the first loss: that is mostly
    a deploy or a lost machine, whose jobs, run one after the other, would all wait for a killer that is not there."""
    reap_s: float = Field(5.0, ge=0.1, le=600)
    """How often a worker looks for jobs that nobody writes any more."""

    # --- failed calls ------------------------------------------------------------------------------------------------
    model_tries: int = Field(3, ge=1, le=20)
    """Calls of one model that may fail before the next fallback is tried, or the job ends."""
    max_failures: int = Field(6, ge=1, le=100)
    """Failed calls of a job in all, whichever its models: past it the job ends, with fallbacks left or not."""
    retry_base_s: float = Field(0.5, gt=0, le=60)
    """The pause before a model's second call is drawn from 0 to this, and from 0 to twice as much before each further one
    (full jitter), so that the jobs of a failing provider do not come back to it together."""
    retry_longest_s: float = Field(20.0, gt=0, le=600)
    """What that doubling stops at."""
    retry_after_most_s: float = Field(30.0, ge=0, le=3600)
    """The longest Retry-After that a job waits for; one that asks for more goes on with a fallback, or ends."""

    # --- keeping -----------------------------------------------------------------------------------------------------
    open_ttl_s: int = Field(7 * 86_400, ge=60)
    """Every key of an open job lives so long, refreshed while it runs: an orphan cannot stay for ever."""
    retention_s: int = Field(86_400, ge=1)
    """How long an ended job stays readable (protocol P1)."""
    idempotency_s: int = Field(86_400, ge=1)
    """How long an Idempotency-Key is remembered (protocol 2.1)."""

    # --- limits of a job (protocol 2.1 `timeouts`: default and bound) ------------------------------------------------
    queue_timeout_s: float = Field(3600, gt=0)
    """From the accepted submit to the first claim."""
    first_token_timeout_s: float = Field(120, gt=0)
    """An attempt's silence before its first piece of output."""
    idle_timeout_s: float = Field(60, gt=0)
    """An attempt's silence between two pieces."""
    total_timeout_s: float = Field(3600, gt=0)
    """From the accepted submit to the end, over all attempts."""

    # --- the writer --------------------------------------------------------------------------------------------------
    hold_s: float = Field(3.0, ge=0, le=60)
    """How long a worker holds what Redis has acknowledged, to write it again when a restart or failover forgot it: above
    `everysec`'s second and the two for which a slow fsync holds writes back."""
    writer_buffer_events: int = Field(10_000, ge=16)
    """Events of one job that a worker holds, acknowledged or waiting for Redis; past it the provider is read no further. With
    `hold_s` it bounds a job to some 3,000 events a second, far above any model."""
    writer_buffer_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """The same for their text, one byte a character."""
    writer_patience_s: float = Field(30.0, gt=0, le=3600)
    """How long a provider is read no further before its attempt ends as `internal`; what was generated until then stands."""

    # --- what watches ------------------------------------------------------------------------------------------------
    worker_metrics_port: int | None = Field(None, ge=0, le=65_535)
    """Where each worker serves `/metrics`; 0 picks a free port, and the worker's log says which; none: nowhere. `lastevent up`
    gives its workers this port and the next ones, else free ones. A web process serves its own on the port that it has."""
    worker_metrics_host: str = "127.0.0.1"
    """The address for it. There is no key: in a container, whose port is published to nobody, 0.0.0.0."""

    # --- the web tier ------------------------------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """Loopback, unless there are `api_keys`: anyone who reaches the port could spend money."""
    allow_remote: bool = False
    """Serve without keys on a host that other machines reach, all the same: in a container whose port is published to loopback
    only, or behind a proxy that checks who comes."""
    port: int = Field(8000, ge=0, le=65_535)
    """0 picks a free one."""
    body_limit: int = Field(8 * 1024 * 1024, ge=1024)
    """Protocol 2.1."""
    frame_limit: int = Field(64 * 1024, ge=1024)
    """Bytes of one merged frame (protocol 4.5)."""
    heartbeat_s: float = Field(15.0, gt=0, le=300)
    """Silence after which a comment is sent (protocol 4.6); below the 30 to 60 s at which balancers give up."""
    max_connection_s: float = Field(3600, gt=0)
    """Age at which a stream ends with `reconnect`: dead peers and old balancer routes are found at last."""
    stalled_reader_s: float = Field(30.0, gt=0)
    """A reader whose socket took nothing for so long is aborted (protocol 4.7)."""
    retry_min_ms: int = Field(1000, ge=0)
    retry_max_ms: int = Field(3000, ge=0, validate_default=True)
    """The random `retry:` of protocol 4.4, so that a herd does not come back as one."""
    tail_bytes: int = Field(256 * 1024, ge=4096)
    """How much of a followed job's newest frames is kept in memory for readers that lag; older ones read the log."""
    replay_cache_bytes: int = Field(16 * 1024 * 1024, ge=0)
    """How much of the replays of ended jobs is kept in memory, half a minute each, for the readers that come next; 0: none."""
    log_check_s: float = Field(5.0, gt=0)
    """How often the hub compares its tails with the logs, so that a lost last push hangs nobody."""
    lame_duck_s: float = Field(0.0, ge=0, le=600)
    """How long a stopping web process first serves on while `/healthz` says 503: above what balancers take to notice, so that
    they send it nothing any more by the time its socket closes. 0 where nobody asks; docker-compose.yml has 3."""
    web_drain_s: float = Field(5.0, ge=0, le=600)
    """What a stopping web process gives its readers after it sent them `reconnect`."""

    # --- keys and tenants (docs/SECURITY.md) -------------------------------------------------------------------------
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    """Who may call: a `name:sha256` for each key, comma-separated, as `lastevent keys new NAME` prints it. The name is the
    tenant, to which alone its jobs are visible; a tenant may have several keys. None: whoever reaches the port may call."""
    tenant_submits_per_minute: int = Field(0, ge=0, le=1_000_000)
    """Submits of each tenant: so many at once, and as many more a minute; past it 429 `rate_limited`. 0 is no limit. It takes
    `api_keys`: without them there are no tenants."""
    tenant_jobs_at_once: int = Field(0, ge=0, le=1_000_000)
    """Jobs that a tenant may have waiting and running; past it 429 `too_many_jobs`. 0 is no limit."""
    token_secret: SecretStr | None = None
    """What signs stream tokens, 32 characters or more; the same in each web process. Several, comma-separated: the last one
    signs and all are taken, so that it can be replaced without a gap. Without it a random one is kept in Redis."""
    token_ttl_s: int = Field(172_800, ge=1, le=31_536_000)
    """How long a stream token opens its stream; one that is asked for may be shorter-lived. Readers come back with the one they
    have: so longer than `queue_timeout_s`, `total_timeout_s` and `retention_s` together."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Pages that may call from a browser though they come from elsewhere: `https://app.example.com`, comma-separated."""

    # --- models ------------------------------------------------------------------------------------------------------
    default_model: str = "local/smollm2-135m-instruct"
    """What `/v1/models` lists first, and the page and `lastevent ask` take."""
    local_models: Annotated[dict[str, str], NoDecode] = {}
    """More local models: name → Hugging Face id or folder. Only what is named here is ever downloaded."""
    local_device: str = "auto"
    """`auto` takes CUDA when there is one; else `cpu`, `cuda`, `cuda:1` …"""
    local_engine: str = Field("auto", pattern="^(auto|batching|streamer)$")
    """`auto` batches what batching can serve and streams the rest; the others are for measuring."""
    local_share_prompts: bool = True
    """What one tenant's prompts of a local model begin with in common is read once, and kept while there is room. Off: every
    prompt is read whole, and not even a tenant's own users can tell by how soon an answer begins what another of them asked
    (docs/SECURITY.md)."""
    cache_dir: Path = Field(default_factory=_default_cache_dir)
    """Where the bundled model is kept once converted (about 540 MB)."""
    openai_models: Annotated[tuple[str, ...], NoDecode] = ("gpt-4o-mini",)
    """What `/v1/models` lists for `openai/`; any other name is passed on all the same."""
    openai_background: bool = False
    """Call `openai/` models in background mode: a response goes on at OpenAI's when its worker dies, and is read on where it
    was left, paid for once. Wants the Responses API; takes no `stop` and no `seed` (docs/decisions/0022)."""
    anthropic_models: Annotated[tuple[str, ...], NoDecode] = ("claude-sonnet-5-5", "claude-haiku-5-5")
    """What `/v1/models` lists for `anthropic/`; any other name is passed on all the same."""
    anthropic_max_tokens: int = Field(32_000, ge=1, le=1_000_000)
    """Output tokens of a request that sets no `max_tokens`: this API wants a number. The least of what the models of 2025
    and later may put out (Claude Opus 4.1), so that none refuses it and few answers are cut short by it."""
    anthropic_prefill_models: Annotated[tuple[str, ...], NoDecode] = (
        "claude-haiku-4-5*",
        "claude-opus-4-5*",
        "claude-sonnet-4-5*",
    )
    """Models, as shell patterns, that go on from the start of an answer. From Claude 4.6 on they refuse it, which would end
    a job that a fresh start can still save: so only those known to take it (docs/decisions/0021)."""
    ollama_models: Annotated[tuple[str, ...], NoDecode] = ("llama3.2",)
    """What `/v1/models` lists for `ollama/`; any other name is passed on all the same, and served if it was pulled."""
    providers: Annotated[dict[ProviderName, ProviderTable], NoDecode] = {}
    """More servers, each under a name of its own: name → table, as described below. In the environment it is JSON."""

    # --- the providers' own names ------------------------------------------------------------------------------------
    openai_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("openai_api_key", "OPENAI_API_KEY", "LASTEVENT_OPENAI_API_KEY")
    )
    """Wanted by OpenAI itself; servers of one's own mostly need none. Also read with the prefix."""
    openai_base_url: str | None = Field(
        None, validation_alias=AliasChoices("openai_base_url", "OPENAI_BASE_URL", "LASTEVENT_OPENAI_BASE_URL")
    )
    """Where `openai/` models are called: any server that speaks Chat Completions. Also read with the prefix."""

    anthropic_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("anthropic_api_key", "ANTHROPIC_API_KEY", "LASTEVENT_ANTHROPIC_API_KEY")
    )
    """Wanted by Anthropic itself. Also read with the prefix."""
    anthropic_base_url: str | None = Field(
        None, validation_alias=AliasChoices("anthropic_base_url", "ANTHROPIC_BASE_URL", "LASTEVENT_ANTHROPIC_BASE_URL")
    )
    """Where `anthropic/` models are called: any server that speaks its Messages API. Also read with the prefix."""
    ollama_host: str | None = Field(None, validation_alias=AliasChoices("ollama_host", "OLLAMA_HOST", "LASTEVENT_OLLAMA_HOST"))
    """Where `ollama/` models are called, as Ollama itself reads it: `host`, `host:port` or an address; without it
    127.0.0.1:11434. Also read with the prefix."""
    ollama_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("ollama_api_key", "OLLAMA_API_KEY", "LASTEVENT_OLLAMA_API_KEY")
    )
    """Wanted by ollama.com; a server of your own wants none. Also read with the prefix."""

    # --- `lastevent up` ----------------------------------------------------------------------------------------------
    data_dir: Path = Field(default_factory=_default_data_dir)
    """Where `up` keeps the append-only file of its own Redis. Not used with a Redis of yours."""

    # --- logs --------------------------------------------------------------------------------------------------------
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """Debug adds what only a developer wants to see; no level shows a prompt or a key."""
    log_json: bool = False
    """One JSON object a line, for machines, instead of lines for people."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _keys_by_digest(cls, value: object) -> object:
        return parse_entries(value if isinstance(value, list | tuple) else [value])  # after _comma_separated

    @field_validator(
        "lanes", "openai_models", "anthropic_models", "anthropic_prefill_models", "ollama_models", "api_keys", "cors_origins",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("providers", mode="before")
    @classmethod
    def _named_tables(cls, value: object) -> object:
        return named_tables(value)  # after _json_object: such validators run from the last to the first

    @field_validator("local_models", "providers", mode="before")
    @classmethod
    def _json_object(cls, value: object, info: ValidationInfo) -> object:
        # Not left to pydantic-settings: what it raises for text that is no JSON is no ValidationError.
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"must be JSON, as {_JSON_EXAMPLES[str(info.field_name)]}") from None

    @field_validator("lanes")
    @classmethod
    def _known_lanes(cls, lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        unknown = [lane for lane in lanes if lane not in (API_LANE, LOCAL_LANE)]
        if unknown or not lanes:
            raise ValueError(f"lanes are {API_LANE} and {LOCAL_LANE}, comma-separated; got {','.join(lanes) or 'none'}")
        return lanes

    @field_validator("token_secret")
    @classmethod
    def _long_secrets(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and any(len(part) < 32 for part in secret.get_secret_value().split(",")):
            raise ValueError("must have 32 characters or more, as `openssl rand -hex 32` prints them")
        return secret

    @field_validator("cors_origins")
    @classmethod
    def _whole_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for place, origin in enumerate(origins, 1):
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(
                    f"entry {place} must be an origin as browsers send it: https://app.example.com, or http://localhost:5173; "
                    "no path, no slash at its end, and no `*`"
                )
        return origins

    @field_validator("retry_max_ms")
    @classmethod
    def _above_the_least(cls, retry_max_ms: int, info: ValidationInfo) -> int:
        if retry_max_ms < info.data.get("retry_min_ms", retry_max_ms):
            raise PydanticCustomError(RELATION, "retry_max_ms must not be below retry_min_ms")
        return retry_max_ms

    @field_validator("durable_timeout_s")
    @classmethod
    def _before_redis_gives_up(cls, durable_timeout_s: float, info: ValidationInfo) -> float:
        if info.data.get("durable_submit") and durable_timeout_s >= info.data.get("redis_timeout_s", math.inf):
            raise PydanticCustomError(RELATION, "durable_timeout_s must be below redis_timeout_s")
        return durable_timeout_s

    @model_validator(mode="wrap")
    @classmethod
    def _with_what_the_file_must_not_have(cls, data: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        refused = data.pop(REFUSED, [])
        try:
            settings = handler(data)
        except ValidationError as error:
            if refused:
                raise FileRefused(refused, error) from None
            raise
        if refused:
            raise FileRefused(refused, None)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was asked for on the command line, then the environment, then the file."""
        return init_settings, env_settings, ConfigFile(settings_cls)

    @cached_property
    def hostname(self) -> str:
        return socket.gethostname()


def load_settings(**overrides: object) -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: one line that names each variable, or the file's key, and what would be right.
    """
    lines: list[str] = []
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # validated by pydantic
    except FileRefused as refused:
        lines, values = refused.lines, refused.values
    except ValidationError as error:
        values = error
    if values is not None:
        lines += lines_of(values, Settings, overrides)
    raise ConfigurationError("; ".join(lines))
