"""The `gpu` part of the specs: how many GPUs a replica has, which ones, and how they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from stepaudio_operator.gpus.cards import MIG_PREFIX, SHARED_SUFFIX, is_part, product_gb, profile_gb
from stepaudio_operator.spec.fields import GPU_MEMORY, Int, Model, Name, Rule
from stepaudio_operator.spec.pod import LabelValue

RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
GPU_COUNTS = (0, 1, 2, 4, 8)  # what divides the 96 heads and 8 groups of the chat model
NODE_COUNTS = (1, 2, 4, 8)

GpuMemory = Annotated[str, StringConstraints(pattern=GPU_MEMORY)]
ResourceName = Annotated[str, StringConstraints(pattern=RESOURCE, min_length=3, max_length=253)]
Product = Annotated[LabelValue, StringConstraints(min_length=1)]


def _gpu_shape(count: int) -> int:
    if count not in GPU_COUNTS:
        raise ValueError(f"must be one of {', '.join(map(str, GPU_COUNTS))}")
    return count


GpuCount = Annotated[
    Int, AfterValidator(_gpu_shape), WithJsonSchema({"type": "integer", "enum": list(GPU_COUNTS)})
]


def _nodes(count: int) -> int:
    if count not in NODE_COUNTS:
        raise ValueError(f"must be one of {', '.join(map(str, NODE_COUNTS))}")
    return count


NodeCount = Annotated[
    Int, AfterValidator(_nodes), WithJsonSchema({"type": "integer", "enum": list(NODE_COUNTS)})
]


class DeviceSelector(Model):
    """What a device of the class has to be."""

    cel: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        description="As in a ResourceClaim: device.attributes, device.capacity, device.driver."
    )


class GpuClaim(Model):
    """GPUs by dynamic resource allocation (resource.k8s.io/v1, Kubernetes 1.34): one claim a pod."""

    device_class: Name | None = Field(
        default=None, description="The claim's template is made by the operator: gpu.count of this class."
    )
    selectors: Annotated[tuple[DeviceSelector, ...], Field(max_length=8)] | None = None
    template_name: Name | None = Field(
        default=None, description="A ResourceClaimTemplate of yours; gpu.count has to be what it asks for."
    )

    RULES = (
        Rule(
            cel="has(self.deviceClass) != has(self.templateName)",
            message="set exactly one of deviceClass and templateName",
            field="deviceClass",
            holds=lambda s: (s.device_class is None) != (s.template_name is None),
        ),
        Rule(
            cel="!has(self.selectors) || has(self.deviceClass)",
            message="selectors belong to a deviceClass; a template of yours has its own",
            field="selectors",
            holds=lambda s: s.selectors is None or s.device_class is not None,
        ),
    )


WAYS = {
    "resource": "resource",
    "products": "products",
    "requireMemory": "require_memory",
    "claim": "claim",
}
"""Fields (in YAML, in Python) that say which GPUs a replica gets: without any they would be ignored."""
_ANY_WAY = " || ".join(f"has(self.{field})" for field in WAYS)


def has_way(gpu: Cards | None) -> bool:
    """Whether one of `WAYS` is set."""
    return gpu is not None and any(getattr(gpu, attribute) is not None for attribute in WAYS.values())


class Cards(Model):
    """Which GPUs, whatever their number."""

    memory: GpuMemory | None = Field(
        default=None, description="Declared size of one GPU, decimal; what GPU memory is judged by."
    )
    resource: ResourceName | None = Field(
        default=None,
        description=(
            "Resource of a device plugin; nvidia.com/gpu where it is left out. A MIG profile"
            " (nvidia.com/mig-3g.40gb) or a shared card (nvidia.com/gpu.shared) has its own."
        ),
    )
    products: Annotated[tuple[Product, ...], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Only nodes whose label nvidia.com/gpu.product is one of these."
    )
    require_memory: bool | None = Field(
        default=None,
        description=(
            "Only nodes whose label nvidia.com/gpu.memory says as much as memory (98 % of it: drivers keep"
            " some)."
        ),
    )
    claim: GpuClaim | None = Field(default=None, description="Instead of a device plugin's resource.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!has(self.count) || self.count > 0 || !({_ANY_WAY})",
            message=f"a replica without a GPU cannot choose one: remove {', '.join(WAYS)}, or raise count",
            field="count",
            holds=lambda s: s.count != 0 or not has_way(s),
        ),
        Rule(
            cel=f"!has(self.memory) || !has(self.resource) || !self.resource.startsWith('{MIG_PREFIX}')",
            message="a MIG profile says its memory itself: remove memory",
            field="memory",
            holds=lambda s: s.memory is None or not (s.resource or "").startswith(MIG_PREFIX),
        ),
        Rule(
            cel="!has(self.requireMemory) || !self.requireMemory || has(self.memory)",
            message="say in memory how much",
            field="requireMemory",
            holds=lambda s: not s.require_memory or s.memory is not None,
        ),
        Rule(
            cel=(
                "!has(self.claim) || !(has(self.resource) || has(self.products) || has(self.requireMemory))"
            ),
            message="a claim chooses by its selectors: remove resource, products and requireMemory",
            field="claim",
            holds=lambda s: (
                s.claim is None or (s.resource is None and s.products is None and s.require_memory is None)
            ),
        ),
    )


class Gpus(Cards):
    """GPUs of one replica; they are on one node, unless `nodes` says otherwise."""

    count: GpuCount | None = Field(default=None, description="0 runs on the CPU.")
    nodes: NodeCount | None = Field(
        default=None,
        description=(
            "Pods that share the GPUs of one replica, each with as many of them: more than 1 needs"
            " LeaderWorkerSet in the cluster."
        ),
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        *Cards.RULES,
        Rule(
            cel=(
                "!has(self.nodes) || self.nodes == 1"
                " || (has(self.count) && self.count >= self.nodes && self.count % self.nodes == 0)"
            ),
            message="count is the GPUs of all nodes together: set it to nodes, or to 2, 4 or 8 times as many",
            field="nodes",
            holds=lambda s: (
                s.nodes is None
                or s.nodes == 1
                or (s.count is not None and s.count >= s.nodes and s.count % s.nodes == 0)
            ),
        ),
    )


class SingleGpu(Cards):
    """The GPU of one replica."""

    count: Annotated[Int, Field(ge=0, le=1)] | None = Field(default=None, description="0 runs on the CPU.")


def not_split(unless: str = "", applies: Callable[[Any], bool] = lambda s: True) -> Rule:
    """A rule for a part with a field `gpu`: a model is not split over parts of cards. Where it `applies` only
    to some, `unless` begins the CEL with the others.
    """
    part = f"self.gpu.resource.startsWith('{MIG_PREFIX}') || self.gpu.resource.endsWith('{SHARED_SUFFIX}')"
    return Rule(
        cel=(
            f"{unless}!has(self.gpu) || !has(self.gpu.resource) || !({part})"
            " || (has(self.gpu.count) && self.gpu.count <= 1)"
        ),
        message="a model is not spread over parts of cards: set count to 1",
        field="gpu.count",
        holds=lambda s: (
            not applies(s)
            or s.gpu is None
            or s.gpu.resource is None
            or not is_part(s.gpu.resource)
            or (s.gpu.count is not None and s.gpu.count <= 1)
        ),
    )


def known_gb(gpu: Cards | None, otherwise: str | None) -> int | None:
    """Decimal GB of one GPU of a replica, by all that is said of it: the least where that differs (a product
    of several may come). `otherwise` is the declared size where nothing is said; None where nothing is known.
    """
    if gpu is not None:
        said = [product_gb(product) for product in gpu.products or ()]
        said.append(profile_gb(gpu.resource) if gpu.resource is not None else None)
        said.append(_gb(gpu.memory) if gpu.memory is not None else None)
        known = [size for size in said if size is not None]
        if known:
            return min(known)
    return _gb(otherwise) if otherwise is not None else None


def chosen_by(gpu: Cards | None) -> str:
    """Which GPUs a replica gets, in words; "" where any will do."""
    if gpu is None:
        return ""
    if gpu.claim is not None:
        kind, name = (
            ("class", gpu.claim.device_class)
            if gpu.claim.device_class
            else ("template", gpu.claim.template_name)
        )
        return f"claim by {kind} {name}"
    words = [gpu.resource] if gpu.resource is not None else []
    return ", ".join(words + ([" or ".join(gpu.products)] if gpu.products else []))


def _gb(memory: str) -> int:
    return int(memory.removesuffix("GB"))


def gpu_count(part: Any) -> int | None:
    """GPUs of a replica of a document's `part`; None where it leaves that to the preset."""
    return part.gpu.count if part is not None and part.gpu is not None else None
