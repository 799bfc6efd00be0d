"""How much GPU memory a deployment needs, as a sum, and whether the declared cards hold it; pure.

One card of a replica holds, in this order:

    vLLM (a share `gpuMemoryUtilization` of the card)          beside it (the rest of the card)
      weights: matrices (by quantisation), embeddings, norms     weights of flow and vocoder, or tokenizers
      working memory of a step: activations, sampling            their working memory
      CUDA context, CUDA graphs, NCCL between cards              CUDA context of their process
      KV cache: all that is left of the share

vLLM starts only where the cache holds one request of `maxModelLen`, so that is what "fits" means. A card
that is sold as N GB has between N decimal and N binary gigabytes: what fits the smaller one fits (`Fits`),
what fits the larger one alone may not (`Tight`), and only what does not fit even that is refused (`Exceeds`).

The weights are exact (`tests/contract/test_model_sizes.py`). The working memory is a formula and the contexts
are constants, chosen on the high side: for the 3B model on an H100 vLLM's own report came to 0.9 GB less than
the 10.1 GB before the cache, and flow and vocoder to what an H200 held at 16 streams (`docs/benchmarks.md`);
other shapes have not been compared.
Bytes throughout; GB are decimal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from stepaudio_operator import names
from stepaudio_operator.gpus.cards import is_part
from stepaudio_operator.gpus.model_sizes import BF16, FP32, SIZES, LmShape, Sizes
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.gpu import chosen_by, known_gb
from stepaudio_operator.spec.health import WARN
from stepaudio_operator.spec.parts import Chat, Tokenizer, Tts
from stepaudio_operator.spec.pool import PoolSpec

Fit = Literal["Fits", "Tight", "Exceeds"]
INSUFFICIENT_VRAM = "InsufficientVram"

GB = 10**9
GIB = 1 << 30
# Bytes a parameter of the layers' matrices. INT4: groups of 128 that share a scale of 16 bits.
WEIGHT_BYTES = {None: BF16, "FP8": 1.0, "INT4": 0.5 + BF16 / 128}

CUDA_CONTEXT = int(0.6 * GB)  # of each process: driver, kernels, cuBLAS
CUDA_GRAPHS = int(0.5 * GB)
NCCL = int(0.6 * GB)  # buffers of a card that shares its model with others
FRAGMENTED = 0.02  # of the weights: what the allocator cannot use
# Flow and vocoder, for speech and for music, at 16 streams a step, with their captured graphs.
DECODER_WORK = int(4.8 * GB)
TOKENIZER_WORK = int(0.35 * GB)
SAMPLING_BYTES = 4 * FP32  # a logit as the sampler holds it: two copies, sorted values, their indices
# vLLM's own defaults, by the size of the card: tokens computed and requests answered in one step.
LARGE_CARD_GB = 70
STEP_LARGE, STEP_SMALL = (8192, 1024), (2048, 256)

UTILIZATIONS = tuple(n / 100 for n in range(20, 100, 5))  # what is proposed where another share would do
LENGTH_STEP = 256  # tokens
KNOWN_CARDS_GB = (16, 24, 32, 40, 48, 80, 96, 141, 180)
GPU_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Setup:
    """How one replica runs. `card_gb` is the declared size of a card, decimal."""

    component: str
    gpus: int
    card_gb: int
    max_model_len: int | None = None
    utilization: float = 0.9
    quantization: str | None = None
    part: bool = False
    """Whether each is a part of a card (MIG, shared): no model is spread over several."""
    with_tokenizer: bool = False
    """Whether the tokenizers are on the card too, in the process of the speech decoder."""
    chosen: str = ""
    """Which cards, where not any of that size will do: then another size is another choice."""

    @property
    def gpu(self) -> str:
        """The cards in words: `4x80GB`, `1x40GB (nvidia.com/mig-3g.40gb)`."""
        size = f"{self.gpus}x{self.card_gb}GB"
        return f"{size} ({self.chosen})" if self.chosen else size


@dataclass(frozen=True)
class Line:
    """One term of the sum on one card; `engine` where it counts against vLLM's share."""

    what: str
    size: int
    engine: bool


@dataclass(frozen=True)
class Estimate:
    """The sum of one card of `setup`, without the KV cache, and what a token of the cache takes."""

    setup: Setup
    lines: tuple[Line, ...]
    kv_token: int

    @property
    def engine(self) -> int:
        """What vLLM needs before its cache."""
        return sum(line.size for line in self.lines if line.engine)

    @property
    def beside(self) -> int:
        """What is on the card beside vLLM."""
        return sum(line.size for line in self.lines if not line.engine)

    @property
    def one_request(self) -> int:
        """KV cache of one request of full length."""
        return self.kv_token * (self.setup.max_model_len or 0)

    @property
    def least(self) -> int:
        """What the card has to hold for the pod to start."""
        return self.engine + self.one_request + self.beside

    def cache(self, card: int) -> int:
        """What of a card of `card` bytes is left for the KV cache; negative where nothing is."""
        return int(card * self.setup.utilization) - self.engine if self.kv_token else 0

    def kv_tokens(self, card: int) -> int:
        """Tokens of all requests together that the cache of a card of `card` bytes holds."""
        return max(self.cache(card), 0) // self.kv_token if self.kv_token else 0

    def holds(self, card: int) -> bool:
        """Whether a card of `card` bytes is enough."""
        share = int(card * self.setup.utilization) if self.kv_token else 0
        return self.cache(card) >= self.one_request and share + self.beside <= card

    @property
    def fit(self) -> Fit:
        """Whether the declared cards are enough."""
        if self.holds(self.setup.card_gb * GB):
            return "Fits"
        return "Tight" if self.holds(self.setup.card_gb * GIB) else "Exceeds"


def estimate(preset: str, setup: Setup) -> Estimate | None:
    """The sum for a component of `preset`; None where its models are too small to be judged."""
    sizes = SIZES.get((preset, setup.component))
    if sizes is None or not setup.gpus:
        return None
    lines = list(_engine(sizes.lm, setup)) if sizes.lm is not None else []
    lines += _beside(sizes, setup.component)
    if setup.with_tokenizer:
        lines += _weights(SIZES[preset, names.TOKENIZER])
        lines.append(Line("working memory of the tokenizers", TOKENIZER_WORK, False))
    return Estimate(setup, tuple(lines), sizes.lm.kv_bytes(setup.gpus) if sizes.lm is not None else 0)


def _engine(lm: LmShape, setup: Setup) -> Iterator[Line]:
    gpus = setup.gpus
    matrices = int(lm.linear * WEIGHT_BYTES[setup.quantization]) // gpus
    weights = matrices + lm.embeddings * BF16 // gpus + lm.norms * BF16
    tokens, requests = STEP_LARGE if setup.card_gb >= LARGE_CARD_GB else STEP_SMALL
    yield Line(f"weights of the layers, {setup.quantization or 'bf16'}", matrices, True)
    yield Line("embeddings, output layer and norms, bf16", weights - matrices, True)
    yield Line("what the allocator cannot use", int(weights * FRAGMENTED), True)
    yield Line(f"activations of {tokens} tokens", tokens * BF16 * (3 * lm.hidden + 3 * lm.ffn // gpus), True)
    yield Line(f"sampling for {requests} requests", requests * lm.vocab * SAMPLING_BYTES, True)
    yield Line("CUDA context and graphs", CUDA_CONTEXT + CUDA_GRAPHS, True)
    if gpus > 1:
        yield Line("NCCL", NCCL, True)


def _beside(sizes: Sizes, component: str) -> Iterator[Line]:
    if not sizes.beside:
        return
    yield from _weights(sizes)
    work = DECODER_WORK if component == names.TTS else TOKENIZER_WORK
    yield Line("their working memory", work, False)
    yield Line("their CUDA context", CUDA_CONTEXT, False)


def _weights(sizes: Sizes) -> Iterator[Line]:
    for what, size in (sizes.beside or {}).items():
        yield Line(f"{what}, fp32", size, False)


def setup_of(
    preset: str,
    component: str,
    part: Chat | Tts | Tokenizer | PoolSpec | None,
    *,
    with_tokenizer: bool = False,
) -> Setup | None:
    """How a replica runs, by a deployment's part or a pool; None on a CPU, and without a card's size."""
    defaults = PRESETS[preset].pools[component]
    gpu = part.gpu if part is not None else None
    gpus = defaults.gpu_count if gpu is None or gpu.count is None else gpu.count
    card = known_gb(gpu, defaults.gpu_memory)
    if not gpus or card is None:
        return None
    lm = part if isinstance(part, Chat | Tts | PoolSpec) else None
    return Setup(
        component=component,
        gpus=gpus,
        card_gb=card,
        max_model_len=(lm.max_model_len if lm else None) or defaults.max_model_len,
        utilization=(lm.gpu_memory_utilization if lm else None) or defaults.gpu_memory_utilization,
        quantization=lm.quantization if lm else None,
        part=gpu is not None and gpu.resource is not None and is_part(gpu.resource),
        with_tokenizer=with_tokenizer,
        chosen=chosen_by(gpu),
    )


def estimates(spec: DeploymentSpec) -> tuple[Estimate, ...]:
    """The sums of a deployment's components, as far as something is declared."""
    found = []
    for component in names.MODEL_COMPONENTS:
        if component not in spec.components:
            continue
        setup = setup_of(
            spec.preset,
            component,
            getattr(spec, component),
            with_tokenizer=component == names.TTS and spec.tokenizer_with_tts,
        )
        sums = estimate(spec.preset, setup) if setup is not None else None
        if sums is not None:
            found.append(sums)
    return tuple(found)


def refused(spec: DeploymentSpec) -> tuple[str, str] | None:
    """Reason and message where the declared cards cannot hold what the spec asks for and its policy is
    Enforce: then the spec is not carried out.
    """
    if spec.vram is not None and spec.vram.policy == WARN:
        return None
    wrong = [sums for sums in estimates(spec) if sums.fit == "Exceeds"]
    if not wrong:
        return None
    said = "; ".join(f"{sums.setup.component}: {complaint(spec.preset, sums)}" for sums in wrong)
    return INSUFFICIENT_VRAM, f"{said} (vram.policy {WARN} tries it all the same)"


def proposals(preset: str, wrong: Estimate) -> list[str]:
    """Changes of one field each by which `wrong` would fit, the smallest first; every one of them does."""
    setup, found = wrong.setup, []

    def fits(changed: Setup) -> bool:
        sums = estimate(preset, changed)
        return sums is not None and sums.fit == "Fits"

    if wrong.kv_token and setup.max_model_len:
        room = wrong.kv_tokens(setup.card_gb * GB) // LENGTH_STEP * LENGTH_STEP
        if 0 < room < setup.max_model_len and fits(replace(setup, max_model_len=room)):
            found.append(f"maxModelLen {room}")
        nearest = sorted(UTILIZATIONS, key=lambda share: abs(share - setup.utilization))
        found += [f"gpuMemoryUtilization {n:g}" for n in nearest if fits(replace(setup, utilization=n))][:1]
        if setup.quantization is None and fits(replace(setup, quantization="FP8")):
            found.append("quantization FP8")
        elif setup.quantization != "INT4" and fits(replace(setup, quantization="INT4")):
            found.append("quantization INT4 with a checkpoint that is made for it")
    if setup.component == names.CHAT and not setup.part:
        more = (n for n in GPU_COUNTS if n > setup.gpus and fits(replace(setup, gpus=n)))
        found += [f"gpu.count {n}" for n in more][:1]
    larger = (n for n in KNOWN_CARDS_GB if n > setup.card_gb and fits(replace(setup, card_gb=n)))
    of = "GPUs of" if setup.chosen else "gpu.memory"
    return found + [f"{of} {n}GB" for n in larger][:1]


def complaint(preset: str, wrong: Estimate) -> str:
    """What to say of an estimate that does not fit, in one sentence with its cures."""
    setup, card = wrong.setup, wrong.setup.card_gb * GB
    would = proposals(preset, wrong)
    cure = f"would fit: {', or '.join(would) if would else 'no change of a single field'}"
    if not wrong.kv_token:
        return f"one GPU of {setup.gpu} has to hold {as_gb(wrong.beside)}; {cure}"
    share = f"vLLM's {setup.utilization:g} of one GPU of {setup.gpu}"
    if wrong.cache(card) >= wrong.one_request:
        return f"{share} leaves less than the {as_gb(wrong.beside)} that are beside it; {cure}"
    return (
        f"{share} has to hold {as_gb(wrong.engine)} of weights and working memory and"
        f" {as_gb(wrong.one_request)} of cache for one request of {setup.max_model_len} tokens; {cure}"
    )


def to_status(spec: DeploymentSpec) -> list[dict[str, Any]]:
    """`status.vram`: one entry a component, numbers in decimal GB of one card."""
    return [_entry(spec.preset, sums) for sums in estimates(spec)]


def _entry(preset: str, sums: Estimate) -> dict[str, Any]:
    setup = sums.setup
    entry: dict[str, Any] = {
        "component": setup.component,
        "gpu": setup.gpu,
        "needed": as_gb(sums.least),
        "fit": sums.fit,
    }
    if sums.kv_token:
        entry["cacheTokens"] = sums.kv_tokens(setup.card_gb * GB)
    if sums.fit != "Fits":
        entry["message"] = complaint(preset, sums)
    return entry


def table(preset: str, sums: Estimate) -> list[str]:
    """The sum in lines of text, for people: one card, term by term."""
    setup = sums.setup
    card = setup.card_gb * GB
    lines = [f"{setup.component}: one GPU of {setup.gpu}: {sums.fit}"]
    terms = [line for line in sums.lines if line.engine]
    if sums.kv_token:
        what = f"cache for one request of {setup.max_model_len} tokens ({sums.kv_token / 1024:g} KiB each)"
        terms.append(Line(what, sums.one_request, True))
    terms += [line for line in sums.lines if not line.engine]
    lines += [f"  {line.size / GB:8.2f} GB  {line.what}" for line in terms]
    lines.append(f"  {sums.least / GB:8.2f} GB  in all, of {card / GB:g}")
    if sums.kv_token:
        share = f"{setup.utilization:g} of the card is vLLM's"
        lines.append(f"  {sums.kv_tokens(card):8} tokens of all requests fit its cache; {share}")
    if sums.fit != "Fits":
        lines.append(f"  {complaint(preset, sums)}")
    return lines


def as_gb(size: int) -> str:
    """Bytes as decimal gigabytes: `67.3GB`."""
    return f"{size / GB:.1f}GB"
