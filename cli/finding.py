"""What `lastevent doctor` finds: one line a thing looked at."""

from typing import Literal

import msgspec

State = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """`warn`: it runs, and there is something to know; `fail`: it does not run, or not rightly."""

    name: str
    state: State
    detail: str
    advice: str = ""
    """What to do; empty where there is nothing to."""
