"""vLLM with the plugin computes Step-1: log probabilities within 1e-4 of the plain torch reference.

Proved for 8 and 12 heads (a power of two and not), one and two tensor-parallel ranks, prompts cut into
chunks, prefixes taken from the cache, and prompts and answers mixed in one batch; the same comparison
against ordinary (linear) ALiBi fails, so it can tell.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import VOCABULARY, Step1Reference, prompt_ids, running

pytestmark = pytest.mark.vllm

ANSWER = 6  # tokens
TOLERANCE = 1e-4


def generate(llm: Any, prompts: list[list[int]], **options: Any) -> list[tuple[list[int], torch.Tensor]]:
    """Greedy answers and (tokens, vocabulary) log probabilities."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0, max_tokens=ANSWER, logprobs=VOCABULARY, ignore_eos=True, detokenize=False, **options
    )
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    return [
        (
            list(answer.token_ids),
            torch.tensor([[step[i].logprob for i in range(VOCABULARY)] for step in answer.logprobs]),
        )
        for answer in (output.outputs[0] for output in outputs)
    ]


def distance(reference: Step1Reference, prompt: list[int], ids: list[int], got: torch.Tensor) -> float:
    expected = reference.logprobs([*prompt, *ids])[len(prompt) - 1 : -1]
    return float((expected - got).abs().max())


def assert_same(reference: Step1Reference, prompts: list[list[int]], llm: Any) -> None:
    for prompt, (ids, got) in zip(prompts, generate(llm, prompts), strict=True):
        assert distance(reference, prompt, ids, got) < TOLERANCE
        assert ids == reference.greedy(prompt, ANSWER)


@pytest.fixture(scope="module")
def engine(step1_folder: Callable[[int, int], Path]) -> Iterator[tuple[Any, Step1Reference]]:
    """12 heads in 4 groups; chunks of at most 48 tokens; prefix cache on."""
    folder = step1_folder(12, 4)
    with running(folder, max_num_batched_tokens=48, enable_prefix_caching=True) as llm:
        yield llm, Step1Reference(folder)


def test_short_and_chunked_prompts_in_one_batch(engine: tuple[Any, Step1Reference]) -> None:
    llm, reference = engine
    assert_same(reference, [prompt_ids(n, seed=n) for n in (1, 2, 31, 32, 33, 70, 200, 310)], llm)


def test_prefix_from_the_cache(engine: tuple[Any, Step1Reference]) -> None:
    llm, reference = engine
    prefix = prompt_ids(100, seed=1000)
    prompts = [prefix + prompt_ids(n, seed=2000 + n) for n in (1, 5, 40)]
    assert_same(reference, prompts[:1], llm)
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1, detokenize=False)
    (again,) = llm.generate([{"prompt_token_ids": prompts[1]}], params, use_tqdm=False)
    assert again.num_cached_tokens == 96  # three blocks of 32
    assert_same(reference, prompts, llm)


def test_linear_alibi_would_be_noticed(
    engine: tuple[Any, Step1Reference], step1_folder: Callable[[int, int], Path]
) -> None:
    llm, _ = engine
    linear = Step1Reference(step1_folder(12, 4), power=1.0)
    prompt = prompt_ids(70, seed=70)
    ((ids, got),) = generate(llm, [prompt])
    assert distance(linear, prompt, ids, got) > 100 * TOLERANCE


def test_repetition_rule_is_applied_where_asked_for(engine: tuple[Any, Step1Reference]) -> None:
    from vllm import SamplingParams

    llm, reference = engine
    prompt, allowed = prompt_ids(20, seed=20), [200, 201]
    params = [
        SamplingParams(
            temperature=0,
            max_tokens=30,
            allowed_token_ids=allowed,
            ignore_eos=True,
            detokenize=False,
            extra_args=args,
        )
        for args in ({"repetition_aware": True}, None)
    ]
    outputs = llm.generate([{"prompt_token_ids": prompt}] * 2, params, use_tqdm=False)
    with_rule, without = (list(output.outputs[0].token_ids) for output in outputs)
    assert with_rule == greedy_of(reference, prompt, 30, allowed, rule=True)
    assert without == greedy_of(reference, prompt, 30, allowed, rule=False)
    assert with_rule != without


def greedy_of(
    reference: Step1Reference, prompt: list[int], count: int, allowed: list[int], rule: bool
) -> list[int]:
    """Greedy answer over the allowed ids; the rule is applied to the whole history."""
    ids = list(prompt)
    for _ in range(count):
        scores = reference.logprobs(ids)[-1]
        window = ids[-10:]
        choice = [
            i for i in allowed if not (rule and len(window) == 10 and i == ids[-1] and window.count(i) > 1)
        ]
        ids.append(max(choice, key=lambda i: float(scores[i])))
    return ids[len(prompt) :]


def test_bad_requests_are_refused_and_the_engine_lives(engine: tuple[Any, Step1Reference]) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    llm, reference = engine
    good = SamplingParams(max_tokens=1, detokenize=False)
    for bad in (VOCABULARY, -1):
        with pytest.raises(VLLMValidationError, match=f"Token id {bad} is out of vocabulary"):
            llm.generate([{"prompt_token_ids": [5, bad]}], good, use_tqdm=False)
    odd = SamplingParams(max_tokens=1, detokenize=False, extra_args={"repetition_aware": "often"})
    with pytest.raises(VLLMValidationError, match="repetition_aware must be true or false, not 'often'"):
        llm.generate([{"prompt_token_ids": [5, 6]}], odd, use_tqdm=False)
    assert_same(reference, [prompt_ids(9, seed=9)], llm)


def test_eight_heads(step1_folder: Callable[[int, int], Path]) -> None:
    folder = step1_folder(8, 2)
    with running(folder) as llm:
        assert_same(Step1Reference(folder), [prompt_ids(n, seed=n) for n in (3, 64, 150)], llm)
        params = llm.llm_engine.vllm_config.model_config
        assert params.logits_processors == [
            "stepaudio_vllm.audio_only:AudioOnly",
            "stepaudio_vllm.repetition:RepetitionAware",
        ]


def test_two_tensor_parallel_ranks(
    step1_folder: Callable[[int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # vLLM binds each rank to a NUMA node of its own, and most machines that run tests have one.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    folder = step1_folder(12, 4)
    with running(folder, tensor_parallel_size=2, max_num_batched_tokens=64) as llm:
        assert_same(Step1Reference(folder), [prompt_ids(n, seed=n) for n in (2, 90)], llm)
