"""What is said to the log's scripts, and what their answers mean (docs/REDIS.md). No I/O: whoever sends a command may send many
in one round trip."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from shared import keys
from shared.errors import AlreadyEnded, LogBehind, LogErased, Superseded
from shared.events import FORMAT_VERSION, AnyEvent, Cancelled, Done, Terminal, to_data, to_fields
from shared.fold import AttemptEnd
from shared.ids import EventId
from shared.job import Solitude, Status
from shared.ownership import Opening, Ownership
from shared.redis_client import Arg, scripts


class Offer(NamedTuple):
    """An event on its way into the log, with what only we keep of it."""

    event: AnyEvent
    private: Mapping[str, Any] | None = None


class Append(NamedTuple):
    """An attempt's next entries; the first of them gets `first_seq`."""

    owner: Ownership
    first_seq: int
    offers: Sequence[Offer]


def append_command(appends: Iterable[Append]) -> tuple[Arg, ...]:
    """The command that adds to many logs in one call; it answers once for each of them, in their order."""
    names: list[str] = []
    args: list[Arg] = []
    for owner, first_seq, offers in appends:
        names += (keys.job(owner.job_id), keys.log(owner.job_id))
        entries: list[Arg] = []
        for event, private in offers:
            fields = to_fields(event, private)
            entries.append(len(fields))
            entries += fields
            entries.append(b"" if fields[0] == b"e" else to_data(event))
        args += (owner.lease.token, owner.attempt, first_seq - 1, first_seq, len(entries))
        args += entries
    return scripts.command("append", names, args)


def end_command(owner: Ownership, seq: int, event: Terminal, private: Mapping[str, Any], retention_s: int) -> tuple[Arg, ...]:
    """The command that writes the terminal event and the final status, in one step."""
    args: list[Arg] = [
        owner.lease.token, owner.attempt, seq, to_data(event), msgspec.json.encode(private), final_status(event), retention_s,
        owner.job_id,
    ]  # fmt: skip
    return scripts.command("end", [keys.job(owner.job_id), keys.log(owner.job_id)], args)


def reclaim_command(owner: Ownership, claimed_at: float, lease_s: float, *, held: bool, upstream: str = "=") -> tuple[Arg, ...]:
    """The command that asks where an attempt's log stands, and puts its claim, of `claimed_at` (Unix seconds), back if that was
    lost. Not `held`: the claim is too old to be one that Redis may have forgotten, so that a record without it means that
    another has claimed. `upstream` is what the record has to say of it, `=` for whatever it says."""
    opening = owner.opening
    args: list[Arg] = [
        owner.lease.token, opening.worker, owner.attempt, str(opening.after), owner.reason, int(opening.reset),
        f"{claimed_at:.3f}", int(lease_s * 1000), opening.rest if held else "", opening.private,
        opening.solitude, opening.beside, upstream,
    ]  # fmt: skip
    names = [keys.job(owner.job_id), keys.log(owner.job_id), keys.arq_in_progress(owner.job_id)]
    return scripts.command("reclaim", names, args)


def check_answer(answer: Sequence[bytes], job_id: str) -> None:
    """Turns a script's refusal, for one log, into the exception that says what follows from it."""
    word = answer[0]
    if word == b"ok":
        return
    if word == b"behind":
        raise LogBehind(f"the log of job {job_id} ends at {answer[1].decode() or 'nothing'}, before what it had taken")
    if word == b"ended":
        raise AlreadyEnded(f"job {job_id} has its terminal event")
    if word == b"gone":
        raise LogErased(f"job {job_id} was deleted or has expired")
    raise Superseded(f"job {job_id} has another owner")


def final_status(event: Terminal) -> Status:
    if isinstance(event, Done):
        return "done"
    return "cancelled" if isinstance(event, Cancelled) else "failed"


def outside_start(model: str, worker: str) -> bytes:
    """The rest of the `started` event that an ending from outside opens its attempt with; scripts put the front."""
    return _json_rest(model=model, worker=worker, reason="takeover", reset=False)


def private_of_start(before: AttemptEnd | None, read_on: int | None) -> dict[str, Any]:
    """What only we keep of a `started` entry: how the attempt before ended, and from where its response upstream is read on."""
    private = {"v": FORMAT_VERSION, "before": before, "u": read_on}
    return {name: value for name, value in private.items() if value is not None}


def opening_of(
    after: EventId,
    worker: str,
    model: str,
    reset: bool,
    private: Mapping[str, Any],
    solitude: Solitude | Literal["", "="] = "=",
    beside: str = "",
) -> Opening:
    """What a claim is to write, but for what only its script knows."""
    rest = _json_rest(model=model, worker=worker)
    return Opening(after, worker, reset, rest, msgspec.json.encode(private), solitude, beside)


def _json_rest(**fields: object) -> bytes:
    """A JSON object without its opening brace: scripts put what only they know before it."""
    return msgspec.json.encode(fields)[1:]
