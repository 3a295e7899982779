"""The tokens of a job's kept output, as the job itself counts them: for `max_tokens`, `token_budget`, usage and rate. No I/O.

Text, reasoning, refusal and the arguments of each tool call are texts of their own; a tool call counts one token more, for
itself. The local engine's token ids are counted as they are, everything else by tiktoken.
"""

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Self

import msgspec

from shared.events import Content, Reasoning, Refusal, Token, ToolCall
from shared.fold import Fold
from worker.text_count import MOST_A_CHARACTER, TextCount

if TYPE_CHECKING:
    from tiktoken import Encoding

_Text = type[Token] | type[Reasoning] | type[Refusal] | int
"""A text that is joined by itself; a tool call's is named by its index."""


class OutputCount:
    def __init__(self, encoding: "Callable[[], Encoding | None]") -> None:
        self._encoding = encoding
        self._exact = 0
        """Token ids, and tool calls."""
        self._texts: dict[_Text, TextCount] = {}

    @classmethod
    def of(cls, state: Fold, encoding: "Callable[[], Encoding | None]") -> Self:
        """What a log's kept output counts."""
        count = cls(encoding)
        if state.every_token_has_ids:
            count._exact += len(state.token_ids)
        elif state.text:
            count._text(Token).add(state.text)
        if state.reasoning:
            count._text(Reasoning).add(state.reasoning)
        if state.refusal:
            count._text(Refusal).add(state.refusal)
        for index, arguments in state.arguments():
            count.add(ToolCall(index, arguments=arguments))
        return count

    def fork(self) -> Self:
        """The same count, with nothing counted again; what is added to one of the two is not added to the other."""
        other = copy(self)
        other._texts = {name: text.fork() for name, text in self._texts.items()}
        return other

    def add(self, piece: Content) -> None:
        if isinstance(piece, Token) and piece.ids:
            self._exact += len(piece.ids)
        elif isinstance(piece, ToolCall):
            self._exact += self._opens(piece)
            self._text(piece.index).add(piece.arguments)
        else:
            self._text(type(piece)).add(piece.text)

    @property
    def needs_encoding(self) -> bool:
        """Whether `total` asks tiktoken."""
        return any(text.most for text in self._texts.values())

    def total(self) -> int:
        """Tokens. Needs the encoding if `needs_encoding`."""
        return self._exact + sum(text.total() for text in self._texts.values())

    def most(self, piece: Content | None = None) -> int:
        """So many tokens or fewer, with this piece too; costs next to nothing to know."""
        more = 0 if piece is None else _most_of(piece)
        return self._exact + sum(text.most for text in self._texts.values()) + more

    def fitting(self, piece: Content, room: int) -> Content | None:
        """The piece as far as it adds no more than `room` tokens, in whole characters; None if nothing of it does. Needs the
        encoding, but for token ids: those stay together."""
        if isinstance(piece, Token) and piece.ids:
            return piece if len(piece.ids) <= room else None
        if isinstance(piece, ToolCall):
            arguments = self._known(piece.index).fitting(piece.arguments, room - self._opens(piece))
            return msgspec.structs.replace(piece, arguments=arguments) if arguments or not piece.arguments else None
        text = self._known(type(piece)).fitting(piece.text, room)
        return msgspec.structs.replace(piece, text=text) if text else None

    def _opens(self, piece: ToolCall) -> bool:
        return piece.index not in self._texts

    def _text(self, name: _Text) -> TextCount:
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = TextCount(self._encoding)
        return text

    def _known(self, name: _Text) -> TextCount:
        """Without making it one of ours."""
        return self._texts.get(name) or TextCount(self._encoding)


def _most_of(piece: Content) -> int:
    if isinstance(piece, Token) and piece.ids:
        return len(piece.ids)
    text = piece.arguments if isinstance(piece, ToolCall) else piece.text
    return 1 + MOST_A_CHARACTER * len(text)
