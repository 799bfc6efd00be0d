"""The `step1` configuration class for transformers, which does not know this model type."""

from transformers import PreTrainedConfig


class Step1Config(PreTrainedConfig):
    """`config.json` of a Step-1 model; sizes of Step-Audio-TTS-3B as defaults.

    `tie_word_embeddings` has no default on purpose: None means that the file did not say (see `guards`).
    """

    model_type = "step1"

    vocab_size: int = 74752
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 48
    num_attention_groups: int | None = None
    max_seq_len: int = 32768
    rms_norm_eps: float = 1e-5
    bos_token_id: int = 1
    eos_token_id: int | list[int] = 3
    pad_token_id: int = 0
    tie_word_embeddings: bool | None = None
