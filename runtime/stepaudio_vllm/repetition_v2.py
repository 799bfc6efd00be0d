"""The repetition-aware rule for vLLM's model runner V2 (the default on CUDA).

Everything stays on the device: the window is read from the runner's own token history, so that a step
neither synchronises nor copies. See `repetition_rule` for the rule.
"""

from typing import TYPE_CHECKING

from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from stepaudio_vllm.repetition_rule import WINDOW, repeats, wants_repetition_rule

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams


class RepetitionAwareV2(LogitsProcessor):
    """The rule for every row whose request asks for it, draft tokens of speculative decoding included."""

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Raise ValueError (HTTP 400) where `repetition_aware` is no boolean."""
        wants_repetition_rule(sampling_params)

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        import torch

        self._history = req_states.all_token_ids  # (slots, max_model_len) committed ids
        self._wanted = torch.zeros(req_states.max_num_reqs, dtype=torch.bool)  # by slot, on the host
        self._wanted_device = self._wanted.to(req_states.device, copy=True)
        self._stale = False  # whether the device's copy is behind the host's
        self._offsets = torch.arange(1 - WINDOW, 1, device=req_states.device)

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """Remember whether the request in slot `req_idx` wants the rule."""
        wanted = wants_repetition_rule(sampling_params)
        if bool(self._wanted[req_idx]) != wanted:
            self._wanted[req_idx] = wanted
            self._stale = True
        return wanted

    def apply_staged_writes(self) -> None:
        """Bring the device's copy up to date."""
        if self._stale:
            self._wanted_device.copy_(self._wanted)
            self._stale = False

    def apply(self, logits: "torch.Tensor", ctx: LogitsContext) -> "torch.Tensor":
        """(rows, vocabulary) logits, changed in place."""
        import torch

        if not self._wanted[torch.from_numpy(ctx.idx_mapping_np).long()].any():
            return logits
        slots = ctx.expanded_idx_mapping.long()
        rows = torch.arange(slots.shape[0], device=logits.device)
        position = ctx.pos.long()[:, None] + self._offsets  # (rows, WINDOW), newest last
        committed = self._history.gpu[slots[:, None], position.clamp(min=0)].long()
        # A row's own drafts are not in the history yet; they are the inputs of the rows before it.
        drafts_back = ctx.expanded_local_pos.long()[:, None] + self._offsets
        fed = ctx.input_ids[(rows[:, None] + self._offsets).clamp(min=0)].long()
        window = torch.where(drafts_back > 0, fed, committed)
        hit = self._wanted_device[slots] & (position[:, 0] >= 0) & repeats(window)
        newest = window[:, -1:]
        # A scatter with an unchanged value elsewhere: no boolean indexing, so no synchronisation.
        kept = logits.gather(1, newest)
        logits.scatter_(1, newest, kept.masked_fill(hit[:, None], float("-inf")))
        return logits
