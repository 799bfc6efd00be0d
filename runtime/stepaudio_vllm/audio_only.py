"""Speech alone, as a logits processor for vLLM's model runner V1 (the one on CPUs)."""

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from stepaudio_vllm.audio_rule import NOT_ASKED, audio_from, forbidden

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams


class AudioOnly(LogitsProcessor):
    """The rule of `audio_rule` for every request of a batch that asks for it."""

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raise ValueError (HTTP 400) where `audio_from` is no id."""
        audio_from(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self._first: dict[int, int] = {}  # by row of the batch

    def is_argmax_invariant(self) -> bool:
        """False: the rule may forbid the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that joined, left or moved within the batch."""
        process_dict_updates(self._first, batch_update, _asked)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) logits, changed in place."""
        if not self._first:
            return logits
        first = torch.full((len(logits),), NOT_ASKED)
        for row, id_ in self._first.items():
            first[row] = id_
        return logits.masked_fill_(forbidden(first.to(logits.device), logits.shape[1]), float("-inf"))


def _asked(params: "SamplingParams", _prompt: list[int] | None, _answer: list[int]) -> int | None:
    first = audio_from(params)
    return None if first == NOT_ASKED else first
