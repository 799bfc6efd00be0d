"""When a language model turns in circles: the same sounds again and again.

Judged on the linguistic codes alone: a model that says a phrase twice says other semantic codes each time.
The measure is the share of short runs that were there before, in a window of some seconds; a silence that
does not end counts as a loop too, for nobody wants to hear it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stepaudio_runtime.codec.layout import LINGUISTIC_RATE
from stepaudio_runtime.contract import LINGUISTIC_CODES

WINDOW_S = 6.0
WINDOW = math.ceil(WINDOW_S * LINGUISTIC_RATE)  # 100 linguistic codes
RUN = 4  # codes, 240 ms: about a syllable
SHARE = 0.6
"""Of the window's runs that were there before: three times the same phrase is 0.67."""


def loop_start(codes: Sequence[int]) -> int | None:
    """Index into `codes` where their last seconds begin to repeat themselves, None where they do not."""
    at = [index for index, code in enumerate(codes) if code < LINGUISTIC_CODES][-WINDOW:]
    if len(at) < WINDOW:
        return None
    seen: set[tuple[int, ...]] = set()
    again = []
    for i in range(WINDOW - RUN + 1):
        run = tuple(codes[j] for j in at[i : i + RUN])
        if run in seen:
            again.append(i)
        seen.add(run)
    if len(again) < SHARE * (WINDOW - RUN + 1):
        return None
    return at[again[0]]
