"""What a busy server asks for: the header Retry-After, in seconds or as a date. Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime


def retry_after_s(text: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (`now` is the calendar's time); None where it is none."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return None
