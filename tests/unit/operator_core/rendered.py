"""A deployment and a pool to render, and what all that is rendered has."""

from typing import Any

from stepaudio_operator.records import PoolRecord, RevisionRecord
from stepaudio_operator.render import deployment, pool
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment, parse_pool

DEFAULTS = ImageDefaults("1.0.0", "registry.example.com/team")
LABELS = {
    "app.kubernetes.io/name": "step-audio",
    "app.kubernetes.io/instance": "prod",
    "app.kubernetes.io/managed-by": "stepaudio-operator",
    "stepaudio.io/deployment": "prod",
}
OWNER_OF_CHILDREN = {
    "apiVersion": "stepaudio.io/v1alpha1",
    "kind": "StepAudioDeployment",
    "name": "prod",
    "uid": "d-uid",
    "controller": True,
}


def owner(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioDeployment",
        "metadata": {"name": "prod", "namespace": "speech", "uid": "d-uid", "generation": 1},
        "spec": {"preset": "nano", **spec},
    }


def children(raw: dict[str, Any], pools: dict[str, PoolRecord] | None = None) -> list[dict[str, Any]]:
    return deployment.children(raw, parse_deployment(raw), pools or {}, DEFAULTS)


def pool_raw(component: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioPool",
        "metadata": {"name": f"prod-{component}", "namespace": "speech", "uid": "p-uid", "generation": 1},
        "spec": {
            "deployment": "prod",
            "component": component,
            "preset": "nano",
            "runtime": {"version": "1.0.0", "registry": ""},
            **spec,
        },
    }


def stored(raw: dict[str, Any]) -> RevisionRecord:
    revision = pool.revision(raw, parse_pool(raw))
    return RevisionRecord.from_raw(pool.controller_revision(raw, revision, 3))
