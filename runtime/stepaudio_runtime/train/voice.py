"""A new voice from a folder of recordings: the language model learns to speak as they do, and is served so.

It works on a model folder as it is downloaded, of any size: what comes out is that folder with one voice more
and the language model adapted, whole or by low-rank changes that are added to its weights at the end. Flow
and vocoder stay as they are: they colour by the voice's recording.

Recordings are WAV files with what is said in them beside, in NAME.txt, or as `manifest.jsonl` says, an object
a line: `{"audio": file, "text": words}`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.chat.vocabulary import Vocabulary
from stepaudio_runtime.checkpoints import layout
from stepaudio_runtime.checkpoints.lm import LmFolder, read_lm
from stepaudio_runtime.checkpoints.speech_tokenizers import load_tokenizers
from stepaudio_runtime.checkpoints.voices import read_voices
from stepaudio_runtime.codec.tts_prompt import tts_prompt_ids
from stepaudio_runtime.contract import EOT_ID
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.models.step1 import Step1, Step1Config
from stepaudio_runtime.pods.sound_file import read_mono, write_mono
from stepaudio_runtime.tokenizer.dual import preprocess
from stepaudio_runtime.train.codes import Coder, lawful
from stepaudio_runtime.train.corpus import MANIFEST
from stepaudio_runtime.train.loop import Losses, Plan, step_random, train
from stepaudio_runtime.train.processes import alone

FEWEST, SHORTEST_S, LONGEST_S = 3, 0.5, 30.0
"""Recordings, and the length of one; the semantic tokenizer hears 30 s at most."""
RANK = 8
FULL = Plan(steps=200, rate=3e-4, warmup=20, log_every=20)
LOW_RANK = Plan(steps=200, rate=2e-3, warmup=20, log_every=20)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_ROWS = 8  # utterances of a step


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording and its words."""

    text: str
    wave: Wave


@dataclass(frozen=True)
class VoiceJob:
    """What becomes of which recordings: `models` plus the voice `name` is written to `out`."""

    recordings: Path
    name: str
    models: Path
    out: Path
    full: bool = False
    steps: int | None = None
    rate: float | None = None
    bfloat16: bool = False
    accumulate: int = 1
    log: TextIO | None = None
    fabric: Fabric = field(default_factory=alone)

    @property
    def plan(self) -> Plan:
        """How long and how fast."""
        plan = FULL if self.full else LOW_RANK
        steps = self.steps or plan.steps
        quarter = max(1, steps // 4)
        warmup, every = min(plan.warmup, quarter), min(plan.log_every, quarter)
        return replace(
            plan,
            steps=steps,
            warmup=warmup,
            log_every=every,
            rate=self.rate or plan.rate,
            bfloat16=self.bfloat16,
            accumulate=self.accumulate,
        )


class VoiceStage:
    """A language model that reads a prompt with the voice's own recording and answers with its codes."""

    def __init__(
        self, module: Step1, beginning: Sequence[int], rows: Sequence[tuple[list[int], int]]
    ) -> None:
        """`rows` are ids behind the beginning, and how many of them are given."""
        self.module = module
        self._device = module.lm_head.weight.device
        self._beginning = torch.tensor(beginning, device=self._device)
        self._rows = sorted(rows, key=lambda row: len(row[0]))

    def loss(self, step: int, part: int) -> Losses:
        """Cross-entropy of the answers of some rows of like length, over the whole vocabulary."""
        first = int(step_random(0, step, part).integers(max(1, len(self._rows) - _ROWS + 1)))
        rows = self._rows[first : first + _ROWS]
        inputs = torch.zeros(len(rows), max(len(ids) for ids, _ in rows) - 1, dtype=torch.int64)
        targets = torch.full(inputs.shape, -100)
        for i, (ids, given) in enumerate(rows):
            inputs[i, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[i, given - 1 : len(ids) - 1] = torch.tensor(ids[given:])
        asked = targets >= 0
        rows_out = self.module(self._beginning, inputs.to(self._device))[asked.to(self._device)]
        logits = self.module.lm_head(rows_out)
        return {"total": F.cross_entropy(logits.float(), targets[asked].to(self._device))}


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, the second of which begins at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.up @ self.down


def add_low_rank(module: Step1, rank: int = RANK) -> None:
    """Freeze `module` but for low-rank changes of its attention and gated layers."""
    module.requires_grad_(False)
    for layer in module.model.modules():
        if isinstance(layer, nn.Linear):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def merge_low_rank(module: Step1) -> None:
    """Make the changes part of the weights."""
    for layer in list(module.model.modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def add_voice(job: VoiceJob) -> float:
    """Do `job`; returns the last loss, NaN where an old checkpoint does not say it.

    Raises InputError for recordings, name or place, ModelFileError.
    """
    if not _NAME.fullmatch(job.name):
        raise InputError(f"{job.name!r} is no name of letters, digits, - and _", param="voice")
    if job.out.exists():
        raise InputError(f"{job.out} exists; give another folder", param="output")
    lm = read_lm(job.models / layout.TTS)
    known = read_voices(job.models / layout.TTS)
    if job.name in {voice.name for voice in known}:
        raise InputError(f"{job.models} has a voice {job.name} already", param="voice")
    recordings = read_recordings(job.recordings)
    prompt = typical(recordings)
    torch.manual_seed(0)
    module = job.fabric.to_device(_module(lm))
    stage = VoiceStage(module, *_rows(job, lm, prompt, recordings))
    if not job.full:
        add_low_rank(module)
    checkpoint = job.out.with_name(f"{job.out.name}.{_key(job, recordings)}.checkpoint")
    means = train(module, stage.loss, job.plan, checkpoint, job.log, fabric=job.fabric)
    merge_low_rank(module)
    if job.fabric.is_global_zero:
        _write(job, lm, module, prompt)
        checkpoint.unlink()
    job.fabric.barrier()
    return means.get("total", math.nan)


def _write(job: VoiceJob, lm: LmFolder, module: Step1, prompt: Recorded) -> None:
    """The model folder with the voice, whole or not at all."""
    beside = job.out.with_name(job.out.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(job.models, beside)
    _write_lm(beside / layout.TTS, lm, module)
    _write_voice(beside / layout.TTS, job.name, prompt)
    beside.replace(job.out)


def read_recordings(folder: Path) -> list[Recorded]:
    """The recordings of a folder, in the order of their names. Raises InputError, AudioError."""
    manifest = folder / MANIFEST
    try:
        if manifest.exists():
            lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
            named = [(folder / line["audio"], line["text"]) for line in lines]
        else:
            waves = sorted(folder.glob("*.wav"))
            named = [(wave, wave.with_suffix(".txt").read_text("utf-8")) for wave in waves]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: a recording without its words: {error}", param="recordings") from None
    found = []
    for file, words in named:
        text, wave = " ".join(words.split()), Wave(*read_mono(file))
        if not text:
            raise InputError(f"{file} has no words", param="recordings")
        if not SHORTEST_S <= wave.duration_s <= LONGEST_S:
            bounds = f"{SHORTEST_S:g} to {LONGEST_S:g} s are taken"
            raise InputError(f"{file} lasts {wave.duration_s:.1f} s; {bounds}", param="recordings")
        found.append(Recorded(text, wave))
    if len(found) < FEWEST:
        what = f"{folder} holds {len(found)} recordings; at least {FEWEST} are needed"
        raise InputError(f"{what}, as WAV with TXT beside or by a {MANIFEST}", param="recordings")
    return found


def typical(recordings: Sequence[Recorded]) -> Recorded:
    """The one of median length: the voice's prompt."""
    return sorted(recordings, key=lambda each: each.wave.duration_s)[len(recordings) // 2]


def _key(job: VoiceJob, recordings: Sequence[Recorded]) -> str:
    """Of what the training depends on: a run that was stopped goes on if nothing of it has changed."""
    # Whether a step's batches are made by one process or by several changes nothing.
    plan = replace(job.plan, accumulate=job.plan.accumulate * job.fabric.world_size)
    digest = hashlib.sha256(f"{job.full} {plan} {job.models.absolute()}".encode())
    for each in recordings:
        digest.update(each.text.encode())
        digest.update(each.wave.samples.tobytes())
    return digest.hexdigest()[:12]


def _module(lm: LmFolder) -> Step1:
    config = {
        key: lm.config[key]
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_attention_groups",
            "rms_norm_eps",
        )
        if key in lm.config
    }
    module = Step1(Step1Config(**config))
    state = {name: value for file in lm.files for name, value in load_file(file).items()}
    if lm.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        module.lm_head.weight = module.model.embed_tokens.weight
    module.load_state_dict(state)
    return module


def _rows(
    job: VoiceJob, lm: LmFolder, prompt: Recorded, recordings: Sequence[Recorded]
) -> tuple[list[int], list[tuple[list[int], int]]]:
    """Ids of the prompt up to where the text comes, and of what follows, by recording."""
    coder = Coder(load_tokenizers(job.models / layout.TOKENIZER, torch.device("cpu")))
    encode = Vocabulary(lm.vocabulary.read_bytes(), audio_offset=lm.audio_offset).encode

    def codes(each: Recorded) -> list[int]:
        heard = coder(preprocess(each.wave.samples, each.wave.rate, trim_silence=True))
        # Sampling forbids a code to come again and again: the model learns to say what it will be allowed to.
        return heard.codes if each is prompt else lawful(heard)

    starts = codes(prompt)

    def asked(text: str) -> list[int]:
        return tts_prompt_ids(
            text,
            voice_text=prompt.text,
            voice_codes=starts,
            speaker=job.name,
            encode=encode,
            audio_offset=lm.audio_offset,
            strict=True,
        )

    prompts = [asked(each.text) for each in recordings]
    nothing = asked("")
    shared = next(i for i, ids in enumerate(zip(*prompts, nothing, strict=False)) if len(set(ids)) > 1)
    rows = []
    for each, ids in zip(recordings, prompts, strict=True):
        answer = [lm.audio_offset + code for code in codes(each)]
        rows.append(([*ids[shared:], *answer, EOT_ID], len(ids) - shared))
    return nothing[:shared], rows


def _write_lm(folder: Path, lm: LmFolder, module: Step1) -> None:
    """The adapted weights in the files that they came from, at their precision."""
    state = module.state_dict()
    for file in lm.files:
        held = load_file(file)
        changed = {name: state[name].to("cpu", value.dtype).contiguous() for name, value in held.items()}
        for name, value in changed.items():
            if not torch.isfinite(value).all():
                raise FloatingPointError(f"{name} does not fit {value.dtype}")
        save_file(changed, folder / file.name, metadata={"format": "pt"})


def _write_voice(folder: Path, name: str, prompt: Recorded) -> None:
    speakers = folder / layout.SPEAKERS
    table = {
        voice.name: {"wav": voice.wav.name, "transcript": voice.transcript} for voice in read_voices(folder)
    }
    file = f"{name}_prompt.wav"
    samples = np.round(np.clip(prompt.wave.samples, -1, 1) * 32767).astype(np.int16)
    write_mono(speakers / file, samples, prompt.wave.rate)
    table[name] = {"wav": file, "transcript": prompt.text}
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    (speakers / layout.SPEAKERS_TABLE).write_text(text, "utf-8")
