"""How large the known models are: what memory is estimated from (`vram.py`).

Numbers of parameters are those of the runtime's own modules at the published sizes;
`tests/contract/test_model_sizes.py` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stepaudio_operator import names
from stepaudio_operator.presets import STEP_AUDIO

BF16 = 2  # bytes
FP32 = 4


@dataclass(frozen=True)
class LmShape:
    """A Step-1 language model: sizes in the words of its `config.json`, embeddings not tied."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    groups: int  # of keys and values
    vocab: int

    @property
    def linear(self) -> int:
        """Parameters of the matrices inside the layers: what quantisation makes smaller."""
        keys_values = 2 * self.groups * self.hidden // self.heads
        attention = self.hidden * (2 * self.hidden + keys_values)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings and of the output layer, which stay in bf16."""
        return 2 * self.vocab * self.hidden

    @property
    def norms(self) -> int:
        """Parameters of the norms: the only ones of which every GPU holds all."""
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear + self.embeddings + self.norms

    def kv_bytes(self, gpus: int) -> int:
        """Bytes of KV cache that one token takes on each of `gpus` GPUs, in bf16."""
        groups = max(self.groups // gpus, 1)
        return 2 * self.layers * groups * (self.hidden // self.heads) * BF16


@dataclass(frozen=True)
class Sizes:
    """What a component holds on its GPUs. `beside` is for models outside of vLLM, in a process of their own:
    bytes of weights by what they are.
    """

    lm: LmShape | None = None
    beside: Mapping[str, int] | None = None


_FLOW = 105_399_552
_VOCODER = 20_447_517
_LINGUISTIC = 157_975_648
_SEMANTIC = 130_629_120

SIZES: Mapping[tuple[str, str], Sizes] = {
    (STEP_AUDIO, names.CHAT): Sizes(LmShape(12288, 31232, 88, 96, 8, 74752)),
    (STEP_AUDIO, names.TTS): Sizes(
        LmShape(3072, 8192, 32, 48, 4, 74752),
        {
            "flow and vocoder, for speech": (_FLOW + _VOCODER) * FP32,
            "flow and vocoder, for music": (_FLOW + _VOCODER) * FP32,
        },
    ),
    (STEP_AUDIO, names.TOKENIZER): Sizes(
        beside={"linguistic tokenizer": _LINGUISTIC * FP32, "semantic tokenizer": _SEMANTIC * FP32}
    ),
}
"""By preset and component; nano's models are a few megabytes and nothing is judged by them."""

PUBLISHED_GB: Mapping[str, float] = {names.CHAT: 265, names.TTS: 8, names.TOKENIZER: 1.5}
"""The minimum that the models' authors name, decimal GB over all GPUs."""
