"""vLLM with the plugin on a GPU: `python -m tests.gpu.vllm_on_device [SECTION...]`.

    parity   log probabilities (in float32 within 1e-4) and greedy answers against the plain torch reference
    memory   what vLLM reports of the 3B speech model, beside the operator's estimate (bf16, FP8)
    speed    its ids a second by requests together, with and without the rules of speech
    together language model, flow and vocoder on one card: first audio and real-time factor by streams
    faults   memory that does not suffice, caused: the words in which a pod would end
    nvml     what the driver's library says of the card

Run from the repository's root with `PYTHONPATH=runtime:operator:.` where vLLM 0.32 is; weights are random and
made there. Every section, or part of one, has a process of its own; prints one JSON object, status 1 where a
section failed or is out of its bounds.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.gpu.vllm_parity import parity
from tests.gpu.vllm_shape import OFFSET, PROMPT, UTILIZATION, engine_options, mib, used_mib
from tests.gpu.vllm_together import together

LIMIT_S = 240.0
"""Of one process, its imports and vLLM's start among them."""


# --- memory -----------------------------------------------------------------------------------------


def memory() -> dict[str, Any]:
    """By quantisation: vLLM's own terms in MiB, and the estimate's."""
    return {name: run_section("memory_of", name) for name in ("bf16", "FP8")}


def memory_of(quantization: str) -> dict[str, Any]:
    """Of one engine."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the worker's own figures are looked at
    import torch
    from vllm import LLM

    from stepaudio_operator.gpus import vram
    from stepaudio_operator.presets import STEP_AUDIO

    method = "fp8_per_tensor" if quantization == "FP8" else None
    before = used_mib()
    with tempfile.TemporaryDirectory() as folder:
        llm = LLM(**engine_options(folder, quantization=method))
        [said] = llm.collective_rpc(reported)
    card = torch.cuda.get_device_properties(0).total_memory
    setup = vram.Setup(
        "tts",
        gpus=1,
        card_gb=80,
        max_model_len=8192,
        utilization=UTILIZATION,
        quantization=None if quantization == "bf16" else quantization,
    )
    sums = vram.estimate(STEP_AUDIO, setup)
    assert sums is not None
    return {
        "backend": str(llm.llm_engine.vllm_config.attention_config.backend),
        "model_runner_v2": bool(llm.llm_engine.vllm_config.use_v2_model_runner),
        "vllm_mib": said | {"on_the_card": used_mib() - before},
        "estimate_mib": {line.what: mib(line.size) for line in sums.lines if line.engine}
        | {"sum without the cache": mib(sums.engine), "cache": mib(sums.cache(card))},
        "estimated_kv_tokens": sums.kv_tokens(card),
        "kv_tokens": llm.llm_engine.vllm_config.cache_config.num_gpu_blocks
        * llm.llm_engine.vllm_config.cache_config.block_size,
    }


def reported(worker: Any) -> dict[str, float]:
    """vLLM's own figures of a worker, MiB."""
    return {
        "weights": mib(worker.model_runner.model_memory_usage),
        "consumed (weights, context and other)": mib(worker.total_consumed),
        "peak of a step's activations": mib(worker.peak_activation_memory),
        "CUDA graphs, estimated by vLLM": mib(worker.cudagraph_memory_estimate),
        "asked for": mib(worker.requested_memory),
        "cache": mib(worker.available_kv_cache_memory_bytes),
    }


# --- speed ------------------------------------------------------------------------------------------


def speed() -> dict[str, Any]:
    """Ids a second of all requests, and milliseconds to the first id of one."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    rules = {"extra_args": {"audio_from": OFFSET, "repetition_aware": True}}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        llm = LLM(**engine_options(folder, enable_prefix_caching=False))

        def seconds(count: int, ids: int, more: dict[str, Any]) -> float:
            params = SamplingParams(
                temperature=0.7, max_tokens=ids, ignore_eos=True, detokenize=False, seed=1, **more
            )
            prompts = [
                {"prompt_token_ids": [(7 * i + 13 * k) % 60000 + 5 for k in range(PROMPT)]}
                for i in range(count)
            ]
            started = time.perf_counter()
            llm.generate(prompts, params, use_tqdm=False)
            return time.perf_counter() - started

        for name, more in (("with the rules of speech", rules), ("without", {})):
            seconds(1, 8, more)
            found[name] = {
                "first_id_ms": 1000 * median(seconds(1, 1, more) for _ in range(5)),
                "ids_a_second": {
                    str(count): round(count * 256 / seconds(count, 256, more)) for count in (1, 4, 8, 16, 32)
                },
            }
    return found


# --- faults -----------------------------------------------------------------------------------------


def faults() -> dict[str, Any]:
    """By what was caused: a pod's last words, and the reason that the operator gives them."""
    return {name: run_section("fault", name) for name in CAUSES}


def fault(name: str) -> dict[str, Any]:
    """One of them."""
    from stepaudio_operator.failures import diagnose
    from stepaudio_operator.records import PodRecord
    from stepaudio_runtime.service.engine import EngineFailed
    from stepaudio_runtime.service.last_lines import overheard
    from stepaudio_runtime.tts.speech_lm import cause_of

    try:
        with overheard() as heard:
            CAUSES[name]()
    except Exception as error:  # whatever the library raises is what is looked for
        failed = EngineFailed(f"vLLM did not start: {cause_of(error, heard)}")
    else:
        raise SystemExit(f"{name} did not fail")
    words = f"{failed.reason}: {' '.join(str(failed).split())}"
    ended = {"exitCode": 1, "reason": "Error", "message": words + "\n"}
    status = {"containerStatuses": [{"name": "main", "lastState": {"terminated": ended}}]}
    row = diagnose(PodRecord.from_raw({"metadata": {"name": "p"}, "status": status}))
    return {"words": words[:600], "reason": row.reason if row else None}


def _engine(**changes: Any) -> None:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    with tempfile.TemporaryDirectory() as folder:
        AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_options(folder, **changes)))


def _torch_beyond_the_card() -> None:
    import torch

    held = [torch.empty(1 << 33, dtype=torch.uint8, device="cuda") for _ in range(1000)]
    raise AssertionError(len(held))


def _card_held_by_another() -> None:
    import torch

    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(int(free - (4 << 30)), dtype=torch.uint8, device="cuda")
    _engine()
    raise AssertionError(held.shape)


def _no_room_for_a_request() -> None:
    import torch

    _, total = torch.cuda.mem_get_info()
    before_cache = 7.2 * 2**30  # of this model, as vLLM says it; a request of full length needs 1 GiB more
    _engine(gpu_memory_utilization=(before_cache + 2**29) / total, max_model_len=32768)


CAUSES: dict[str, Callable[[], None]] = {
    "an allocation beyond the card": _torch_beyond_the_card,
    "a card that another holds": _card_held_by_another,
    "weights beyond the share": lambda: _engine(gpu_memory_utilization=0.05),
    "no room for the cache of one request": _no_room_for_a_request,
}


# --- the driver -------------------------------------------------------------------------------------


def nvml() -> dict[str, Any]:
    """What our reader says, beside nvidia-smi."""
    from stepaudio_runtime.health.nvml import Nvml

    library = Nvml.open()
    assert library is not None
    query = "name,memory.used,memory.total,temperature.gpu,ecc.errors.uncorrected.volatile.total"
    smi = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"read": library.read(), "nvidia-smi": smi.stdout.strip(), "xid": library.wait_xid()}


# --- all --------------------------------------------------------------------------------------------


SECTIONS = {
    "parity": parity,
    "memory": memory,
    "speed": speed,
    "together": together,
    "faults": faults,
    "nvml": nvml,
}
INNER = {"memory_of": memory_of, "fault": fault}
PARTED = {"memory", "faults"}  # only start others


def run_section(*words: str) -> dict[str, Any]:
    """The JSON of a section in a process of its own; its last lines where it failed."""
    with tempfile.NamedTemporaryFile("r") as answer:
        command = [sys.executable, "-m", "tests.gpu.vllm_on_device", "--into", answer.name, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired as expired:
            said = b"".join(filter(None, (expired.stdout, expired.stderr))).decode(errors="replace")
            return {"failed": f"not done after {LIMIT_S:.0f} s: {said[-6000:]}"}
        if done.returncode:
            return {"failed": (done.stdout + done.stderr)[-3000:]}
        found: dict[str, Any] = json.load(answer)
        return found


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--into", help=argparse.SUPPRESS)  # one section's process
    chosen = parser.parse_args()
    if chosen.into:
        faulthandler.dump_traceback_later(LIMIT_S - 10)  # where it stands, before it is ended
        name, *rest = chosen.sections
        found = INNER[name](*rest) if name in INNER else SECTIONS[name]()
        Path(chosen.into).write_text(json.dumps(found))
        return 0
    os.environ |= {
        "VLLM_PLUGINS": "stepaudio_step1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    results = {}
    for name in chosen.sections or SECTIONS:
        started = time.perf_counter()
        results[name] = SECTIONS[name]() if name in PARTED else run_section(name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps(results, indent=1))
    said = json.dumps(results)
    return 1 if '"failed"' in said or '"out of bounds": true' in said else 0


if __name__ == "__main__":
    sys.exit(main())
