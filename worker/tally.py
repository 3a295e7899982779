"""What a worker's attempts produced since it started, in plain numbers: a token is counted for the price of an addition.
No I/O."""

from typing import Final

from shared.events import Content, Reasoning, Refusal, Token, ToolCall
from shared.operations import TTFT_BOUNDS
from shared.spread import Spread

KINDS: Final[dict[type[Content], str]] = {
    Token: "text",
    Reasoning: "reasoning",
    Refusal: "refusal",
    ToolCall: "tool_call",
}


class Tally:
    __slots__ = ("tokens", "ttft")

    def __init__(self) -> None:
        self.tokens: dict[type[Content], int] = dict.fromkeys(KINDS, 0)
        """Token ids where the engine gives them, else one a piece: nobody waits for the encoding here."""
        self.ttft = Spread(TTFT_BOUNDS)
        """Seconds from the submit to the job's first output."""
