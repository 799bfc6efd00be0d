"""Which field of a StepAudioDeployment replaces the pods of which pool, or moves traffic to another release.

Nothing here is a list of answers: every row is a change of one field, rendered before and after by the same
functions as the real thing and compared. `stepaudio-operator fields` prints the table and `docs/operator.md`
holds it; a test compares the two and finds a field without a row.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.border import release_of
from stepaudio_operator.render.deployment import children
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.render.pool import input_hash
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.reading import parse_deployment, parse_pool

POOL = "POOL"
"""Stands for every component in a change's path that knows the field."""
_VOLUME = {"source": {"pvc": {"claimName": "models"}}}
_NANO: Mapping[str, Any] = {"preset": "nano", "runtime": {"version": "1.4.2"}}
_ON_VOLUME: Mapping[str, Any] = {**_NANO, "models": _VOLUME}
_HUB: Mapping[str, Any] = {"huggingFace": {}}
_FROM_HUB: Mapping[str, Any] = {**_NANO, "models": {"source": _HUB}}
_STEP, _LARGER_STEP = ({"steps": [{"traffic": share, "pause": "5m"}]} for share in (10, 20))


def _on_a_gpu(**gpu: Any) -> Mapping[str, Any]:
    return {**_NANO, **{component: {"gpu": {"count": 1, **gpu}} for component in names.MODEL_COMPONENTS}}


@dataclass(frozen=True)
class Effect:
    """Components whose pods are replaced, components that come or go, and whether the release moves."""

    replaced: frozenset[str]
    switched: frozenset[str]
    release: bool


@dataclass(frozen=True)
class Change:
    """`path` (below `spec`) goes from `old` to `new`, None for absent, in a deployment that says `base`."""

    path: str
    old: Any
    new: Any
    base: Mapping[str, Any]
    when: str = ""
    """What the row says beside the field's name."""


CHANGES: tuple[Change, ...] = (
    Change("preset", "nano", "step-audio", _ON_VOLUME),
    Change("runtime.version", "1.4.2", "1.4.3", _ON_VOLUME, "same series, models on a volume"),
    Change("runtime.version", "1.4.2", "1.4.3", _NANO, "models in the image"),
    Change("runtime.version", "1.4.2", "2.0.0", _ON_VOLUME, "another series"),
    Change("runtime.registry", None, "registry.example.com", _ON_VOLUME, "models on a volume"),
    Change("runtime.registry", None, "registry.example.com", _NANO, "models in the image"),
    Change("runtime.pullPolicy", None, "Always", _NANO),
    Change("models.source", {"image": {"path": "/a"}}, {"image": {"path": "/b"}}, _NANO, "another folder"),
    Change("models.source", _VOLUME["source"], {"pvc": {"claimName": "other"}}, _NANO, "another claim"),
    Change("models.source", _HUB, {"huggingFace": {"revisions": {"tts": "v2"}}}, _NANO, "another revision"),
    Change("models.source", _HUB, {"huggingFace": {"tokenSecretRef": {"name": "hf"}}}, _NANO, "a token"),
    Change("models.cache.size", None, "2Gi", _FROM_HUB),
    Change("models.cache.storageClassName", None, "fast", _FROM_HUB),
    Change("models.cache.accessMode", None, "ReadWriteOnce", _FROM_HUB),
    Change("models.cache.whenUnused", None, "Delete", _FROM_HUB),
    Change("models.cache.nodeLocal", None, {"claimName": "node-models"}, _FROM_HUB),
    Change("chat.enabled", None, False, _NANO),
    Change("tts.enabled", None, False, _NANO),
    Change("tokenizer.enabled", None, False, {**_NANO, "chat": {"enabled": False}}, "without chat"),
    Change("chat.enabled", None, False, _FROM_HUB, "models are downloaded"),
    Change("tts.enabled", None, False, _FROM_HUB, "models are downloaded"),
    Change(
        "tokenizer.enabled",
        None,
        False,
        {**_FROM_HUB, "chat": {"enabled": False}},
        "without chat, models are downloaded",
    ),
    Change("gateway.enabled", None, False, _NANO),
    Change("tokenizer.placement", None, "WithTTS", _NANO),
    Change("POOL.replicas", 1, 2, _NANO),
    Change("POOL.autoscaling", None, {"max": 2}, _NANO),
    Change("POOL.gpu.count", None, 1, _NANO),
    Change("chat.gpu.nodes", None, 2, {**_NANO, "chat": {"gpu": {"count": 2}}}),
    Change("POOL.gpu.memory", None, "24GB", _NANO),
    Change(
        "POOL.gpu.memory", "24GB", "40GB", _on_a_gpu(memory="24GB", requireMemory=True), "with requireMemory"
    ),
    Change("POOL.gpu.requireMemory", None, True, _on_a_gpu(memory="24GB")),
    Change("POOL.gpu.resource", None, "nvidia.com/mig-3g.40gb", _on_a_gpu()),
    Change("POOL.gpu.products", None, ["NVIDIA-L4"], _on_a_gpu()),
    Change("POOL.gpu.claim", None, {"deviceClass": "gpu.nvidia.com"}, _on_a_gpu()),
    Change("POOL.maxModelLen", None, 4096, _NANO),
    Change("POOL.gpuMemoryUtilization", None, 0.5, _on_a_gpu()),
    Change("POOL.quantization", None, "FP8", _on_a_gpu()),
    Change("gateway.auth", None, {"secretRef": {"name": "keys"}}, _NANO),
    Change("gateway.maxAudioSeconds", None, 60, _NANO),
    Change("gateway.maxInFlight", None, 8, _NANO),
    Change("POOL.podTemplate.labels", None, {"team": "voice"}, _NANO),
    Change("POOL.podTemplate.annotations", None, {"note": "a"}, _NANO),
    Change("POOL.podTemplate.nodeSelector", None, {"disk": "fast"}, _NANO),
    Change("POOL.podTemplate.tolerations", None, [{"operator": "Exists"}], _NANO),
    Change("POOL.podTemplate.affinity", None, {"nodeAffinity": {}}, _NANO),
    Change("POOL.podTemplate.topologySpreadConstraints", None, [{"maxSkew": 1}], _NANO),
    Change("POOL.podTemplate.resources", None, {"requests": {"cpu": "2"}}, _NANO),
    Change("POOL.podTemplate.priorityClassName", None, "high", _NANO),
    Change("POOL.podTemplate.runtimeClassName", None, "nvidia", _NANO),
    Change("POOL.podTemplate.schedulerName", None, "other", _NANO),
    Change("POOL.podTemplate.queue", None, {"name": "gpus"}, _NANO),
    Change("POOL.podTemplate.registry", None, "registry.example.com", _NANO),
    Change("POOL.podTemplate.imagePullSecrets", None, [{"name": "pull"}], _NANO),
    Change("POOL.podTemplate.env", None, [{"name": "A", "value": "1"}], _NANO),
    Change("POOL.podTemplate.volumes", None, [{"name": "extra", "emptyDir": {}}], _NANO),
    Change("POOL.podTemplate.volumeMounts", None, [{"name": "extra", "mountPath": "/extra"}], _NANO),
    Change("POOL.podTemplate.shmSize", None, "1Gi", _NANO),
    Change("voices.store", {"pvc": {"claimName": "voices"}}, {"s3": {"bucket": "voices"}}, _NANO),
    Change("voices.watermark", None, False, {**_NANO, "voices": {"store": {"s3": {"bucket": "voices"}}}}),
    Change("rollout.strategy", None, "InPlace", _NANO),
    Change("rollout.maxUnavailable", None, 2, _NANO),
    Change("rollout.drainTimeout", None, "5m", _NANO),
    Change("rollout.surgeTimeout", None, "1m", _NANO),
    Change("rollout.progressDeadline", None, "1h", _NANO),
    Change("rollout.autoRollback", None, False, _NANO),
    Change("rollout.historyLimit", None, 2, _NANO),
    Change("rollout.canary", _STEP, _LARGER_STEP, {**_NANO, "rollout": {"strategy": "Canary"}}),
    Change("health.canary.interval", None, "30s", _NANO),
    Change("health.stallTimeout", None, "60s", _NANO),
    Change("vram.policy", None, "Warn", _NANO),
    Change("paused", None, True, _NANO),
)


def effect(before: Mapping[str, Any], after: Mapping[str, Any]) -> Effect:
    """What changing a deployment's spec from `before` to `after` does. Raises SpecError."""
    old, new = _pools(before), _pools(after)
    both = old.keys() & new.keys()
    return Effect(
        replaced=frozenset(c for c in both if input_hash(old[c]) != input_hash(new[c])),
        switched=frozenset(old.keys() ^ new.keys()),
        release=any(release_of(old[c]) != release_of(new[c]) for c in both),
    )


def table() -> str:
    """The table as markdown: fields with the same effect that follow each other share a row."""
    said = [(_label(change), _words(list(_effects(change)))) for change in CHANGES]
    lines = [
        f"| {', '.join(label for label, _ in rows)} | {words} |"
        for words, rows in itertools.groupby(said, key=lambda row: row[1])
    ]
    return "\n".join(["| fields of `spec` | what a change of one does |", "|---|---|", *lines]) + "\n"


def _effects(change: Change) -> Iterator[tuple[str, Effect]]:
    """The component that stands for `POOL`, "" without one, and the effect."""
    if not change.path.startswith(f"{POOL}."):
        yield "", effect(_with(change, change.path, change.old), _with(change, change.path, change.new))
        return
    for component in knowing(change.path.removeprefix(f"{POOL}.")):
        path = change.path.replace(POOL, component)
        yield component, effect(_with(change, path, change.old), _with(change, path, change.new))


def knowing(field: str) -> tuple[str, ...]:
    """The components whose part of the spec has this field (of which its first name is looked at)."""

    def fields(component: str) -> set[str]:
        part = DeploymentSpec.model_fields[component].annotation
        models = [a for a in getattr(part, "__args__", ()) if hasattr(a, "model_fields")]
        return {info.alias or name for model in models for name, info in model.model_fields.items()}

    return tuple(c for c in names.COMPONENTS if field.partition(".")[0] in fields(c))


def _with(change: Change, path: str, value: Any) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(dict(change.base))
    *above, last = path.split(".")
    part = spec
    for step in above:
        part = part.setdefault(step, {})
    part.pop(last, None)
    if value is not None:
        part[last] = value
    return spec


def _pools(spec: Mapping[str, Any]) -> dict[str, PoolSpec]:
    """The pools' specs by component, as the operator would write them."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"namespace": "any", "name": "any", "uid": ""},
        "spec": spec,
    }
    made = children(owner, parse_deployment(owner), {}, ImageDefaults("1.4.2"))
    specs = (parse_pool(child) for child in made if child["kind"] == names.POOL_KIND)
    return {pool.component: pool for pool in specs}


def _label(change: Change) -> str:
    field = change.path.removeprefix(f"{POOL}.")
    owners = knowing(field) if field != change.path else names.COMPONENTS
    of = f" of {' and '.join(', '.join(owners).rsplit(', ', 1))}" if owners != names.COMPONENTS else ""
    return f"`{field}`{of}" + (f" ({change.when})" if change.when else "")


def _words(found: list[tuple[str, Effect]]) -> str:
    """What the effects come to; of a field that several components have, each has to do alike."""
    said = {_of(component, effect_) for component, effect_ in found}
    return "; ".join(sorted(said))


def _of(own: str, effect_: Effect) -> str:
    words = []
    if effect_.switched:
        words.append(f"{_pool_names(effect_.switched, own)} comes or goes")
    if effect_.replaced:
        words.append(f"replaces the pods of {_pool_names(effect_.replaced, own)}")
    if effect_.release:
        words.append("**another release**")
    return ", ".join(words) or "replaces nothing"


def _pool_names(components: frozenset[str], own: str) -> str:
    if components == {own}:
        return "its own pool"
    if components == set(names.COMPONENTS):
        return "every pool"
    return " and ".join(", ".join(c for c in names.COMPONENTS if c in components).rsplit(", ", 1))
