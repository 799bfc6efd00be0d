"""Step-1 in vLLM on a GPU against the plain torch reference: the section `parity` of `vllm_on_device`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

FLOAT32_ALLOWS = 1e-4  # of a log probability


def parity() -> dict[str, Any]:
    """By way of computing: the largest difference of a log probability, and of how many answers."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    ways = {
        "8 heads": (8, 2, {}),
        "12 heads, prompts in chunks of 48": (12, 4, {"max_num_batched_tokens": 48}),
        "12 heads, captured graphs": (12, 4, {"enforce_eager": False}),
        "12 heads, bfloat16": (12, 4, {"dtype": "bfloat16"}),
    }
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # as a pod in float32 has it
    with tempfile.TemporaryDirectory() as folder:
        return {name: _parity(Path(folder, str(heads)), heads, *way) for name, (heads, *way) in ways.items()}


def _parity(folder: Path, heads: int, groups: int, options: dict[str, Any]) -> dict[str, Any]:
    from tests.contract.vllm_step1.conftest import Step1Reference, prompt_ids, running, write_step1
    from tests.contract.vllm_step1.test_engine_matches_reference import ANSWER, distance, generate

    reference = Step1Reference(write_step1(folder, heads, groups))
    prefix = prompt_ids(100, seed=1000)
    prompts = [prompt_ids(n, seed=n) for n in (1, 2, 31, 33, 70, 200, 310)]
    with running(folder, gpu_memory_utilization=0.1, enable_prefix_caching=True, **options) as llm:
        generate(llm, [prefix])
        prompts += [prefix + prompt_ids(n, seed=2000 + n) for n in (5, 40)]  # from the cache
        answers = generate(llm, prompts)
        config = llm.llm_engine.vllm_config
        rules = _rule_is_kept(llm, reference, prompt_ids(20, seed=20))
    off = [distance(reference, prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    same = [
        ids == reference.greedy(prompt, ANSWER) for prompt, (ids, _) in zip(prompts, answers, strict=True)
    ]
    exact = config.model_config.dtype.itemsize == 4
    return {
        "out of bounds": exact and (max(off) > FLOAT32_ALLOWS or not all(same)),
        "backend": config.attention_config.backend.name,
        "model_runner_v2": bool(config.use_v2_model_runner),
        "processors": config.model_config.logits_processors,
        "largest_difference": max(off),
        "greedy_answers_equal": f"{sum(same)} of {len(same)}",
        "repetition_rule_as_computed_outside": rules,
    }


def _rule_is_kept(llm: Any, reference: Any, prompt: list[int]) -> bool:
    from vllm import SamplingParams

    from tests.contract.vllm_step1.test_engine_matches_reference import greedy_of

    allowed = [200, 201]
    params = SamplingParams(
        temperature=0,
        max_tokens=30,
        allowed_token_ids=allowed,
        ignore_eos=True,
        detokenize=False,
        extra_args={"repetition_aware": True},
    )
    [output] = llm.generate([{"prompt_token_ids": prompt}], params, use_tqdm=False)
    return list(output.outputs[0].token_ids) == greedy_of(reference, prompt, 30, allowed, rule=True)
