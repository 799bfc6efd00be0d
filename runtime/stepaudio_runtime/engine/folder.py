"""The places of a run; `run` says what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """The places of a run."""

    path: Path

    @property
    def journal(self) -> Path:
        """What is sealed."""
        return self.path / "journal.jsonl"

    @property
    def work(self) -> Path:
        """Samples made but not sealed."""
        return self.path / "work"

    @property
    def references(self) -> Path:
        """The voices' reference waves."""
        return self.path / "references"

    def made(self, number: int) -> Path:
        """The file of a sample."""
        return self.work / f"{number:08d}.made"

    def keep(self, number: int, content: bytes) -> None:
        """Write the file of a sample, whole or not at all; it is not synchronised, its checksum tells."""
        new = self.made(number).with_suffix(".new")
        new.write_bytes(content)
        new.replace(self.made(number))
