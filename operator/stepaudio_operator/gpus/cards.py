"""What is known of a GPU by its name: the memory of a product, and of a MIG profile. Pure; decimal GB.

A product is what GPU feature discovery writes into the node label `nvidia.com/gpu.product`; a profile is a
resource of NVIDIA's device plugin, such as `nvidia.com/mig-3g.40gb`. Most names say their memory, the rest
stands in a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MIG_PREFIX = "nvidia.com/mig-"
SHARED_SUFFIX = (
    ".shared"  # how the device plugin renames a resource of which it hands out one card several times
)

_PROFILE = re.compile(r"[1-9][0-9]*g\.([1-9][0-9]*)gb(?![0-9])")
_SIZE = re.compile(r"(?<![0-9])([1-9][0-9]{0,2})GB(?![0-9A-Za-z])")
# Names without a size, or with the size of something else (GH200: of the processor's memory).
_SIZES: Mapping[str, int] = {
    "A10": 24,
    "A10G": 24,
    "A16": 16,
    "A30": 24,
    "A40": 48,
    "B200": 180,
    "GH200-480GB": 96,
    "GeForce-RTX-3090": 24,
    "GeForce-RTX-4090": 24,
    "GeForce-RTX-5090": 32,
    "H100-NVL": 94,
    "H100-PCIe": 80,
    "H200": 141,
    "H200-NVL": 141,
    "L4": 24,
    "L40": 48,
    "L40S": 48,
    "RTX-6000-Ada-Generation": 48,
    "RTX-A5000": 24,
    "RTX-A6000": 48,
    "T4": 16,
}
_MAKER = re.compile(r"^(NVIDIA|Tesla)-")


def profile_gb(resource: str) -> int | None:
    """Memory of one slice of a MIG resource; None where it is no such resource."""
    found = _PROFILE.search(resource) if resource.startswith(MIG_PREFIX) else None
    return int(found[1]) if found else None


def product_gb(product: str) -> int | None:
    """Memory of one GPU of a product, of one slice where the label names a MIG profile; None if unknown."""
    whole, mig, profile = product.partition("-MIG-")
    if mig:
        found = _PROFILE.match(profile)
        return int(found[1]) if found else None
    name = _MAKER.sub("", whole.removesuffix("-SHARED"))
    if name in _SIZES:
        return _SIZES[name]
    found = _SIZE.search(name)
    return int(found[1]) if found else None


def is_part(resource: str) -> bool:
    """Whether what a resource counts is a part of a card: then a model cannot be split over several."""
    return resource.startswith(MIG_PREFIX) or resource.endswith(SHARED_SUFFIX)
