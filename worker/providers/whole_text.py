"""Pieces of streamed text as whole characters. No I/O."""

from shared.errors import GenerationFailed


class WholeText:
    """One stream's pieces: half of an escaped surrogate pair waits for the other half of the same place.

    JSON may cut `🙂` into `"\\ud83d"` and `"\\ude42"`. A lone half is legal there, and breaks whatever encodes it.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._halves: dict[object, str] = {}

    def take(self, place: object, piece: object) -> str:
        """`piece` without a half at its end, and with the one that waited; halves without their other half are replaced.

        Args:
            place: where it goes: content, reasoning, the arguments of one tool call. Each keeps a half of its own.

        Raises:
            GenerationFailed: the server sent something else than text.
        """
        if not isinstance(piece, str):
            raise GenerationFailed("unsupported", f"{self._model} sent content of a form that is no text.")
        if self._halves:
            piece = self._halves.pop(place, "") + piece
        try:
            piece.encode()
        except UnicodeEncodeError:
            if "\ud800" <= piece[-1] <= "\udbff":
                self._halves[place], piece = piece[-1], piece[:-1]
            return piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return piece
