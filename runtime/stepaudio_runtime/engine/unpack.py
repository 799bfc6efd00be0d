"""A finished data folder as plain files: waves and one `manifest.jsonl`, for tools that read no shards."""

from __future__ import annotations

import json
from pathlib import Path

from stepaudio_runtime.audio.encoding import Format, encode
from stepaudio_runtime.engine.shards import read_shards

MANIFEST = "manifest.jsonl"


def unpack(folder: Path, out: Path) -> int:
    """Write `out`/KEY.wav and `out`/manifest.jsonl from the shards of `folder`; returns how many samples.

    A line is {"audio": file name or null, "text", "voice", "tag", "language", "split", "codes"}.
    Raises ConfigError where a shard is not as its manifest says, or no run could have written it.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    # The manifest comes last under its name: a folder with one is whole.
    new = out / f"{MANIFEST}.new"
    with new.open("w", encoding="utf-8") as lines:
        for utterance in read_shards(folder):
            record, name = utterance.record, None
            if utterance.wave is not None:
                name = f"{record['key']}.wav"
                (out / name).write_bytes(encode(utterance.wave.samples, utterance.wave.rate, Format.WAV))
            line = {"audio": name, "text": record["text"], "voice": record["voice"], "tag": record["style"]}
            line |= {"language": record["language"], "split": record["split"], "codes": utterance.codes}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    new.replace(out / MANIFEST)
    return count
