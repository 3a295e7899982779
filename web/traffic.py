"""What a web process has sent to its readers since it started, in plain numbers: at a thousand readers an addition each is
noticed. No I/O."""

from collections import Counter


class Traffic:
    __slots__ = ("deliveries", "frames", "merged_frames", "reconnects", "replays", "rewinds", "size", "stalled")

    def __init__(self) -> None:
        self.deliveries = 0
        """Writes of pushed frames to readers."""
        self.frames = 0
        """Frames sent to readers that have left; those that are here count their own."""
        self.merged_frames = 0
        """Frames that stood for several entries."""
        self.size = 0
        """Bytes of frames."""
        self.replays = 0
        """Readings of history, for a reader that came or that fell behind the tail."""
        self.rewinds = 0
        self.stalled = 0
        """Readers whose socket took nothing for so long that they were aborted."""
        self.reconnects: Counter[str] = Counter()
        """Readers sent away to come back, by reason (protocol 4.7)."""
