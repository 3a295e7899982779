"""A job: the request as validated, its statuses and their one transition table, and the Job as a reader sees it. No I/O."""

from typing import Annotated, Any, Final, Literal, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from shared.errors import ErrorCode, InvalidRequest
from shared.events import StartReason, Timing, Usage
from shared.field_problems import problems_of, summary_of

Status = Literal["queued", "running", "done", "failed", "cancelled"]

OPEN: Final[frozenset[Status]] = frozenset({"queued", "running"})
TERMINAL: Final[frozenset[Status]] = frozenset({"done", "failed", "cancelled"})

Solitude = Literal["alone", "waits"]
"""How a job's worker has it: `alone`: it runs no other; `waits`: it does not run it yet, so that it can run alone."""

TRANSITIONS: Final[dict[tuple[Status, str], Status]] = {
    # (status, event that the log takes) → status. What is not here, no script writes.
    ("queued", "started"): "running",
    ("queued", "cancelled"): "cancelled",
    ("queued", "error"): "failed",
    ("running", "started"): "running",
    ("running", "token"): "running",
    ("running", "reasoning"): "running",
    ("running", "refusal"): "running",
    ("running", "tool_call"): "running",
    ("running", "done"): "done",
    ("running", "error"): "failed",
    ("running", "cancelled"): "cancelled",
}
"""The life of a job. `lua/` enforces it where it counts, in Redis; `tests/integration/test_transitions.py` walks this table
against those scripts, and docs/ARCHITECTURE.md draws it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ToolFunction(_Strict):
    name: str
    arguments: str


class MessageToolCall(_Strict):
    """A finished tool call of an earlier turn, as OpenAI writes it."""

    id: str
    type: Literal["function"] = "function"
    function: ToolFunction


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class ImageUrl(_Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
    """One OpenAI chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(strict=False)] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _content_where_needed(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("content may be null only for an assistant message with tool_calls")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs the tool_call_id that it answers")
        return self


class Timeouts(_Strict):
    """Seconds. `first_token_s` and `idle_s` count for each attempt, `total_s` from the accepted submit (protocol 2.1)."""

    queue_s: float | None = Field(None, gt=0)
    first_token_s: float | None = Field(None, gt=0)
    idle_s: float | None = Field(None, gt=0)
    total_s: float | None = Field(None, gt=0)


ModelId = Annotated[str, StringConstraints(max_length=300, pattern=r"^[a-z0-9_-]+/\S+$")]
_Short = Annotated[str, StringConstraints(max_length=64)]
_Long = Annotated[str, StringConstraints(max_length=512)]


class JobRequest(_Strict):
    """The body of `POST /v1/jobs` (protocol 2.1). Unknown fields are refused by name."""

    model: ModelId
    messages: list[Message] | None = Field(None, min_length=1)
    prompt: str | None = Field(None, min_length=1)
    system: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    token_budget: int | None = Field(None, ge=1)
    fallbacks: list[ModelId] = Field(default=[], max_length=8)
    on_interrupt: Literal["continue", "restart", "fail"] = "continue"
    timeouts: Timeouts = Timeouts()
    metadata: dict[_Short, _Long] = Field(default={}, max_length=16)

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("send exactly one of messages and prompt")
        return self

    @field_validator("stop")
    @classmethod
    def _few_and_not_empty(cls, stop: str | list[str] | None) -> str | list[str] | None:
        strings = [stop] if isinstance(stop, str) else stop or []
        if "" in strings:
            raise ValueError("must not hold an empty string")
        if len(strings) > 4:
            raise ValueError("must have at most 4 strings")
        return stop

    def stop_list(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def chat(self) -> list[Message]:
        """The whole conversation, whichever way it was sent; `system` first."""
        head = [Message(role="system", content=self.system)] if self.system else []
        body = self.messages if self.messages is not None else [Message(role="user", content=self.prompt)]
        return head + body

    def to_json(self) -> bytes:
        """As stored: only what was set, so that defaults of a later release apply to it too."""
        return self.model_dump_json(exclude_unset=True).encode()


class TokenRequest(_Strict):
    """The body of `POST /v1/jobs/{id}/token`."""

    expires_in: int | None = Field(None, ge=1)
    """Seconds."""


_Body = TypeVar("_Body", bound=_Strict)


def parse_request(body: bytes) -> JobRequest:
    """Validates the body of `POST /v1/jobs`. Raises InvalidRequest as `parse_body` does."""
    return parse_body(JobRequest, body)


def parse_body(kind: type[_Body], body: bytes) -> _Body:
    """Validates a body.

    Raises:
        InvalidRequest: with one problem a field, each named as in `messages[0].role`.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problems = problems_of(error)
    raise InvalidRequest(summary_of(problems), problems)


class JobFailure(msgspec.Struct, frozen=True):
    code: ErrorCode
    message: str
    retryable: bool


class Attempt(msgspec.Struct, frozen=True):
    """One call of one model, as the Job lists it."""

    number: int
    model: str
    worker: str
    reason: StartReason
    usage: Usage | None = None
    error: JobFailure | None = None


class Job(msgspec.Struct, frozen=True):
    """The Job of protocol 2.2, folded from record and log."""

    id: str
    status: Status
    model: str
    created_at: float
    events_url: str
    last_event_id: str
    object: Literal["job"] = "job"
    started_at: float | None = None
    finished_at: float | None = None
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[dict[str, Any]] = msgspec.field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = Usage()
    timing: Timing = Timing()
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    error: JobFailure | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
