"""Folding of weight norm in a state dict: weight = g · v / ‖v‖, once at load instead of in every call."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# (suffix of g, suffix of v): torch's first form, and the one its parametrizations write.
_FORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same state dict with every (g, v) pair replaced by one `weight`.

    The norm runs over all axes but the first, which for a transposed convolution is the input channel.
    Raises ValueError naming the key whose partner is missing or does not fit.
    """
    folded = dict(state)
    for g_suffix, v_suffix in _FORMS:
        for key in [key for key in folded if key.endswith("." + v_suffix)]:
            stem = key.removesuffix(v_suffix)
            if stem + g_suffix not in folded:
                raise ValueError(f"no {stem}{g_suffix}, the other half of a weight norm")
            v, g = folded.pop(key), folded.pop(stem + g_suffix)
            if g.shape != (v.shape[0], *[1] * (v.dim() - 1)):
                raise ValueError(f"{stem}{g_suffix} is {list(g.shape)}, but {key} is {list(v.shape)}")
            norm = v.flatten(1).norm(dim=1).reshape(g.shape)
            folded[stem + "weight"] = g * v / norm
        for key in folded:
            if key.endswith("." + g_suffix):
                raise ValueError(
                    f"no {key.removesuffix(g_suffix)}{v_suffix}, the other half of a weight norm"
                )
    return folded
