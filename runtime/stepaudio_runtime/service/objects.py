"""How often Python looks through the objects of a process that imports torch and vLLM."""

import gc

BETWEEN_LOOKS = 50_000
"""New objects; Python's own 700 make it look through the imports' million again and again."""


def look_seldom() -> None:
    """To be called before torch and vLLM are imported: a fifth of what their import takes is the collector's.

    It stays so afterwards. What waits to be found is garbage in cycles, of which such a process makes little.
    """
    gc.set_threshold(BETWEEN_LOOKS, 20, 100)
