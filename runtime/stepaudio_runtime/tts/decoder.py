"""Codes to wave: one flow and one vocoder, a voice, a seed. Blocking; runs in the pod's worker thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.errors import OutputError
from stepaudio_runtime.models.flow import Flow, start_noise
from stepaudio_runtime.models.hift import Hift


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the flow is told of a voice: codes (n), mel (1, frames, 80), speaker embedding (1, 192)."""

    codes: tuple[int, ...]
    mel: Tensor
    embedding: Tensor


class SpeechDecoder:
    """A flow and a vocoder on `device`."""

    def __init__(self, flow: Flow, vocoder: Hift, device: torch.device) -> None:
        self.flow = flow.to(device).eval()
        self.vocoder = vocoder.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def decode(
        self, codes: Sequence[int], prompt: Prompt, seed: int, on_step: Callable[[], None] = lambda: None
    ) -> NDArray[np.float32]:
        """Speech (N,) at 22,050 Hz, N = 256 times the mel frames of `codes`.

        The same seed gives the same samples on the same device. `on_step` is called between the solver's
        steps and may raise to stop. Raises InputError for codes that the flow does not know, OutputError
        where the models give no numbers.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        condition = self.flow.prepare(
            self._row(codes),
            self._row(prompt.codes),
            prompt.mel.to(self.device),
            prompt.embedding.to(self.device),
        )
        mel = start_noise(self.flow.config, condition.frames, generator)
        for step in self.flow.decoder.steps(mel, condition):
            mel = step.x_next
            on_step()
        mel = mel[:, :, condition.prompt_frames :]
        wave: NDArray[np.float32] = (
            self.vocoder(mel, self.vocoder.random(mel.shape[2], generator)).squeeze(0).cpu().numpy()
        )
        if not np.isfinite(wave).all():
            raise OutputError("the speech decoder gave samples that are not finite")
        return wave

    def _row(self, codes: Sequence[int]) -> Tensor:
        return torch.tensor([list(codes)], dtype=torch.int64, device=self.device)


def pcm16(wave: NDArray[np.float32]) -> bytes:
    """Samples in [-1, 1] as little-endian signed 16 bit."""
    return (np.clip(wave, -1, 1) * 32767).round().astype("<i2").tobytes()
