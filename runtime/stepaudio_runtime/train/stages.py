"""The chain of stages: what each reads, trains and writes. `stepaudio train STAGE` runs one of them.

    corpus ─► linguistic ─┐
          ├─► semantic ───┼─► codes ─► flow
          ├─► speaker ────┘        ├─► tts
          └─► vocoder              └─► chat

A stage reads the files of the stages before it from the weights folder and writes its own there when it is
done. Checkpoints and codes lie in the work folder; a stage that is started again goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stepaudio_runtime.checkpoints import nano_trained as stored
from stepaudio_runtime.checkpoints.nano_decoder import FLOW, HIFT
from stepaudio_runtime.checkpoints.nano_lm import LM
from stepaudio_runtime.checkpoints.nano_tokenizers import SANM, SEMANTIC
from stepaudio_runtime.checkpoints.nano_vocabulary import PIECES, vocabulary
from stepaudio_runtime.engine.domain.texts import Language, Split, asked, exchanges
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.train import chat, flow, linguistic, semantic, speaker, speech_lm, vocoder
from stepaudio_runtime.train.codes import Coded, Coder, lawful, load_codes, save_codes
from stepaudio_runtime.train.corpus import (
    Samples,
    Utterance,
    as_recorded,
    read_corpus,
    speech,
    speech_16k,
)
from stepaudio_runtime.train.everyday import often_enough
from stepaudio_runtime.train.loop import Losses, Plan, train
from stepaudio_runtime.train.processes import alone
from stepaudio_runtime.train.prompts import choose_prompts, name_of, prompt_codes, save_prompts
from stepaudio_runtime.train.weights import Words, save_weights, words_of

QUESTIONS_SEED = 2
"""Of the recipe that the chat model's corpus is made by, examples/data/nano-listening.yaml."""


@dataclass(frozen=True)
class Job:
    """Where a stage finds and leaves things. `steps` and `utterances` cut it short.

    `begin` is a folder of weights: flow, vocoder, tts and chat go on from what they were there instead of
    from nothing. At `until` (by `time.monotonic`) a stage that is not done keeps its checkpoint and raises
    JobError.
    """

    corpora: tuple[Path, ...]
    weights: Path
    work: Path
    steps: int | None = None
    utterances: int | None = None
    seed: int = 0
    log: TextIO | None = None
    begin: Path | None = None
    accumulate: int = 1
    until: float = math.inf
    fabric: Fabric = field(default_factory=alone)

    def plan(self, plan: Plan) -> Plan:
        """A stage's plan with this job's steps and seed."""
        steps = self.steps or plan.steps
        every = max(1, min(plan.log_every, steps // 4))
        warmup = min(plan.warmup, steps // 4)
        return replace(
            plan, steps=steps, warmup=warmup, seed=self.seed, log_every=every, accumulate=self.accumulate
        )

    def read(self, at_most: int) -> list[Utterance]:
        """The first `at_most` (or `utterances`) to train on, as many of each corpus as far as it has them."""
        found = [read_corpus(corpus) for corpus in self.corpora]
        share = fair_share([len(held) for held in found], self.utterances or at_most)
        return [utterance for held in found for utterance in held[:share]]

    def go_on(self, module: nn.Module, file: str) -> None:
        """Take over the weights of `begin`, where one is given. Raises ModelFileError."""
        if self.begin is not None:
            module.load_state_dict(stored.read_stage(self.begin / file)[0])

    def train(self, stage: str, module: nn.Module, loss: Callable[[int, int], Losses], plan: Plan) -> Words:
        """Train a stage's module from its checkpoint on; what is to be said beside its weights."""
        checkpoint = self.work / f"{stage}.checkpoint"
        losses = train(module, loss, plan, checkpoint, self.log, fabric=self.fabric, until=self.until)
        return words_of(plan.steps, plan.seed, losses)

    def keep(
        self, file: str, tensors: Mapping[str, Tensor], words: Words, *, whole: tuple[str, ...] = ()
    ) -> None:
        """Write a stage's weights; of several processes the first does."""
        if self.fabric.is_global_zero:
            save_weights(self.weights / file, tensors, words, whole=whole)


def fair_share(lengths: Sequence[int], at_most: int) -> int:
    """The most that each of several may give, so that together they give no more than `at_most`."""
    left = at_most
    for number, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - number)
        if length > share:
            return share
        left -= length
    return max(lengths)


def train_linguistic(job: Job) -> None:
    """The SANM encoder, its statistics and centroids."""
    plan = job.plan(linguistic.PLAN)
    stage = linguistic.LinguisticStage(SANM, job.read(1600), plan.seed)
    words = job.train("linguistic", stage.module, stage.loss, plan)
    tensors: dict[str, Tensor] = dict(stage.module.sanm.state_dict())
    tensors["centroids"] = stage.centroids()
    tensors["shift"], tensors["scale"] = (
        torch.from_numpy(stage.cmvn.shift),
        torch.from_numpy(stage.cmvn.scale),
    )
    job.keep(stored.LINGUISTIC, tensors, words, whole=("shift", "scale"))


def train_semantic(job: Job) -> None:
    """The Whisper-like encoder and its code book."""
    plan = job.plan(semantic.PLAN)
    stage = semantic.SemanticStage(SEMANTIC, job.read(1600), plan.seed, plan.steps)
    words = job.train("semantic", stage.module, stage.loss, plan)
    tensors = dict(stage.module.tokenizer.state_dict())
    del tensors[stored.POSITIONS]
    tensors[stored.CODEBOOK] = tensors[stored.CODEBOOK][: semantic.CODES_USED]
    job.keep(stored.SEMANTIC_FILE, tensors, words)


def train_speaker(job: Job) -> None:
    """The speaker's network."""
    plan = job.plan(speaker.PLAN)
    stage = speaker.SpeakerStage(job.read(400), plan.seed)
    words = job.train("speaker", stage.module, stage.loss, plan)
    tensors = {
        "first.weight": stage.module.net.first.weight.T,
        "first.bias": stage.module.net.first.bias,
        "second.weight": stage.module.net.second.weight.T,
    }
    job.keep(stored.SPEAKER, {name: value.detach() for name, value in tensors.items()}, words)


def train_vocoder(job: Job) -> None:
    """The vocoder, and the recordings of the voices, which need no training."""
    plan = job.plan(vocoder.PLAN)
    stage = vocoder.VocoderStage(HIFT, job.read(1000), plan.seed)
    job.go_on(stage.module, stored.HIFT)
    words = job.train("vocoder", stage.module, stage.loss, plan)
    tensors = stage.module.state_dict()
    job.keep(stored.HIFT, tensors, words)


def write_voices(job: Job) -> None:
    """The voices' recordings: one utterance of the corpus each."""
    save_prompts(choose_prompts(read_corpus(job.corpora[0])), job.weights / stored.VOICES)


def train_flow(job: Job) -> None:
    """The flow, on the codes of the trained tokenizers."""
    plan = job.plan(flow.PLAN)
    utterances = job.read(3000)
    coded = corpus_codes(job, utterances)
    embed = speaker.Embedder(job.weights / stored.SPEAKER)
    timbres = [name_of(utterance.voice) or utterance.voice for utterance in utterances]
    # A voice's recording is in one language, whatever it is to say: so are a stretch's beginning and end.
    shuffled = np.random.default_rng(plan.seed).permutation(len(utterances)).tolist()
    tapes = []
    for timbre in sorted(set(timbres)):
        own = [i for i in shuffled if timbres[i] == timbre]
        embeddings = np.stack([embed(speech_16k(utterances[i])) for i in own[:40]])
        drawn = often_enough(own, lambda i: utterances[i].text)
        tapes.append(
            flow.tape([coded[i].codes for i in drawn], [speech(utterances[i]) for i in drawn], embeddings)
        )
    stage = flow.FlowStage(FLOW, tapes, plan.seed)
    job.go_on(stage.module, stored.FLOW)
    words = job.train("flow", stage.module, stage.loss, plan)
    job.keep(stored.FLOW, stage.module.state_dict(), words)


def train_tts(job: Job) -> None:
    """The language model, on the same codes."""
    from sentencepiece import SentencePieceProcessor

    plan = job.plan(speech_lm.PLAN)
    named = [(utterance, name_of(utterance.voice)) for utterance in job.read(20_000)]
    spoken = [(utterance, name) for utterance, name in named if name is not None]
    coded = corpus_codes(job, [utterance for utterance, _ in spoken])
    examples = [
        speech_lm.Example(
            f"({utterance.tag}){utterance.text}" if utterance.tag else utterance.text,
            name,
            tuple(lawful(each)),
        )
        for (utterance, name), each in zip(spoken, coded, strict=True)
    ]
    stage = speech_lm.SpeechLmStage(
        LM,
        examples,
        prompt_codes(job.weights),
        SentencePieceProcessor(model_proto=vocabulary()).encode,
        PIECES,
        plan.seed,
        plan.steps,
    )
    if job.begin is not None:
        stage.answers.take_over(stored.read_stage(job.begin / stored.TTS)[0])
    words = job.train("tts", stage.module, stage.loss, plan)
    job.keep(stored.TTS, stage.exported(), words)


def train_chat(job: Job) -> None:
    """The language model that hears: on the codes of a corpus of questions, silence of any length around."""
    from sentencepiece import SentencePieceProcessor

    plan = job.plan(chat.PLAN)
    utterances = job.read(10_000)
    coded = corpus_codes(job, utterances, as_recorded)
    heard = [
        chat.Heard(utterance.text, tuple(each.codes))
        for utterance, each in zip(utterances, coded, strict=True)
    ]
    answers = asked(Language.ENGLISH, Split.TRAIN, 2 * len(utterances), QUESTIONS_SEED)
    if not any(each.text in answers for each in heard):
        message = f"{job.corpora[0]} has no question of the domain drawn with the seed {QUESTIONS_SEED}"
        raise InputError(message, param="corpus")
    encode = SentencePieceProcessor(model_proto=vocabulary()).encode
    typed = exchanges(Language.ENGLISH, Split.TRAIN, chat.TYPED, QUESTIONS_SEED)
    stage = chat.ChatStage(LM, heard, answers, typed, encode, PIECES, plan.seed)
    if job.begin is not None:
        stage.answers.take_over(stored.read_stage(job.begin / stored.CHAT)[0])
    words = job.train("chat", stage.module, stage.loss, plan)
    job.keep(stored.CHAT, stage.exported(), words)


def corpus_codes(
    job: Job, utterances: list[Utterance], heard: Callable[[Utterance], Samples] = speech_16k
) -> list[Coded]:
    """Codes of `utterances`, made once for these tokenizers and each corpus's list."""
    found: list[Coded] = []
    for _, group in groupby(utterances, key=lambda utterance: utterance.audio.parent):
        found += _codes_of(job, list(group), heard)
    return found


def _codes_of(job: Job, utterances: list[Utterance], heard: Callable[[Utterance], Samples]) -> list[Coded]:
    key = hashlib.sha256(heard.__name__.encode())
    for name in (stored.LINGUISTIC, stored.SEMANTIC_FILE):
        key.update((job.weights / name).read_bytes())
    # Not by the files' names alone: those of two corpora are alike.
    key.update(json.dumps([(each.audio.name, each.voice, each.text) for each in utterances]).encode())
    path = job.work / f"codes-{key.hexdigest()[:12]}.npz"
    if job.fabric.is_global_zero and not path.exists():
        coder = Coder.from_weights(job.weights)
        job.work.mkdir(parents=True, exist_ok=True)
        save_codes([coder(heard(utterance)) for utterance in utterances], path)
    job.fabric.barrier()
    return load_codes(path)


STAGES: dict[str, Callable[[Job], None]] = {
    "linguistic": train_linguistic,
    "semantic": train_semantic,
    "speaker": train_speaker,
    "voices": write_voices,
    "vocoder": train_vocoder,
    "flow": train_flow,
    "tts": train_tts,
    "chat": train_chat,
}
"""In the order in which they need each other."""
BY_GRADIENTS = ("vocoder", "flow", "tts", "chat")
"""Stages that learn by gradients alone, which several processes can average."""


def run(stage: str, job: Job) -> None:
    """Run one stage to its end. Raises InputError for an unreadable corpus or an earlier stage missing."""
    before = {
        "flow": ("linguistic", "semantic", "speaker"),
        "tts": ("linguistic", "semantic", "voices"),
        "chat": ("linguistic", "semantic"),
    }
    for needed in before.get(stage, ()):
        if not (job.weights / f"{needed}.safetensors").exists():
            message = f"{job.weights} has no {needed}.safetensors; run the stage {needed} first"
            raise InputError(message, param="weights")
    if job.fabric.world_size > 1 and stage not in BY_GRADIENTS:
        message = f"{stage} is trained by one process; several can train {', '.join(BY_GRADIENTS)}"
        raise InputError(message, param="stage")
    STAGES[stage](job)
