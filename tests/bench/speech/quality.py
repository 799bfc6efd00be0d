"""What streaming costs in exactness, on a model folder (nano, or any other): the flow's hops against the
whole utterance, over context, look-ahead and prompt mode; how much the wave bends where hops meet; windowed
semantic ids against the whole file's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.audio.resample import resample
from stepaudio_runtime.contract import Component
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.pods.loading import load_tokenizer, load_voice_box
from stepaudio_runtime.settings import EngineSettings, PodSettings
from stepaudio_runtime.tokenizer.dual import RATE, DualTokenizer
from stepaudio_runtime.tokenizer.windows import Windows, windowed
from stepaudio_runtime.tts.decoder import Prompt, SpeechDecoder
from stepaudio_runtime.tts.hops import HopPlan, PromptMode
from tests.parity.decoder.test_stream import bends

CONTEXTS = (0, 10, 25, 50, 100, 150)  # codes
LOOK_AHEADS = (0, 5, 10, 20, 40)
DEFAULT = HopPlan()
SHORT = HopPlan(largest=DEFAULT.first)  # many borders
WINDOWS_S = (0.48, 0.96, 1.92, 3.84, 7.68, 15.36)
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps for a while under the old tree.",
    "She had not expected the answer, but when it came she wrote it down and read it twice before she left.",
    "Bring three apples, two pears and a loaf of bread, if the shop at the corner is still open tonight.",
)


class Recording(SpeechDecoder):
    """Keeps the mel and the wave of every hop that it makes."""

    made: list[Tensor]
    waves: list[NDArray[np.float32]]

    def _mels(self, *asked: Any) -> dict[int, Tensor]:
        mels = super()._mels(*asked)
        self.made += mels.values()
        return mels

    def mel(self, codes: Sequence[int], prompt: Prompt, plan: HopPlan) -> Tensor:
        """Mel (80, frames) of `codes` in hops of `plan`."""
        self.made, self.waves = [], []
        stream = self.open(prompt, 1, plan)
        stream.push(codes, last=True)
        while stream.ready:
            self.waves += self.advance([stream])
        return torch.cat(self.made, dim=1)


def hops(models: Path) -> dict[str, Any]:
    """Relative rms of the mel's difference to offline: over context, over look-ahead, by prompt mode."""
    box = load_voice_box(PodSettings(Component.TTS, models, threads=2), EngineSettings())
    plain = box.decoders[None]
    decoder = Recording(plain.flow, plain.vocoder, plain.device)
    prompt = box.voices.get(None).prompt
    tokenizer = load_tokenizer(
        PodSettings(Component.TOKENIZER, models, threads=2), EngineSettings(), PodState("bench")
    )
    spoken = [tokenizer.encode(wave, RATE).codes for wave in recordings()]
    whole = [decoder.mel(codes, prompt, HopPlan.whole()) for codes in spoken]

    def distance(plan: HopPlan) -> float:
        return float(
            np.mean(
                [
                    relative_rms(decoder.mel(codes, prompt, plan), mel)
                    for codes, mel in zip(spoken, whole, strict=True)
                ]
            )
        )

    def border() -> float:
        found = []
        for codes in spoken:
            decoder.mel(codes, prompt, SHORT)
            found.append(bends(decoder.waves))
        return float(np.mean([at for at, _ in found]) / np.mean([elsewhere for _, elsewhere in found]))

    sizes = {"first": DEFAULT.first, "largest": DEFAULT.largest}
    return {
        "seconds": [len(codes) / 41.67 for codes in spoken],
        "prompt_codes": len(prompt.codes),
        "border": border(),
        "context": {
            n: distance(HopPlan(**sizes, context=n, look_ahead=DEFAULT.look_ahead)) for n in CONTEXTS
        },
        "look_ahead": {
            n: distance(HopPlan(**sizes, context=DEFAULT.context, look_ahead=n)) for n in LOOK_AHEADS
        },
        "prompt": {
            mode.value: {
                "distance": distance(HopPlan(prompt=mode)),
                "codes_over_offline": cost(HopPlan(prompt=mode), prompt, len(spoken[0])),
            }
            for mode in PromptMode
        },
    }


def cost(plan: HopPlan, prompt: Prompt, count: int) -> float:
    """Codes that the flow computes, over those of one hop."""
    found, start = [], 0
    while (hop := plan.next_hop(len(found), start, count, last=True)) is not None:
        found.append(hop)
        start = hop.stop
    return plan.cost(found, len(prompt.codes))


def windows(models: Path) -> dict[str, Any]:
    """Share of semantic ids that are those of the whole file, by the length of window, two hops each."""
    tokenizer = load_tokenizer(
        PodSettings(Component.TOKENIZER, models, threads=2), EngineSettings(), PodState("bench")
    )
    waves = recordings()
    return {
        "seconds": [len(wave) / RATE for wave in waves],
        "agreement": {
            length_s: float(np.mean([agreement(tokenizer, wave, length_s) for wave in waves]))
            for length_s in WINDOWS_S
        },
    }


def agreement(tokenizer: DualTokenizer, wave: NDArray[np.float32], length_s: float) -> float:
    """Of one wave at 16 kHz."""
    [whole] = tokenizer.semantic.batch([wave])
    pieces = windowed(wave, Windows.seconds(length_s, length_s / 2))
    parts = tokenizer.semantic.batch([piece.wave for piece in pieces])
    ids = np.concatenate([part.ids[piece.skip :] for part, piece in zip(parts, pieces, strict=True)])
    return float(np.mean(ids == whole.ids))


def recordings() -> list[NDArray[np.float32]]:
    """What the data engine's teacher says, at 16 kHz."""
    said = [Espeak().speak(SpeechRequest(text, "en-us")) for text in TEXTS]
    return [resample(wave.samples, wave.rate, RATE) for wave in said]


def relative_rms(found: Tensor, expected: Tensor) -> float:
    """Of the difference, over the spread of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.std())
