"""What the plugin changes in vLLM: registrations, and the checks run on each Step-1 configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepaudio_vllm.guards import Step1ConfigError, check_config, settle_tied_embeddings, weight_names

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
    from vllm.config.attention import AttentionConfig

ARCHITECTURE = "Step1ForCausalLM"
CPU_BACKEND = "stepaudio_vllm.cpu_attention.SqrtAlibiCPUBackend"
PROCESSORS_V1 = ("stepaudio_vllm.audio_only:AudioOnly", "stepaudio_vllm.repetition:RepetitionAware")
PROCESSORS_V2 = ("stepaudio_vllm.audio_only_v2:AudioOnlyV2", "stepaudio_vllm.repetition_v2:RepetitionAwareV2")


def install() -> None:
    """Register the configuration class and hook; on a CPU the attention backend and model class too."""
    from transformers import AutoConfig
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from stepaudio_vllm.config import Step1Config

    class Step1Hook(VerifyAndUpdateConfig):
        """vLLM calls these two while it builds its configuration, in the process that the user started."""

        @staticmethod
        def verify_and_update_model_config(model_config: "ModelConfig") -> None:
            settle_model(model_config)

        @staticmethod
        def verify_and_update_config(vllm_config: "VllmConfig") -> None:
            settle_engine(vllm_config, is_cuda=current_platform.is_cuda(), is_cpu=current_platform.is_cpu())

    check_ids_without_tokenizer()
    AutoConfig.register("step1", Step1Config, exist_ok=True)
    MODELS_CONFIG_MAP[ARCHITECTURE] = Step1Hook
    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, CPU_BACKEND)
        # vLLM inspects a lazily registered class in a process of its own, so as not to touch CUDA; on a CPU
        # that only costs seconds of start-up, and a class in hand is inspected here.
        from vllm.model_executor.models import ModelRegistry
        from vllm.model_executor.models.step1 import Step1ForCausalLM

        ModelRegistry.register_model(ARCHITECTURE, Step1ForCausalLM)


def check_ids_without_tokenizer() -> None:
    """Refuse prompt ids outside the vocabulary (HTTP 400) when vLLM runs without a tokenizer.

    vLLM 0.32 checks ids against its tokenizer only. Without one, as Step-1 is served here, a single such id
    reaches the embedding and ends the engine for everyone, so its renderer's check is completed.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.renderers.base import BaseRenderer

    upstream = BaseRenderer.validate_token_ids
    if getattr(upstream, "complete", False):
        return

    def validate(self: BaseRenderer, token_ids: Sequence[int] | None, *args: Any, **kwargs: Any) -> None:
        upstream(self, token_ids, *args, **kwargs)
        size = self.model_config.get_vocab_size()
        if token_ids and self.tokenizer is None and not 0 <= min(token_ids) <= max(token_ids) < size:
            bad = next(token for token in token_ids if not 0 <= token < size)
            raise VLLMValidationError(f"Token id {bad} is out of vocabulary")

    validate.complete = True  # type: ignore[attr-defined]
    BaseRenderer.validate_token_ids = validate


def settle_model(model_config: "ModelConfig") -> None:
    """Check the model's fields and settle `tie_word_embeddings`. Raises Step1ConfigError."""
    config = model_config.hf_config
    folder = Path(model_config.model)
    where = str(folder / "config.json")
    check_config(config.to_dict(), where)
    names = weight_names(folder) if folder.is_dir() else None
    config.tie_word_embeddings = settle_tied_embeddings(config.tie_word_embeddings, names, where)


def settle_engine(vllm_config: "VllmConfig", *, is_cuda: bool, is_cpu: bool) -> None:
    """Choose the attention backend, add the rules of speech, check parallelism. Raises Step1ConfigError."""
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    heads, groups = model.model_arch_config.total_num_attention_heads, model.get_total_num_kv_heads()
    check_tensor_parallel(heads, groups, parallel.tensor_parallel_size)
    if is_cpu and parallel.pipeline_parallel_size > 1:
        raise Step1ConfigError(
            f"pipeline-parallel-size {parallel.pipeline_parallel_size}: Step-1 on a CPU serves with 1 only; "
            "use tensor-parallel-size"
        )
    if is_cuda:
        choose_cuda_backend(vllm_config.attention_config)
    # Each model runner takes its own kind of class and refuses the other's.
    processors = PROCESSORS_V2 if vllm_config.use_v2_model_runner else PROCESSORS_V1
    chosen = list(model.logits_processors or ())
    # V1 refuses any processor beside speculative decoding; requests that ask for a rule then fail there.
    if vllm_config.speculative_config is None or vllm_config.use_v2_model_runner:
        model.logits_processors = [*chosen, *(each for each in processors if each not in chosen)]


def check_tensor_parallel(heads: int, groups: int, size: int) -> None:
    """Raise Step1ConfigError where heads or KV groups cannot be spread evenly over `size` ranks."""
    if heads % size or (groups % size and size % groups):
        raise Step1ConfigError(
            f"tensor-parallel-size {size}: does not divide {heads} heads in {groups} groups evenly; "
            f"use a size that divides {heads} and divides or is a multiple of {groups}"
        )


def choose_cuda_backend(attention: "AttentionConfig") -> None:
    """TRITON_ATTN, the only CUDA backend with sqrt-ALiBi; a user's other choice is refused in one line."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    wanted = AttentionBackendEnum.TRITON_ATTN
    named = [attention.backend, *(attention.backend_per_kind or {}).values()]
    for backend in named:
        if backend not in (None, wanted):
            raise Step1ConfigError(
                f"attention-backend {backend.name}: cannot compute Step-1's sqrt-ALiBi bias; "
                f"leave it out or use {wanted.name}"
            )
    attention.backend = wanted
