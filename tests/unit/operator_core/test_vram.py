"""The sum of a GPU's memory, what fits, what is refused, and that what is proposed instead does fit."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_operator import names
from stepaudio_operator.gpus import vram
from stepaudio_operator.gpus.model_sizes import PUBLISHED_GB, SIZES
from stepaudio_operator.gpus.vram import GB, Estimate, Line, Setup
from stepaudio_operator.presets import STEP_AUDIO
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.reading import parse_deployment

CHAT = Setup("chat", gpus=4, card_gb=80, max_model_len=16384, utilization=0.95)
TTS = Setup("tts", gpus=1, card_gb=24, max_model_len=8192, utilization=0.6)
TOKENIZER = Setup("tokenizer", gpus=1, card_gb=8)


def estimate(setup: Setup) -> Estimate:
    sums = vram.estimate(STEP_AUDIO, setup)
    assert sums is not None
    return sums


def spec(**parts: Any) -> DeploymentSpec:
    models = {"source": {"pvc": {"claimName": "m"}}}
    raw = {"preset": STEP_AUDIO, "models": models, **parts}
    return parse_deployment({"metadata": {"name": "prod"}, "spec": raw})


def test_the_whole_sum_of_the_large_model_on_four_cards() -> None:
    assert estimate(CHAT) == Estimate(
        setup=CHAT,
        lines=(
            # 88 layers of 12288 x (2 x 12288 + 2 x 1024 + 3 x 31232), 2 bytes, a quarter
            Line("weights of the layers, bf16", 65_053_655_040, True),
            Line("embeddings, output layer and norms, bf16", 922_902_528, True),
            Line("what the allocator cannot use", 1_319_531_151, True),
            Line("activations of 8192 tokens", 987_758_592, True),
            Line("sampling for 1024 requests", 1_224_736_768, True),
            Line("CUDA context and graphs", 1_100_000_000, True),
            Line("NCCL", 600_000_000, True),
        ),
        kv_token=88 * 1024,  # 352 KiB over four cards
    )


@pytest.mark.parametrize(
    ("setup", "fit", "tokens"),
    [
        (CHAT, "Fits", 53_171),
        (replace(CHAT, utilization=0.90), "Tight", 8_782),  # only with more than 80 decimal GB
        (replace(CHAT, utilization=0.84), "Exceeds", 0),
        (replace(CHAT, gpus=2), "Exceeds", 0),
        (replace(CHAT, gpus=8, card_gb=48), "Fits", 216_277),
        (replace(CHAT, gpus=2, quantization="FP8"), "Fits", 19_257),
        (replace(CHAT, gpus=1, quantization="INT4"), "Exceeds", 0),
        (replace(CHAT, gpus=2, quantization="INT4", card_gb=48), "Fits", 39_719),
        (TTS, "Fits", 172_570),
        (replace(TTS, card_gb=16), "Tight", 26_086),
        (replace(TTS, card_gb=12, utilization=0.75), "Exceeds", 7_775),  # flow and vocoder lack the room
        (replace(TTS, utilization=0.9), "Exceeds", 392_297),  # nothing is left for flow and vocoder
        (TOKENIZER, "Fits", 0),
    ],
)
def test_what_fits(setup: Setup, fit: str, tokens: int) -> None:
    sums = estimate(setup)
    assert sums.fit == fit
    assert sums.kv_tokens(setup.card_gb * GB) == tokens


def test_the_published_minimums_are_weights_and_a_first_answer() -> None:
    # The reference answers with at most 2,048 tokens. What it leaves out is every working memory, so a card
    # of just the published size does not do.
    for (_, component), sizes in SIZES.items():
        weights = sum((sizes.beside or {}).values())
        if sizes.lm is not None:
            weights += 2 * sizes.lm.parameters + 2048 * sizes.lm.kv_bytes(1)
        assert 0.75 < weights / GB / PUBLISHED_GB[component] < 1.02
        setup = Setup(component, gpus=1, card_gb=int(PUBLISHED_GB[component]), max_model_len=2048)
        assert estimate(setup).fit == "Exceeds"


setups = st.builds(
    Setup,
    component=st.sampled_from(names.MODEL_COMPONENTS),
    gpus=st.sampled_from(vram.GPU_COUNTS),
    card_gb=st.integers(1, 200),
    max_model_len=st.integers(256, 32768),
    utilization=st.floats(0.05, 0.99),
    quantization=st.sampled_from([None, "FP8", "INT4"]),
)


@settings(max_examples=60, deadline=None)
@given(setups)
def test_every_proposal_changes_one_field_and_fits(setup: Setup) -> None:
    sums = estimate(setup)
    fields = {
        "maxModelLen": ("max_model_len", int),
        "gpuMemoryUtilization": ("utilization", float),
        "quantization": ("quantization", lambda text: text.split()[0]),
        "gpu.count": ("gpus", int),
        "gpu.memory": ("card_gb", lambda text: int(text.removesuffix("GB"))),
    }
    for proposal in vram.proposals(STEP_AUDIO, sums):
        field, value = proposal.split(" ", 1)
        attribute, read = fields[field]
        assert estimate(replace(setup, **{attribute: read(value)})).fit == "Fits"


@settings(max_examples=60, deadline=None)
@given(setups, st.integers(0, 100), st.integers(0, 4096))
def test_more_memory_and_fewer_tokens_never_hurt(setup: Setup, more: int, fewer: int) -> None:
    order = ("Exceeds", "Tight", "Fits")
    before = order.index(estimate(setup).fit)
    if (setup.card_gb < vram.LARGE_CARD_GB) == (setup.card_gb + more < vram.LARGE_CARD_GB):
        assert order.index(estimate(replace(setup, card_gb=setup.card_gb + more)).fit) >= before
    shorter = replace(setup, max_model_len=max((setup.max_model_len or 0) - fewer, 1))
    assert order.index(estimate(shorter).fit) >= before
    lighter = replace(setup, quantization="INT4")
    assert order.index(estimate(lighter).fit) >= before


@settings(max_examples=60, deadline=None)
@given(setups)
def test_what_fits_holds_one_request_within_the_card(setup: Setup) -> None:
    sums = estimate(setup)
    if sums.fit == "Fits":
        assert sums.least <= setup.card_gb * GB
        if sums.kv_token:
            assert sums.kv_tokens(setup.card_gb * GB) >= setup.max_model_len


def test_a_spec_that_exceeds_its_cards_is_refused_with_what_would_fit() -> None:
    wrong = spec(chat={"gpu": {"count": 4, "memory": "48GB"}})
    assert vram.refused(wrong) == (
        "InsufficientVram",
        "chat: vLLM's 0.95 of one GPU of 4x48GB has to hold 69.5GB of weights and working memory and 1.5GB of"
        " cache for one request of 16384 tokens; would fit: quantization FP8, or gpu.count 8, or gpu.memory"
        " 80GB (vram.policy Warn tries it all the same)",
    )


def test_warn_says_it_in_the_status_and_refuses_nothing() -> None:
    warned = spec(chat={"gpu": {"count": 2}}, tts={"enabled": False}, vram={"policy": "Warn"})
    assert vram.refused(warned) is None
    assert vram.to_status(warned) == [
        {
            "component": "chat",
            "gpu": "2x80GB",
            "needed": "141.8GB",
            "fit": "Exceeds",
            "cacheTokens": 0,
            "message": "vLLM's 0.95 of one GPU of 2x80GB has to hold 138.9GB of weights and working memory"
            " and 3.0GB of cache for one request of 16384 tokens; would fit: quantization FP8,"
            " or gpu.count 4, or gpu.memory 180GB",
        },
        {"component": "tokenizer", "gpu": "1x8GB", "needed": "2.1GB", "fit": "Fits"},
    ]


def test_nothing_is_judged_where_nothing_is_declared() -> None:
    nano = parse_deployment({"metadata": {"name": "n"}, "spec": {"preset": "nano"}})
    assert (vram.to_status(nano), vram.refused(nano)) == ([], None)
    gpu = {"preset": "nano", "chat": {"gpu": {"count": 1, "memory": "24GB"}}}
    assert vram.to_status(parse_deployment({"metadata": {"name": "n"}, "spec": gpu})) == []


def test_the_sum_is_printed_term_by_term() -> None:
    assert vram.table(STEP_AUDIO, estimate(TTS)) == [
        "tts: one GPU of 1x24GB: Fits",
        "      6.14 GB  weights of the layers, bf16",
        "      0.92 GB  embeddings, output layer and norms, bf16",
        "      0.14 GB  what the allocator cannot use",
        "      0.14 GB  activations of 2048 tokens",
        "      0.31 GB  sampling for 256 requests",
        "      1.10 GB  CUDA context and graphs",
        "      0.27 GB  cache for one request of 8192 tokens (32 KiB each)",
        "      0.50 GB  flow and vocoder, for speech, fp32",
        "      0.50 GB  flow and vocoder, for music, fp32",
        "      4.80 GB  their working memory",
        "      0.60 GB  their CUDA context",
        "     15.42 GB  in all, of 24",
        "    172570 tokens of all requests fit its cache; 0.6 of the card is vLLM's",
    ]
