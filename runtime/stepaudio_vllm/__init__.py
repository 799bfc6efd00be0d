"""vLLM plugin for Step-1, the language model inside Step-Audio.

vLLM carries `Step1ForCausalLM`; it lacks what surrounds it. `register` adds that, in every vLLM process:

- the `step1` configuration class (`config`), so that a model folder loads without remote code;
- the checks of `guards`, run when vLLM builds its configuration (`hooks`), and with them the attention
  backend that CUDA needs and the repetition-aware logits processor of the running model runner;
- an attention backend for CPUs that computes the sqrt-ALiBi bias (`cpu_attention`).

Importing this package imports neither vLLM nor torch.
"""

from stepaudio_vllm.guards import Step1ConfigError, check_model_folder

__all__ = ["Step1ConfigError", "check_model_folder", "register"]


def register() -> None:
    """Add Step-1 to this process's vLLM; the `vllm.general_plugins` entry point. May be called repeatedly."""
    from stepaudio_vllm.hooks import install

    install()
