"""Going on from the start of an answer, with models that take it as a trailing assistant message. No I/O."""


class Prefill:
    """The text so far as it is sent, and what to drop from the text that comes.

    A message that ends in white space is refused, or answered oddly: tokens carry their space in front. So it goes without,
    the model most likely starts with what was left out, and as much white space is dropped from the start of its answer.
    """

    def __init__(self, text: str) -> None:
        self.sent = text.rstrip()
        self._to_drop = len(text) - len(self.sent)

    def rest(self, piece: str) -> str:
        """What of the next piece is new."""
        if not self._to_drop:
            return piece
        dropped = min(len(piece) - len(piece.lstrip()), self._to_drop)
        self._to_drop = self._to_drop - dropped if dropped == len(piece) else 0
        return piece[dropped:]
