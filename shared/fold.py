"""A log, read from its first event on, as one state: what a reader holds, and what a takeover goes on from. No I/O."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from shared.events import (
    AnyEvent,
    Content,
    Done,
    Error,
    Queued,
    Reasoning,
    Refusal,
    Started,
    StartReason,
    Terminal,
    Token,
    ToolCall,
    Usage,
)
from shared.ids import START, EventId
from shared.job import Attempt, JobFailure


class AttemptState(msgspec.Struct):
    """One attempt as its entries tell it."""

    number: int
    model: str
    worker: str
    reason: StartReason
    output_tokens: int = 0
    """Token ids where the engine gave them, else one a piece: `uncounted`, until a worker counts it (worker/tokens.py)."""
    uncounted: list[str] = msgspec.field(default_factory=list)
    own_usage: Usage | None = None
    failure: JobFailure | None = None
    """What ended it, where another attempt followed."""

    def usage(self) -> Usage:
        """As it was told, else counted from its entries."""
        return self.own_usage or Usage(output_tokens=self.output_tokens, estimated=True)


class Pace(msgspec.Struct, frozen=True):
    """How the kept output came, as only the worker that wrote its end can know."""

    last_at: float
    """Unix seconds of the newest piece."""
    tokens: int
    """Those after the first piece."""
    gap_p50_s: float | None
    gap_p99_s: float | None
    """Between one piece of the last attempt and the next."""


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt ended that another one followed; the private field `before` of that one's `started` entry."""

    usage: Usage
    failure: JobFailure


class Fold:
    """Feed it every entry in order. Whatever `reset: true` discards is gone from it, as it is from a reader."""

    def __init__(self) -> None:
        self.last_id: EventId = START
        self.attempts: list[AttemptState] = []
        self.terminal: Terminal | None = None
        self.first_output_at: float | None = None
        """Unix seconds at which the job's first piece of output was written, by any attempt."""
        self.first_kept_at: float | None = None
        """The same for what is kept: after a reset it begins anew."""
        self.first_kept: Content | None = None
        """That piece."""
        self.pace: Pace | None = None
        self.token_ids: list[int] = []
        """The kept text's token ids; shorter than the text's tokens where a provider gives none."""
        self.kept_tokens = 0
        """Tokens of the kept text, reasoning and tool calls: what `max_tokens` and `token_budget` count. A guess, one a piece,
        until a worker counts (worker/tokens.py); above 0 as soon as there is any."""
        self.every_token_has_ids = True
        self.upstream_position: int | None = None
        """How far the response upstream that the kept output comes from was read with it: the provider's own number. None where
        there is none that goes on by itself."""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """As OpenAI writes finished calls, in the order of their index."""
        return [self._tool_calls[index] for index in sorted(self._tool_calls)]

    def arguments(self) -> Iterator[tuple[int, str]]:
        """What there is of each tool call's arguments, with its index."""
        return ((index, call["function"]["arguments"]) for index, call in self._tool_calls.items())

    @property
    def only_text(self) -> bool:
        """Whether nothing but text was put out: a model can go on from that, not from half a tool call or a thought."""
        return not (self._reasoning or self._refusal or self._tool_calls)

    def add(self, event_id: EventId, event: AnyEvent, private: Mapping[str, Any] | None = None) -> None:
        self.last_id = event_id
        if private and "u" in private:
            self.upstream_position = private["u"]
        if isinstance(event, Token):
            self._text.append(event.text)
            self.token_ids.extend(event.ids)
            self.every_token_has_ids &= bool(event.ids)
            self._count(event, len(event.ids), "" if event.ids else event.text, private)
        elif isinstance(event, Reasoning):
            self._reasoning.append(event.text)
            self._count(event, 0, event.text, private)
        elif isinstance(event, Refusal):
            self._refusal.append(event.text)
            self._count(event, 0, event.text, private)
        elif isinstance(event, ToolCall):
            opens = event.index not in self._tool_calls
            self._join_tool_call(event)
            self._count(event, int(opens), event.arguments, private)
        elif isinstance(event, Started):
            self._start(event, private)
        elif not isinstance(event, Queued):
            self._end(event, private)

    def usage(self) -> Usage:
        """What was paid so far; from the terminal event when there is one, else counted."""
        if self.terminal is not None:
            return self.terminal.usage
        return sum((attempt.usage() for attempt in self.attempts), Usage())

    def listed_attempts(self) -> list[Attempt]:
        return [
            Attempt(
                number=a.number,
                model=a.model,
                worker=a.worker,
                reason=a.reason,
                usage=a.usage(),
                error=self.error() if a is self.attempts[-1] else a.failure,
            )
            for a in self.attempts
        ]

    def error(self) -> JobFailure | None:
        end = self.terminal
        return JobFailure(end.code, end.message, end.retryable) if isinstance(end, Error) else None

    def finish_reason(self) -> str | None:
        return self.terminal.finish_reason if isinstance(self.terminal, Done) else None

    def _count(self, event: Content, tokens: int, uncounted: str, private: Mapping[str, Any] | None) -> None:
        """`tokens` are known; `uncounted` is text of which nobody knows yet how many it has."""
        guess = tokens + bool(uncounted)
        self.kept_tokens += guess
        if self.attempts:
            self.attempts[-1].output_tokens += guess
            if uncounted:
                self.attempts[-1].uncounted.append(uncounted)
        if private and "at" in private:
            self._stamp(event, float(private["at"]))

    def _stamp(self, event: Content, at: float) -> None:
        if self.first_output_at is None:
            self.first_output_at = at
        if self.first_kept is None:
            self.first_kept_at, self.first_kept = at, event

    def _join_tool_call(self, event: ToolCall) -> None:
        call = self._tool_calls.setdefault(
            event.index, {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
        )
        if event.id is not None:
            call["id"] = event.id
        if event.name is not None:
            call["function"]["name"] = event.name
        call["function"]["arguments"] += event.arguments

    def _start(self, event: Started, private: Mapping[str, Any] | None) -> None:
        if self.attempts and private and "before" in private:
            before = msgspec.convert(private["before"], AttemptEnd)
            self.attempts[-1].own_usage, self.attempts[-1].failure = before.usage, before.failure
        if event.reset:
            self._text, self._reasoning, self._refusal, self._tool_calls = [], [], [], {}
            self.token_ids, self.kept_tokens, self.every_token_has_ids = [], 0, True
            self.first_kept_at, self.first_kept, self.pace = None, None, None
            self.upstream_position = None
        self.attempts.append(AttemptState(event.attempt, event.model, event.worker, event.reason))
        if len(self.attempts) > 1 and private and "u" in private:
            self._read_on(self.attempts[-2], self.attempts[-1])

    @staticmethod
    def _read_on(before: AttemptState, attempt: AttemptState) -> None:
        """One response upstream is paid for once: with the attempt that read it last, whose output is then all of it."""
        attempt.output_tokens, attempt.uncounted = before.output_tokens, before.uncounted
        before.own_usage = Usage()

    def _end(self, event: Terminal, private: Mapping[str, Any] | None) -> None:
        self.terminal = event
        if self.attempts and private and "usage" in private:
            self.attempts[-1].own_usage = msgspec.convert(private["usage"], Usage)
