"""The ids of spoken answers, by which later turns refer to them. Pure.

    audio_1f0c22aa9d3e77b1.eNrLSM3JyVcoAaKMVIXy_KKcFAA_ygbB

OpenAI keeps a spoken answer for a while. Gateways keep nothing and know nothing of each other, and all that
the model is told of an earlier answer are its words: so an id carries them, compressed, behind its dot. A
stream needs an id before there are words: it begins with the first half and ends with the second. A client
that joins the two, as OpenAI's SDK does, or keeps the last has an id that says all.
"""

import base64
import binascii
import uuid
import zlib

PREFIX = "audio_"
KEPT_S = 3600
"""Seconds that clients are told an id is good for. It is good for ever; the field asks for a time."""
MAX_WORDS = 1 << 16
"""Bytes of words in an id: what is compressed may be far larger than what it came in."""
MAX_ALL_WORDS = 16 * MAX_WORDS
"""Bytes of words in all ids of a request: a small one may name thousands."""


def new_id() -> str:
    """The first half of an id: whose answer it is of, not yet what was said."""
    return f"{PREFIX}{uuid.uuid4().hex[:16]}"


def words_part(transcript: str) -> str:
    """The second half, to be put behind the first."""
    packed = zlib.compress(transcript.encode(), 9)
    return "." + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def words_of(audio_id: str) -> str | None:
    """The words of the answer that `audio_id` names; None where it is no id of ours, or but a first half."""
    _, dot, packed = audio_id.rpartition(".")
    if not dot:
        return None
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True)
        unpacked = zlib.decompressobj()
        words = unpacked.decompress(raw, MAX_WORDS)
        return words.decode() if unpacked.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
