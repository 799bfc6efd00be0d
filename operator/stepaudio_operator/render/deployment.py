"""The children of a StepAudioDeployment: pools, Services, and the gateway's identity.

A pool's spec holds what the user set and the resolved images, nothing of the preset: so its content, and
with it the pool's revision, does not change when another operator version has other presets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.records import CanaryVerdict, PoolRecord
from stepaudio_operator.release import ReleasePlan
from stepaudio_operator.render import declared
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.render.models import pool_models
from stepaudio_operator.render.objects import child
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import as_written
from stepaudio_operator.spec.reading import parse_pool

# What a person says to a deployment for each of its pools.
_PASSED_ON = (names.ANNOTATION_RETRY, names.ANNOTATION_RESTART)
_RBAC = "rbac.authorization.k8s.io"


def children(
    owner: Mapping[str, Any],
    spec: DeploymentSpec,
    pools: Mapping[str, PoolRecord],
    defaults: ImageDefaults,
    held_models: Mapping[str, Any] | None = None,
    *,
    voices: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Every child that `owner` (the raw StepAudioDeployment) should have, in an order that can be applied.

    `pools` are its existing pools by component: an image version or registry that the spec leaves open
    stays what they have, and only new deployments take `defaults`. `spec.replicas` of a pool is there where
    the user set it, in a new pool (the preset's number), and as it is for as long as the operator's field
    manager holds it: the first who scales the pool becomes its owner, and from then on it is left out. With
    `autoscaling` the user's number is only what a new pool begins with.

    `held_models` has, by component, the models that pools keep because those that the spec asks for are still
    being downloaded; pools that are not in it are left out. `voices` is what the gateways are to keep of
    the voices that stand in Git (`voices.wanted`).
    """
    objects: list[dict[str, Any]] = []
    if names.GATEWAY in spec.components:
        kept = voices if spec.voices is not None else None
        objects += _gateway_identity(owner, declared.rules(owner, kept) if kept is not None else [])
        if kept is not None:
            objects.append(declared.config_map(owner, kept))
    for component in spec.components:
        objects.append(_service(owner, component))
        models = pool_models(spec)
        if component != names.GATEWAY and held_models is not None:
            if component not in held_models:
                continue
            models = held_models[component]
        objects.append(_pool(owner, spec, component, pools, defaults, models=models))
    return objects


def as_it_stands(owner: Mapping[str, Any], pool: Mapping[str, Any], record: PoolRecord) -> dict[str, Any]:
    """The raw `pool` as it was applied last, apart from what it was told: the spec of `owner` says nothing of
    one that leaves.
    """
    standing = _pool_head(owner, record.component, pool["metadata"].get("annotations") or {})
    try:
        said = as_written(parse_pool(pool))  # without what the API server filled in
    except SpecError:  # by older rules
        said = pool["spec"]
    standing["spec"] = {k: v for k, v in said.items() if k != "replicas" or record.replicas_owned}
    return standing


def note(
    children: Iterable[dict[str, Any]],
    release: ReleasePlan,
    failed: Mapping[str, CanaryVerdict],
    watched: Mapping[str, str],
) -> None:
    """Writes into the pools among `children` what they have to know of a change of release, which canary has
    `failed`, and which revision is `watched`, by component.
    """
    for child_ in children:
        if child_["kind"] != names.POOL_KIND:
            continue
        notes, component = {}, child_["spec"]["component"]
        if revisions := release.keep.get(component):
            notes[names.ANNOTATION_KEEP] = ",".join(revisions)
        if component in failed:
            notes[names.ANNOTATION_CANARY_FAILED] = failed[component].to_annotation()
        if component in watched:
            notes[names.ANNOTATION_CANARY_WATCHED] = watched[component]
        if component in release.trial:
            notes[names.ANNOTATION_TRIAL] = str(release.trial[component])
        if component in release.condemned:
            notes[names.ANNOTATION_CONDEMNED] = str(release.condemned[component])
        if component in release.back:
            notes[names.ANNOTATION_BACK] = str(release.back[component])
        if notes:
            child_["metadata"].setdefault("annotations", {}).update(notes)


def obsolete(
    owner: Mapping[str, Any],
    spec: DeploymentSpec,
    existing: Iterable[tuple[str, str]],
    leaving: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Which of the `existing` (kind, name) children belong to what is disabled or has no pool now, apart from
    those that are still `leaving`.
    """
    name = owner["metadata"]["name"]
    gone: set[tuple[str, str]] = set()
    for component in names.COMPONENTS:
        if component in spec.components or component in leaving:
            continue
        pool = names.pool(name, component)
        gone |= {(names.POOL_KIND, pool), ("Service", pool)}
        if component == names.GATEWAY:
            identity = names.gateway_identity(name)
            gone |= {(kind, identity) for kind in ("ServiceAccount", "Role", "RoleBinding")}
            gone.add(("ConfigMap", names.routing(name)))
    if spec.voices is None or names.GATEWAY not in spec.components:
        gone.add(("ConfigMap", names.voices(name)))
    return [entry for entry in existing if entry in gone]


def _pool(
    owner: Mapping[str, Any],
    spec: DeploymentSpec,
    component: str,
    pools: Mapping[str, PoolRecord],
    defaults: ImageDefaults,
    *,
    models: dict[str, Any] | None,
) -> dict[str, Any]:
    pool = _pool_head(owner, component, owner["metadata"].get("annotations") or {})
    pool["spec"] = {
        "deployment": owner["metadata"]["name"],
        "component": component,
        "preset": spec.preset,
        "runtime": _runtime(spec, pools, defaults),
    }
    if models is not None and component != names.GATEWAY:
        pool["spec"]["models"] = models
    if spec.voices is not None and component in (names.TTS, names.GATEWAY):
        # Whether speech is marked is the gateway's matter: TTS pods are not replaced for it.
        mark = {} if component == names.TTS else {"watermark": spec.voices.watermark}
        pool["spec"]["voices"] = {"store": as_written(spec.voices.store), **mark}
    if spec.rollout is not None and (rollout := as_written(spec.rollout)):
        pool["spec"]["rollout"] = rollout
    if spec.health is not None and component != names.GATEWAY and (health := as_written(spec.health)):
        pool["spec"]["health"] = health
    if (replicas := _replicas(spec, component, pools.get(component))) is not None:
        pool["spec"]["replicas"] = replicas
    part = getattr(spec, component)
    if part is not None:
        left_out = {"enabled", "placement"} | ({"replicas"} if part.autoscaling is not None else set())
        pool["spec"] |= {k: v for k, v in as_written(part).items() if k not in left_out}
    if component == names.TTS and spec.tokenizer_with_tts:
        pool["spec"]["withTokenizer"] = True
    return pool


def _pool_head(owner: Mapping[str, Any], component: str, said: Mapping[str, str]) -> dict[str, Any]:
    name = owner["metadata"]["name"]
    pool = child(
        owner,
        api_version=names.API_VERSION,
        kind=names.POOL_KIND,
        name=names.pool(name, component),
        labels=names.child_labels(name, component),
    )
    if passed := {key: said[key] for key in _PASSED_ON if said.get(key)}:
        pool["metadata"]["annotations"] = passed
    return pool


def _replicas(spec: DeploymentSpec, component: str, pool: PoolRecord | None) -> int | None:
    """The number that a pool has where the user says none; None where somebody else decides it."""
    if pool is None or pool.replicas is None:
        return _to_begin_with(spec, component)
    return pool.replicas if pool.replicas_owned else None


def _to_begin_with(spec: DeploymentSpec, component: str) -> int:
    preset = PRESETS[spec.preset].pools[component].replicas
    part = getattr(spec, component)
    if part is None or part.autoscaling is None:
        return preset
    wanted = preset if part.replicas is None else part.replicas
    return min(max(wanted, part.autoscaling.min), part.autoscaling.max)


def _runtime(
    spec: DeploymentSpec, pools: Mapping[str, PoolRecord], defaults: ImageDefaults
) -> dict[str, Any]:
    wanted = as_written(spec.runtime) if spec.runtime is not None else {}
    kept = next((pools[c] for c in names.COMPONENTS if c in pools and pools[c].runtime_version), None)
    registry = defaults.registry if kept is None else kept.runtime_registry or ""
    return {"version": kept.runtime_version if kept else defaults.version, "registry": registry, **wanted}


def _service(owner: Mapping[str, Any], component: str) -> dict[str, Any]:
    name = owner["metadata"]["name"]
    pool = names.pool(name, component)
    service = child(
        owner, api_version="v1", kind="Service", name=pool, labels=names.child_labels(name, component)
    )
    port: dict[str, Any] = {"name": names.PORT_NAME, "protocol": "TCP", "targetPort": names.PORT_NAME}
    if component == names.GATEWAY:
        service["spec"] = {
            "type": "ClusterIP",
            "ports": [{**port, "port": names.GATEWAY_SERVICE_PORT}],
        }
    else:
        # Headless: the gateway reads the endpoints and chooses among them itself.
        service["spec"] = {"clusterIP": "None", "ports": [{**port, "port": names.POOL_PORT}]}
    service["spec"]["selector"] = names.pool_selector(pool)
    return service


def _gateway_identity(owner: Mapping[str, Any], rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deployment = owner["metadata"]["name"]
    name, labels = names.gateway_identity(deployment), names.child_labels(deployment, names.GATEWAY)
    account = child(owner, api_version="v1", kind="ServiceAccount", name=name, labels=labels)
    role = child(owner, api_version=f"{_RBAC}/v1", kind="Role", name=name, labels=labels)
    role["rules"] = [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names.routing(deployment)],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        },
        *rules,
    ]
    binding = child(owner, api_version=f"{_RBAC}/v1", kind="RoleBinding", name=name, labels=labels)
    binding["roleRef"] = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    binding["subjects"] = [
        {"kind": "ServiceAccount", "name": name, "namespace": owner["metadata"]["namespace"]}
    ]
    return [account, role, binding]
