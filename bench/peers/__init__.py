"""Who is measured: ours and its peers, each started on a stage and written to in the same way."""

from typing import Final

from bench.peers.base import PeerMissing, Server, Stream
from bench.peers.floor import Floor
from bench.peers.nchan import Nchan
from bench.peers.ours import Ours
from bench.peers.resumable import ResumableStream
from bench.peers.tutorial import SseStarlette, Tutorial

ALL: Final[tuple[type[Server], ...]] = (Ours, Floor, Nchan, SseStarlette, ResumableStream, Tutorial)
"""In the order in which they are measured, which is also that of the tables."""

__all__ = ["ALL", "Floor", "Nchan", "Ours", "PeerMissing", "ResumableStream", "Server", "SseStarlette", "Stream", "Tutorial"]
