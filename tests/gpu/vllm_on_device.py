"""vLLM with the plugin on a GPU: `python -m tests.gpu.vllm_on_device [SECTION...]`.

    parity   log probabilities (in float32 within 1e-4) and greedy answers against the plain torch reference
    memory   what vLLM reports of the 3B speech model, beside the operator's estimate (bf16, FP8)
    speed    its ids a second by requests together, with and without the rules of speech
    together language model, flow and vocoder on one card: first audio and real-time factor by streams
    faults   memory that does not suffice, caused: the words in which a pod would end
    nvml     what the driver's library says of the card

Run from the repository's root with `PYTHONPATH=runtime:operator:.` where vLLM 0.32 is; weights are random and
made there. Every section has a process of its own; prints one JSON object, status 1 where a section failed or
is out of its bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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

LIMIT_S = 240.0
VOCABULARY, OFFSET, EOT = 74752, 65536, 3
PROMPT = 300  # ids: a voice of 3 s, its words, and a sentence
CODES = 417  # 10 s of speech
UTILIZATION = 0.6  # of the preset
SHAPE = {
    "architectures": ["Step1ForCausalLM"],
    "model_type": "step1",
    "vocab_size": VOCABULARY,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "num_attention_groups": 4,
    "max_seq_len": 32768,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": EOT,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""Step-Audio-TTS-3B, in the words of its config.json."""


def engine_options(folder: str, **changes: Any) -> dict[str, Any]:
    """As a TTS pod has them, but for the weights, which are made up."""
    Path(folder, "config.json").write_text(json.dumps(SHAPE))
    options = {
        "model": folder,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "max_model_len": 8192,
        "gpu_memory_utilization": UTILIZATION,
        "generation_config": "vllm",
    }
    return options | changes


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


# --- together ---------------------------------------------------------------------------------------


def together() -> dict[str, Any]:
    """As a TTS pod has it: the language model in a process of its own, flow and vocoder in this one."""
    return asyncio.run(_together())


async def _together() -> dict[str, Any]:
    import torch
    from prometheus_client import CollectorRegistry
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from stepaudio_runtime.service.worker import Worker
    from stepaudio_runtime.tts.decoder import Prompt
    from stepaudio_runtime.tts.hops import HopPlan
    from stepaudio_runtime.tts.metrics import SpeechMetrics
    from stepaudio_runtime.tts.scheduler import Scheduler
    from stepaudio_runtime.tts.speech_lm import SpeechLm
    from tests.gpu.speed import new_decoder

    device, found = torch.device("cuda"), {}
    decoder = new_decoder(device, torch.bfloat16)
    decoder.warm()
    found["flow_vocoder_and_graphs_mib"] = used_mib()
    with tempfile.TemporaryDirectory() as folder:
        options = engine_options(folder, disable_log_stats=True, enable_log_requests=False)
        lm = SpeechLm(AsyncLLM.from_engine_args(AsyncEngineArgs(**options)), OFFSET, 8192)
    found["all_mib"] = used_mib()
    metrics, worker = SpeechMetrics(CollectorRegistry()), Worker("decoder", bound=64)
    scheduler = Scheduler(worker, bound=64, batch=16, clock=time.monotonic, metrics=metrics)
    running = asyncio.create_task(scheduler.run())
    voice = Prompt(tuple(range(125)), torch.randn(1, decoder.flow.frames(125), 80), torch.randn(1, 192))

    async def speak(seed: int) -> tuple[float, float, float]:
        """Seconds to the first samples and to the last, and of audio."""
        started, first, samples = time.perf_counter(), 0.0, 0
        utterance = scheduler.open()

        async def write() -> None:
            try:
                part = utterance.begin(decoder, decoder.open(voice, seed, HopPlan()))
                prompt = [(7 * seed + 13 * k) % 60000 + 5 for k in range(PROMPT)]
                async for codes in lm.stream(prompt, max_codes=CODES, seed=seed):
                    part.add(codes)
                part.end()
                utterance.end()
            except Exception as error:  # else the reader would wait for ever
                utterance.fail(error)

        writing = asyncio.create_task(write())
        while (wave := await utterance.read()) is not None:
            first, samples = first or time.perf_counter() - started, samples + len(wave)
        await writing
        scheduler.close(utterance)
        return first, time.perf_counter() - started, samples / 22_050

    await asyncio.gather(*(speak(seed) for seed in range(4)))  # warm
    for count in (1, 4, 8, 16, 32):
        rounds = [await asyncio.gather(*(speak(100 * i + seed) for seed in range(count))) for i in range(3)]
        every = [one for some in rounds for one in some]
        found[str(count)] = {
            "first_audio_s": median(first for first, _, _ in every),
            "first_audio_worst_s": max(first for first, _, _ in every),
            "real_time_factor": median(took / audio for _, took, audio in every),
            "audio_a_second": sum(audio for _, _, audio in every)
            / sum(max(took for _, took, _ in some) for some in rounds),
        }
    found["peak_mib"] = used_mib()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    lm.close()
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


CAUSES: dict[str, Callable[[], None]] = {
    "an allocation beyond the card": _torch_beyond_the_card,
    "a card that another holds": _card_held_by_another,
    "weights beyond the share": lambda: _engine(gpu_memory_utilization=0.05),
    "no room for the cache of one request": lambda: _engine(gpu_memory_utilization=0.11, max_model_len=32768),
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


def mib(size: float) -> float:
    return round(size / 2**20, 1)


def used_mib() -> float:
    """Of the whole card, by all processes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return mib(total - free)


SECTIONS = {
    "parity": parity,
    "memory": memory,
    "speed": speed,
    "together": together,
    "faults": faults,
    "nvml": nvml,
}
INNER = {"memory_of": memory_of, "fault": fault}


def run_section(*words: str) -> dict[str, Any]:
    """The JSON of a section in a process of its own; its last lines where it failed."""
    with tempfile.NamedTemporaryFile("r") as answer:
        command = [sys.executable, "-m", "tests.gpu.vllm_on_device", "--into", answer.name, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {LIMIT_S:.0f} s"}
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
        results[name] = run_section(name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps(results, indent=1))
    said = json.dumps(results)
    return 1 if '"failed"' in said or '"out of bounds": true' in said else 0


if __name__ == "__main__":
    sys.exit(main())
