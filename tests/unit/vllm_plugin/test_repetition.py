"""The repetition-aware rule equals the golden vectors, for model runner V1 and for V2 with draft tokens."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

from stepaudio_vllm.repetition import RepetitionAware
from stepaudio_vllm.repetition_v2 import RepetitionAwareV2

GOLDEN = Path(__file__).parents[2] / "parity" / "golden" / "audio_utils.safetensors"
ASKS = SamplingParams(extra_args={"repetition_aware": True})
SILENT = SamplingParams()


def golden() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(ids, scores, expected scores) of each case."""
    with safe_open(GOLDEN, "pt") as file:
        numbers = sorted({key.split(".")[1] for key in file.keys() if key.startswith("repetition.")})  # noqa: SIM118
        return [
            tuple(file.get_tensor(f"repetition.{number}.{name}") for name in ("ids", "scores", "out"))
            for number in numbers
        ]


def v1_processor() -> RepetitionAware:
    return RepetitionAware(None, torch.device("cpu"), False)  # type: ignore[arg-type]


def v1_batch(ids: torch.Tensor, prompt: int, params: SamplingParams = ASKS) -> BatchUpdate:
    rows = [(row, params, line[:prompt], line[prompt:]) for row, line in enumerate(ids.tolist())]
    return BatchUpdate(batch_size=len(rows), removed=[], added=rows, moved=[])


@pytest.mark.parametrize("prompt", [0, 1, 5, 9])
@pytest.mark.parametrize("case", golden(), ids=lambda case: f"{case[0].shape[1]}-ids")
def test_v1_equals_the_golden_vectors(case: tuple[torch.Tensor, ...], prompt: int) -> None:
    ids, scores, expected = case
    processor = v1_processor()
    processor.update_state(v1_batch(ids, prompt))
    assert torch.equal(processor.apply(scores.clone()), expected)


def test_golden_cases_show_the_rule_at_work() -> None:
    assert any(torch.isinf(expected).any() for _, _, expected in golden())


def test_v1_leaves_other_requests_alone_and_follows_moves() -> None:
    ids = torch.tensor([[7] * 10, list(range(10)), [7] * 10])
    processor = v1_processor()
    processor.update_state(v1_batch(ids, 0, SILENT))
    assert torch.equal(processor.apply(torch.zeros(3, 20)), torch.zeros(3, 20))
    added = [(0, SILENT, [], [7] * 10), (1, ASKS, [], list(range(10))), (2, ASKS, [], [7] * 10)]
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))
    swap = [(0, 2, MoveDirectionality.SWAP)]
    processor.update_state(BatchUpdate(batch_size=3, removed=[], added=[], moved=swap))
    expected = torch.zeros(3, 20)
    expected[0, 7] = float("-inf")
    assert torch.equal(processor.apply(torch.zeros(3, 20)), expected)
    processor.update_state(
        BatchUpdate(batch_size=2, removed=[0], added=[], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)])
    )
    assert torch.equal(processor.apply(torch.zeros(2, 20)), torch.zeros(2, 20))


def test_v1_sees_tokens_as_they_are_generated() -> None:
    answer: list[int] = []
    processor = v1_processor()
    processor.update_state(
        BatchUpdate(batch_size=1, removed=[], added=[(0, ASKS, [1, 2, 3, 4, 5], answer)], moved=[])
    )
    forbidden = []
    for token in (6, 6, 7, 8, 9, 9, 3):
        answer.append(token)
        processor.update_state(None)
        forbidden.append(torch.isinf(processor.apply(torch.zeros(1, 20))).nonzero()[:, 1].tolist())
    # Ten ids exist from the fifth token on; the 3 repeats the one in the prompt.
    assert forbidden == [[], [], [], [], [], [9], [3]]


def request_states(history: torch.Tensor, room: int = 64) -> LogitsProcRequestState:
    """Of the model runner V2 with (slots, n) committed ids."""
    tokens = torch.zeros(history.shape[0], room, dtype=torch.int32)
    tokens[:, : history.shape[1]] = history
    return LogitsProcRequestState(
        device=torch.device("cpu"),
        max_num_reqs=history.shape[0],
        vocab_size=40,
        all_token_ids=SimpleNamespace(gpu=tokens),  # type: ignore[arg-type]
        prompt_len=None,  # type: ignore[arg-type]
        prefill_len=None,  # type: ignore[arg-type]
        total_len=None,  # type: ignore[arg-type]
    )


def v2(history: torch.Tensor, wants: list[bool]) -> RepetitionAwareV2:
    """A processor over (slots, n) committed ids."""
    processor = RepetitionAwareV2(None, request_states(history))  # type: ignore[arg-type]
    for slot, want in enumerate(wants):
        assert processor.add_request(slot, ASKS if want else SILENT) is want
    processor.apply_staged_writes()
    return processor


def context(slots: list[int], inputs: list[list[int]], last: int) -> LogitsContext:
    """Rows of requests in `slots`; inputs: last committed id and drafts of each; last: its position."""
    flat: dict[str, list[int]] = {"slot": [], "local": [], "id": [], "pos": []}
    for slot, line in zip(slots, inputs, strict=True):
        for local, token in enumerate(line):
            for name, value in (("slot", slot), ("local", local), ("id", token), ("pos", last + local)):
                flat[name].append(value)
    tensor: Any = {name: torch.tensor(values, dtype=torch.int32) for name, values in flat.items()}
    return LogitsContext(
        expanded_idx_mapping=tensor["slot"],
        idx_mapping=torch.tensor(slots),
        idx_mapping_np=np.array(slots, dtype=np.int32),
        expanded_local_pos=tensor["local"],
        input_ids=tensor["id"],
        pos=tensor["pos"],
        seq_lens_upper_bound_np=np.array([last + 1] * len(slots)),
    )


@pytest.mark.parametrize("case", golden(), ids=lambda case: f"{case[0].shape[1]}-ids")
def test_v2_equals_the_golden_vectors(case: tuple[torch.Tensor, ...]) -> None:
    ids, scores, expected = case
    processor = v2(ids, [True] * len(ids))
    order = [5, 0, 7, 2, 1, 3, 6, 4]
    ctx = context(order, [[int(ids[slot, -1])] for slot in order], ids.shape[1] - 1)
    assert torch.equal(processor.apply(scores[order].clone(), ctx), expected[order])


@pytest.mark.parametrize("drafts", [0, 1, 3, 12])
def test_v2_counts_draft_tokens_like_committed_ones(drafts: int) -> None:
    random = torch.Generator().manual_seed(drafts)
    committed, total = 12, 12 + drafts
    ids = torch.randint(0, 12, (3, total), generator=random)
    processor = v2(ids[:, :committed], [True, False, True])
    inputs = [ids[slot, committed - 1 :].tolist() for slot in (2, 1, 0)]
    got = processor.apply(torch.zeros(3 * (drafts + 1), 40), context([2, 1, 0], inputs, committed - 1))
    expected = torch.zeros_like(got)
    for place, slot in enumerate((2, 1, 0)):
        for local in range(drafts + 1):
            window = ids[slot, : committed + local].tolist()[-10:]
            if slot != 1 and window.count(window[-1]) > 1:
                expected[place * (drafts + 1) + local, window[-1]] = float("-inf")
    assert torch.equal(got, expected)


def test_v2_slot_of_a_new_request_forgets_the_old_one() -> None:
    processor = v2(torch.full((1, 10), 7), [True])
    ctx = context([0], [[7]], 9)
    assert torch.isinf(processor.apply(torch.zeros(1, 40), ctx)[0, 7])
    processor.add_request(0, SILENT)
    processor.apply_staged_writes()
    assert torch.equal(processor.apply(torch.zeros(1, 40), ctx), torch.zeros(1, 40))


@pytest.mark.parametrize("value", ["yes", 7, None, [True]])
def test_a_value_that_is_no_boolean_is_refused(value: object) -> None:
    params = SamplingParams(extra_args={"repetition_aware": value})
    for processor in (RepetitionAware, RepetitionAwareV2):
        with pytest.raises(ValueError, match="repetition_aware must be true or false"):
            processor.validate_params(params)
