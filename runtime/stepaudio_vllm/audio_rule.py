"""The rule that an answer is speech: audio codes and the end of the turn, nothing else; how a request asks.

A request asks with `extra_args={"audio_from": id of code 0}` (over HTTP `"vllm_xargs"`). vLLM's own
`allowed_token_ids` would do on a CPU; on CUDA its model runner holds at most 1,024 of them a request, and one
that brings more ends the engine for everybody. vLLM's front end imports this to check requests: no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from vllm.sampling_params import SamplingParams

ARGUMENT = "audio_from"
CODES = 5120
END_OF_TURN = 3
NOT_ASKED = -1
MOST_IDS = 1024  # of `allowed_token_ids` and of `logit_bias` that vLLM's model runner V2 holds


def audio_from(params: "SamplingParams") -> int:
    """Id of code 0, NOT_ASKED where the request does not ask. Raises ValueError where it is no id."""
    value = (params.extra_args or {}).get(ARGUMENT, NOT_ASKED)
    if isinstance(value, float) and value.is_integer():  # as JSON numbers may come
        value = int(value)
    if type(value) is not int or value < NOT_ASKED:
        raise ValueError(f"{ARGUMENT} must be the id of the first audio code, not {value!r}")
    return value


def check_room(params: "SamplingParams") -> None:
    """Raise ValueError for more ids than model runner V2 holds: it would end the engine over them."""
    for name, ids in (("allowed_token_ids", params.allowed_token_ids), ("logit_bias", params.logit_bias)):
        if len(ids or ()) > MOST_IDS:
            raise ValueError(f"{name} has {len(ids or ())} ids, at most {MOST_IDS} are possible")


def forbidden(first: "torch.Tensor", vocabulary: int) -> "torch.Tensor":
    """`first` (rows), ids of code 0 or NOT_ASKED -> (rows, vocabulary), true where no token may come."""
    import torch

    ids, first = torch.arange(vocabulary, device=first.device), first[:, None]
    speech = ((ids >= first) & (ids < first + CODES)) | (ids == END_OF_TURN)
    return ~speech & (first > NOT_ASKED)
