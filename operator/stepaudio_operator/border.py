"""The border of a release: which pods may work on one request together. Pure.

Chat, TTS and tokenizer speak in codes of the same two codebooks, so their models must come from one download,
and they and the gateway speak one wire. Both together name a **release**. A change that keeps it moves one
pool alone; a change of it moves traffic only between whole sets of pools (`release`).

1. The codebooks are known by where the models come from: preset, volume claim and folder on it. Models that
   lie in the runtime image are known by that image: its registry, its version, the folder in it. Another
   download therefore belongs into another folder; what is overwritten in place nobody can see.
2. Runtime versions with the same major number (for 0.x: the same minor number) speak the same wire. A tag
   that is no such version speaks it only with itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from stepaudio_operator import names
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.spec.pool import PoolSpec

_VERSION = re.compile(r"v?(\d+)\.(\d+)([.+-].*)?")
_DIGITS = 8  # hex digits that name the codebooks


@dataclass(frozen=True, slots=True)
class Release:
    """`codebooks` names the models (8 hex digits; "" for a gateway, which has none), `wire` the series."""

    codebooks: str
    wire: str

    def __str__(self) -> str:
        return f"{self.codebooks}-{self.wire}"

    @classmethod
    def parse(cls, text: str) -> Release | None:
        """The release of this name; None where it is none."""
        codebooks, dash, wire = text.partition("-")
        return cls(codebooks, wire) if dash and wire else None

    def speaks(self, other: Release) -> bool:
        """Whether pods of both understand each other's requests."""
        return self.wire == other.wire


def release_of(spec: PoolSpec) -> Release:
    """The release that the pods of a pool belong to."""
    wire = wire_series(spec.runtime.version)
    return Release("" if spec.component == names.GATEWAY else _codebooks(spec), wire)


def wire_series(version: str) -> str:
    """`1` for 1.4.2, `0.3` for 0.3.1, the tag itself for what is no version."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return version
    major, minor = match.group(1, 2)
    return f"{major}.{minor}" if int(major) == 0 else major


def _codebooks(spec: PoolSpec) -> str:
    source = spec.models.source if spec.models is not None else None
    if source is not None and source.pvc is not None:
        place = {"claim": source.pvc.claim_name, "folder": source.pvc.sub_path}
    elif source is not None and source.node_local is not None:
        place = {"nodeClaim": source.node_local.claim_name, "folder": source.node_local.folder}
    elif source is not None and source.image is not None and source.image.reference is not None:
        place = {"image": source.image.reference, "folder": source.image.path}
    else:
        folder = source.image.path if source is not None and source.image is not None else None
        place = {
            "registry": spec.runtime.registry or "",
            "version": spec.runtime.version,
            "folder": folder or PRESETS[spec.preset].models_dir,
        }
    text = json.dumps({"preset": spec.preset, **place}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
