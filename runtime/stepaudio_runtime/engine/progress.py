"""How far a run is, in one line. Pure: the clock is given."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counts samples; the rate is that of this process, not of what an earlier one had done."""

    total: int
    started: float  # seconds on the caller's clock
    done: int = 0
    refused: int = 0
    _here: int = field(default=0, init=False)

    def made(self, *, refused: bool) -> None:
        """One more sample, made just now."""
        self.done += 1
        self._here += 1
        self.refused += refused

    def line(self, now: float) -> str:
        """As "1,200 of 4,000 (30 %), 12 refused, 40.1/s, 1 min 10 s left"."""
        share = self.done / self.total if self.total else 1.0
        parts = [f"{self.done:,} of {self.total:,} ({share:.0%})"]
        if self.refused:
            parts.append(f"{self.refused:,} refused")
        elapsed = now - self.started
        if self._here and elapsed > 0:
            rate = self._here / elapsed
            parts += [f"{rate:.1f}/s", f"{_duration((self.total - self.done) / rate)} left"]
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
