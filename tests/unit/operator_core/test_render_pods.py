"""A pool becomes exactly these pods, the gateway exactly this Deployment, each with its disruption budget."""

from typing import Any

from stepaudio_operator.render import pool
from stepaudio_operator.spec.reading import parse_pool
from tests.unit.operator_core.rendered import (
    LABELS,
    children,
    owner,
    pool_raw,
    stored,
)

POOL_OWNER = {
    "apiVersion": "stepaudio.io/v1alpha1",
    "kind": "StepAudioPool",
    "name": "prod-chat",
    "uid": "p-uid",
    "controller": True,
}
HTTP_HEALTH = {"httpGet": {"path": "/healthz", "port": "http"}}
LIVENESS = HTTP_HEALTH | {
    "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6, "terminationGracePeriodSeconds": 10,
}  # fmt: skip
READINESS = {
    "httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 5,
    "failureThreshold": 3,
}  # fmt: skip
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
PRE_STOP = {"preStop": {"sleep": {"seconds": 5}}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def startup(failures: int) -> dict[str, Any]:
    return HTTP_HEALTH | {
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "terminationGracePeriodSeconds": 10,
    }


def variables(**values: str) -> list[dict[str, Any]]:
    own = [{"name": name, "value": value} for name, value in values.items()]
    return [
        *own,
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {
            "name": "POD_NAMESPACE",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        },
    ]


def test_a_chat_pod_on_four_gpus_with_overrides() -> None:
    raw = pool_raw(
        "chat",
        preset="step-audio",
        runtime={"version": "1.4.2", "registry": "r.example.com/x", "pullPolicy": "Always"},
        models={"source": {"pvc": {"claimName": "models", "subPath": "step"}}},
        gpuMemoryUtilization=0.9,
        rollout={"drainTimeout": "5m"},
        podTemplate={
            "labels": {"team": "voice", "stepaudio-note": "x"},
            "annotations": {"a": "b"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "nodeSelector": {"disk": "fast"},
            "affinity": {"nodeAffinity": {"x": [1]}},
            "topologySpreadConstraints": [{"maxSkew": 1}],
            "resources": {"requests": {"memory": "400Gi"}},
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "schedulerName": "other",
            "registry": "near.example.com",
            "imagePullSecrets": [{"name": "pull"}],
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
            "shmSize": "32Gi",
        },
    )
    record = stored(raw)
    assert pool.replica(raw, record, slot=2, attempt=1) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"prod-chat-{record.hash8}-2",
            "namespace": "speech",
            "labels": {
                **LABELS,
                "app.kubernetes.io/component": "chat",
                "stepaudio.io/pool": "prod-chat",
                "stepaudio.io/revision": record.hash8,
                "team": "voice",
                "stepaudio-note": "x",
            },
            "annotations": {"a": "b", "stepaudio.io/slot": "2", "stepaudio.io/attempt": "1"},
            "ownerReferences": [POOL_OWNER],
        },
        "spec": {
            "restartPolicy": "Always",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 330,
            "securityContext": POD_SECURITY,
            "nodeSelector": {"disk": "fast"},
            "affinity": {"nodeAffinity": {"x": [1]}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "labelSelector": {
                        "matchLabels": {
                            "app.kubernetes.io/managed-by": "stepaudio-operator",
                            "stepaudio.io/pool": "prod-chat",
                        }
                    },
                }
            ],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "schedulerName": "other",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [
                {
                    "name": "main",
                    "image": "near.example.com/stepaudio/runtime-cuda:1.4.2",
                    "imagePullPolicy": "Always",
                    "command": ["stepaudio", "serve", "chat"],
                    "env": [
                        *variables(
                            HOME="/tmp",
                            STEPAUDIO_DEPLOYMENT="prod",
                            STEPAUDIO_COMPONENT="chat",
                            STEPAUDIO_REVISION=record.hash8,
                            STEPAUDIO_DRAIN_TIMEOUT_S="300",
                            STEPAUDIO_MODELS_DIR="/models",
                            STEPAUDIO_DEVICE="cuda",
                            STEPAUDIO_DTYPE="bfloat16",
                            STEPAUDIO_TENSOR_PARALLEL="4",
                            STEPAUDIO_MAX_MODEL_LEN="16384",
                            STEPAUDIO_GPU_MEMORY_UTILIZATION="0.9",
                        ),
                        {"name": "NCCL_DEBUG", "value": "INFO"},
                    ],
                    "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                    # The user's request is above the preset's limit, which therefore goes.
                    "resources": {
                        "requests": {"cpu": "8", "memory": "400Gi", "nvidia.com/gpu": "4"},
                        "limits": {"nvidia.com/gpu": "4"},
                    },
                    "startupProbe": startup(720),
                    "livenessProbe": LIVENESS,
                    "readinessProbe": READINESS,
                    "lifecycle": PRE_STOP,
                    "securityContext": CONTAINER_SECURITY,
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                        {"name": "models", "mountPath": "/models", "readOnly": True, "subPath": "step"},
                        {"name": "extra", "mountPath": "/extra"},
                    ],
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}},
                {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
                {"name": "extra", "emptyDir": {}},
            ],
        },
    }


def test_the_gateways_deployment() -> None:
    raw = pool_raw("gateway", auth={"secretRef": {"name": "keys"}}, maxAudioSeconds=60, maxInFlight=8)
    record = stored(raw)
    pool_labels = {**LABELS, "app.kubernetes.io/component": "gateway", "stepaudio.io/pool": "prod-gateway"}
    selector = {
        "app.kubernetes.io/managed-by": "stepaudio-operator",
        "stepaudio.io/pool": "prod-gateway",
    }
    workload = pool.gateway_deployment(raw, record, 2)
    assert workload == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "prod-gateway",
            "namespace": "speech",
            "labels": pool_labels,
            "ownerReferences": [{**POOL_OWNER, "name": "prod-gateway"}],
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "template": {
                "metadata": {"labels": {**pool_labels, "stepaudio.io/revision": record.hash8}},
                "spec": {
                    "restartPolicy": "Always",
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": True,
                    "serviceAccountName": "prod-gateway",
                    "terminationGracePeriodSeconds": 90,
                    "securityContext": POD_SECURITY,
                    "containers": [
                        {
                            "name": "main",
                            "image": "stepaudio/gateway:1.0.0",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["stepaudio", "serve", "gateway"],
                            "env": variables(
                                HOME="/tmp",
                                STEPAUDIO_DEPLOYMENT="prod",
                                STEPAUDIO_COMPONENT="gateway",
                                STEPAUDIO_REVISION=record.hash8,
                                STEPAUDIO_DRAIN_TIMEOUT_S="60",
                                STEPAUDIO_ROUTING_CONFIGMAP="prod-routing",
                                STEPAUDIO_API_KEYS_DIR="/etc/stepaudio/keys",
                                STEPAUDIO_MAX_AUDIO_S="60",
                                STEPAUDIO_MAX_IN_FLIGHT="8",
                            ),
                            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "256Mi"},
                                "limits": {"memory": "1Gi"},
                            },
                            "startupProbe": startup(24),
                            "livenessProbe": LIVENESS,
                            "readinessProbe": READINESS,
                            "lifecycle": PRE_STOP,
                            "securityContext": CONTAINER_SECURITY,
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "File",
                            "volumeMounts": [
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "shm", "mountPath": "/dev/shm"},
                                {"name": "keys", "mountPath": "/etc/stepaudio/keys", "readOnly": True},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                        {"name": "keys", "secret": {"secretName": "keys"}},
                    ],
                },
            },
        },
    }


def test_health_and_quantisation_reach_the_pods_and_are_left_out_where_nobody_said_them() -> None:
    said = {"health": {"canary": {"interval": "30s"}, "stallTimeout": "2m"}, "quantization": "FP8"}
    models = {"source": {"pvc": {"claimName": "m"}}}

    def ours(**spec: Any) -> set[tuple[str, str | None]]:
        raw = pool_raw("chat", preset="step-audio", models=models, **spec)
        (main,) = pool.revision(raw, parse_pool(raw)).data["template"]["spec"]["containers"]
        return {(v["name"], v.get("value")) for v in main["env"] if v["name"] != "STEPAUDIO_REVISION"}

    assert ours(**said) - ours() == {
        ("STEPAUDIO_CANARY_INTERVAL_S", "30"),
        ("STEPAUDIO_STALL_TIMEOUT_S", "120"),
        ("STEPAUDIO_QUANTIZATION", "FP8"),
    }
    assert ours() < ours(**said)
    raw = owner(health={"stallTimeout": "90s"})
    pools = {c["spec"]["component"]: c["spec"] for c in children(raw) if c["kind"] == "StepAudioPool"}
    assert [c for c in pools if "health" in pools[c]] == ["chat", "tts", "tokenizer"]


def test_an_image_of_models_is_mounted_as_a_volume() -> None:
    source = {"image": {"reference": "registry.example.com/models:1", "path": "/step-audio"}}
    spec = pool.replica(raw := pool_raw("tts", models={"source": source}), stored(raw), slot=0)["spec"]
    (main,) = spec["containers"]
    held = {"reference": "registry.example.com/models:1", "pullPolicy": "IfNotPresent"}
    assert spec["volumes"][-1] == {"name": "models", "image": held}
    assert main["volumeMounts"][-1] == {
        "name": "models",
        "mountPath": "/models",
        "readOnly": True,
        "subPath": "step-audio",
    }
    assert {"name": "STEPAUDIO_MODELS_DIR", "value": "/models"} in main["env"]


def test_nano_runs_on_the_cpu_from_the_images_own_models() -> None:
    raw = pool_raw("tts", podTemplate={"env": [{"name": "STEPAUDIO_KV_CACHE_GIB", "value": "2"}]})
    spec = pool.replica(raw, stored(raw), slot=0)["spec"]
    (main,) = spec["containers"]
    env = {variable["name"]: variable.get("value") for variable in main["env"]}
    assert main["image"] == "stepaudio/runtime-cpu:1.0.0"
    assert env["STEPAUDIO_MODELS_DIR"] == "/opt/stepaudio/nano"
    assert env["STEPAUDIO_DEVICE"] == "cpu"
    assert env["STEPAUDIO_DTYPE"] == "float32"
    assert [v for v in main["env"] if v["name"] == "STEPAUDIO_KV_CACHE_GIB"] == [
        {"name": "STEPAUDIO_KV_CACHE_GIB", "value": "2"}
    ]
    assert "nvidia.com/gpu" not in main["resources"]["limits"]


def test_the_disruption_budget_lets_one_pod_go_at_a_time() -> None:
    raw = pool_raw("chat")
    assert pool.disruption_budget(raw, parse_pool(raw)) == {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": "prod-chat",
            "namespace": "speech",
            "labels": {
                **LABELS,
                "app.kubernetes.io/component": "chat",
                "stepaudio.io/pool": "prod-chat",
            },
            "ownerReferences": [POOL_OWNER],
        },
        "spec": {
            "maxUnavailable": 1,
            "selector": {
                "matchLabels": {
                    "app.kubernetes.io/managed-by": "stepaudio-operator",
                    "stepaudio.io/pool": "prod-chat",
                }
            },
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
