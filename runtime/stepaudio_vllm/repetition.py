"""The repetition-aware rule as a logits processor for vLLM's model runner V1 (the one on CPUs)."""

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from stepaudio_vllm.repetition_rule import WINDOW, repeats, wants_repetition_rule

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams


class _Tail:
    """The end of one request: the prompt's last tokens and vLLM's own, growing, list of its answer."""

    def __init__(self, prompt: list[int] | None, answer: list[int]) -> None:
        self.prompt_tail = (prompt or [])[-WINDOW:]
        self.answer = answer

    def window(self) -> list[int] | None:
        """The last WINDOW ids, None while there are fewer."""
        recent = self.answer[-WINDOW:]
        if len(recent) < WINDOW:
            recent = [*self.prompt_tail, *recent][-WINDOW:]
        return recent if len(recent) == WINDOW else None


class RepetitionAware(LogitsProcessor):
    """The rule for every request of a batch that asks for it; one vectorised update a step."""

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raise ValueError (HTTP 400) where `repetition_aware` is no boolean."""
        wants_repetition_rule(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        self._tails: dict[int, _Tail] = {}  # by row of the batch

    def is_argmax_invariant(self) -> bool:
        """False: the rule may forbid the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that joined, left or moved within the batch."""
        process_dict_updates(
            self._tails,
            batch_update,
            lambda params, prompt, answer: _Tail(prompt, answer) if wants_repetition_rule(params) else None,
        )

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) logits, changed in place."""
        full = [(row, ids) for row, tail in self._tails.items() if (ids := tail.window()) is not None]
        if not full:
            return logits
        rows = torch.tensor([row for row, _ in full], device=logits.device)
        window = torch.tensor([ids for _, ids in full], device=logits.device)
        hit = repeats(window)
        logits[rows[hit], window[hit, -1]] = float("-inf")
        return logits
