"""The repetition-aware rule of Step-Audio's TTS and how a request asks for it.

Rule: over the last 10 tokens of prompt and answer (once there are 10), a last token that stands there more
than once may not come again: its logit becomes minus infinity. A request asks for it with
`extra_args={"repetition_aware": True}` (over HTTP `"vllm_xargs": {"repetition_aware": 1}`).
vLLM's front end imports this to check requests, so it needs no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from vllm.sampling_params import SamplingParams

ARGUMENT = "repetition_aware"
WINDOW = 10  # tokens


def wants_repetition_rule(params: "SamplingParams") -> bool:
    """Whether the request asks for the rule. Raises ValueError where its value is no boolean (or 0, 1)."""
    value = (params.extra_args or {}).get(ARGUMENT, False)
    if value not in (False, True):
        raise ValueError(f"{ARGUMENT} must be true or false, not {value!r}")
    return bool(value)


def repeats(window: "torch.Tensor") -> "torch.Tensor":
    """(n, WINDOW) ids, newest last -> (n,) whether the newest stands there more than once."""
    return (window[:, :-1] == window[:, -1:]).any(dim=1)
