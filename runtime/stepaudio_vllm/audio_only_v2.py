"""Speech alone, for vLLM's model runner V2 (the default on CUDA); all on the device. See `audio_rule`."""

from typing import TYPE_CHECKING

from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from stepaudio_vllm.audio_rule import NOT_ASKED, audio_from, check_room, forbidden

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams


class AudioOnlyV2(LogitsProcessor):
    """The rule for every row whose request asks for it."""

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raise ValueError (HTTP 400) where `audio_from` is no id, or for more ids than the runner holds."""
        audio_from(sampling_params)
        check_room(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        import torch

        self._first = torch.full((req_states.max_num_reqs,), NOT_ASKED)  # by slot, on the host
        self._first_device = self._first.to(req_states.device, copy=True)
        self._stale = False  # whether the device's copy is behind the host's

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """Remember where the audio ids of the request in slot `req_idx` begin."""
        first = audio_from(sampling_params)
        if int(self._first[req_idx]) != first:
            self._first[req_idx] = first
            self._stale = True
        return first != NOT_ASKED

    def apply_staged_writes(self) -> None:
        """Bring the device's copy up to date."""
        if self._stale:
            self._first_device.copy_(self._first)
            self._stale = False

    def apply(self, logits: "torch.Tensor", ctx: LogitsContext) -> "torch.Tensor":
        """(rows, vocabulary) logits, changed in place."""
        import torch

        if not (self._first[torch.from_numpy(ctx.idx_mapping_np).long()] > NOT_ASKED).any():
            return logits
        first = self._first_device[ctx.expanded_idx_mapping.long()]
        return logits.masked_fill_(forbidden(first, logits.shape[1]), float("-inf"))
