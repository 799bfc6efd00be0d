"""Where a request asks for speech alone, audio codes and the end of the turn may come and nothing else, for
model runner V1 and V2; other requests of the batch are left alone.
"""

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from stepaudio_vllm.audio_only import AudioOnly
from stepaudio_vllm.audio_only_v2 import AudioOnlyV2
from tests.unit.vllm_plugin.test_repetition import context, request_states

VOCABULARY, FIRST = 5150, 20
ASKS = SamplingParams(extra_args={"audio_from": FIRST})
SILENT = SamplingParams()


def speech() -> list[int]:
    return [3, *range(FIRST, FIRST + 5120)]


def left(logits: torch.Tensor) -> list[list[int]]:
    """By row, the ids that may come."""
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits]


def test_v1_follows_who_asks() -> None:
    processor = AudioOnly(None, torch.device("cpu"), False)  # type: ignore[arg-type]
    everything, zeros = list(range(VOCABULARY)), torch.zeros(3, VOCABULARY)
    assert left(processor.apply(zeros.clone())) == [everything] * 3
    added = [(0, SILENT, [1], []), (1, ASKS, [1], []), (2, SILENT, [1], [])]
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))
    assert left(processor.apply(zeros.clone())) == [everything, speech(), everything]
    swap = [(0, 1, MoveDirectionality.SWAP)]
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=[], moved=swap))
    assert left(processor.apply(zeros.clone())) == [speech(), everything, everything]
    processor.update_state(BatchUpdate(batch_size=2, removed=[0], added=[], moved=[]))
    assert left(processor.apply(zeros.clone())) == [everything] * 3


def test_v2_follows_who_asks_draft_tokens_too() -> None:
    processor = AudioOnlyV2(None, request_states(torch.zeros(3, 12)))  # type: ignore[arg-type]
    assert [processor.add_request(slot, params) for slot, params in enumerate((ASKS, SILENT, ASKS))] == [
        True,
        False,
        True,
    ]
    processor.apply_staged_writes()
    everything = list(range(VOCABULARY))
    rows = context([2, 1, 0], [[7, 8], [7, 8], [7, 8]], 9)
    got = left(processor.apply(torch.zeros(6, VOCABULARY), rows))
    assert got == [speech()] * 2 + [everything] * 2 + [speech()] * 2
    processor.add_request(0, SILENT)
    processor.apply_staged_writes()
    assert left(processor.apply(torch.zeros(1, VOCABULARY), context([0], [[7]], 9))) == [everything]


@pytest.mark.parametrize("value", ["65536", -2, 1.5, None, True, [7]])
def test_what_is_no_id_is_refused(value: object) -> None:
    params = SamplingParams(extra_args={"audio_from": value})
    for processor in (AudioOnly, AudioOnlyV2):
        with pytest.raises(ValueError, match="audio_from must be the id of the first audio code, not"):
            processor.validate_params(params)


def test_what_the_runner_on_cuda_cannot_hold_is_refused() -> None:
    for params in (
        SamplingParams(allowed_token_ids=list(range(1025))),
        SamplingParams(logit_bias=dict.fromkeys(range(1025), 0.5)),
    ):
        with pytest.raises(ValueError, match="1025 ids, at most 1024 are possible"):
            AudioOnlyV2.validate_params(params)
        AudioOnly.validate_params(params)
    AudioOnlyV2.validate_params(SamplingParams(allowed_token_ids=list(range(1024))))
