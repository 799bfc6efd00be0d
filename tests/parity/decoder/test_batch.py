"""Utterances of any lengths computed together give what each gives alone."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.models.flow import Flow, FlowItem
from stepaudio_runtime.models.lengths import groups
from tests.parity.small_models import known_codes

ROUNDING = 2.0**-22  # of a float32 or two


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 45), st.integers(0, 25)), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_together_is_alone(flow_once: Flow, sizes: list[tuple[int, int]], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    items, noise = [], []
    for count, prompt in sizes:
        ids = torch.randint(0, known_codes(flow_once), (count + prompt,), generator=random)
        prompt_mel = torch.randn(2 * prompt + prompt % 2, 80, generator=random)
        items.append(FlowItem(ids[prompt:], ids[:prompt], prompt_mel, torch.randn(192, generator=random)))
        noise.append(torch.randn(80, flow_once.frames(count) + len(prompt_mel), generator=random))
    together = flow_once.solve(items, noise)
    for item, own_noise, got in zip(items, noise, together, strict=True):
        alone = flow_once.solve([item], [own_noise])[0]
        assert got.shape == alone.shape
        off = (got - alone).abs().max()
        if off > 5e-5:  # norms over the few frames of a code or two can make much of a rounding
            nudge = 1 + ROUNDING * torch.randn(own_noise.shape, generator=random)
            assert off <= 10 * (flow_once.solve([item], [own_noise * nudge])[0] - alone).abs().max()


@given(lengths=st.lists(st.integers(1, 2000), max_size=20), waste=st.floats(0, 1), most=st.integers(1, 25))
def test_groups_hold_everybody_once_and_waste_little(lengths: list[int], waste: float, most: int) -> None:
    found = groups(lengths, waste, most)
    assert sorted(i for group in found for i in group) == list(range(len(lengths)))
    for group in found:
        own = [lengths[i] for i in group]
        assert len(own) <= most
        assert max(own) * len(own) <= (1 + waste) * sum(own)
