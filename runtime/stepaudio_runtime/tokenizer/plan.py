"""Decides what goes through the models together in the next step. No I/O, no models.

A step is one call of each encoder, and nothing else runs meanwhile: its size is bounded by what a stream may
be made to wait for. Rules, in order:
1. Streams before files, each kind by arrival. Windows of one piece of work may be split over steps, semantic
   pieces may not.
2. While streams wait, a step is small; without them it is large.
3. The first stream and the first file in line always get a few windows and a piece, however large that piece
   is: neither streams without end nor a piece of 30 s keep anybody waiting for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LARGE_STEP_WINDOWS = 128  # of 240 ms; more rows make the matrix products no faster
SMALL_STEP_WINDOWS = 32
LEAST_WINDOWS = 8
LARGE_STEP_FRAMES = 6000  # mel frames of 10 ms: two pieces of 30 s
SMALL_STEP_FRAMES = 1500


@dataclass(frozen=True)
class Waiting:
    """What is left of one piece of work: windows of the one encoder, pieces (in mel frames) of the other."""

    windows: int
    pieces: tuple[int, ...]
    urgent: bool  # a stream's


@dataclass(frozen=True)
class Share:
    """How many windows and pieces of one piece of work go into the next step."""

    windows: int = 0
    pieces: int = 0


def plan_step(waiting: Sequence[Waiting]) -> list[Share]:
    """A share for each of `waiting`, which stand in order of arrival."""
    small = any(work.urgent for work in waiting)
    window_room = SMALL_STEP_WINDOWS if small else LARGE_STEP_WINDOWS
    frame_room = SMALL_STEP_FRAMES if small else LARGE_STEP_FRAMES
    shares = [Share()] * len(waiting)
    served_windows: set[bool] = set()  # kinds of which one has had some
    served_pieces: set[bool] = set()
    for index in sorted(range(len(waiting)), key=lambda index: not waiting[index].urgent):
        work = waiting[index]
        least = 0 if work.urgent in served_windows else LEAST_WINDOWS
        windows = min(work.windows, max(window_room, least))
        pieces = _fitting(work.pieces, frame_room, least=0 if work.urgent in served_pieces else 1)
        window_room -= windows
        frame_room -= sum(work.pieces[:pieces])
        if windows:
            served_windows.add(work.urgent)
        if pieces:
            served_pieces.add(work.urgent)
        shares[index] = Share(windows, pieces)
    return shares


def _fitting(pieces: Sequence[int], room: int, *, least: int) -> int:
    """How many of the first `pieces` fit into `room`; `least` do in any case."""
    count = 0
    for size in pieces:
        if count >= least and size > room:
            break
        room -= size
        count += 1
    return count
