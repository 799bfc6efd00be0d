"""Specs become exactly these Kubernetes objects, and a new operator leaves stored revisions as they are."""

import json
from dataclasses import replace
from typing import Any

from stepaudio_operator.records import PoolRecord, RevisionRecord, RoutedPool, Routing
from stepaudio_operator.render import deployment, pool, routing
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


def head(kind: str, name: str, component: str, api: str = "v1") -> dict[str, Any]:
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "speech",
            "labels": {**LABELS, "app.kubernetes.io/component": component},
            "ownerReferences": [OWNER_OF_CHILDREN],
        },
    }


RBAC = "rbac.authorization.k8s.io/v1"
POOLS = "stepaudio.io/v1alpha1"


def test_the_children_of_a_speech_only_deployment() -> None:
    raw = owner(
        chat={"enabled": False},
        tokenizer={"enabled": False},
        tts={"replicas": 2, "podTemplate": {"labels": {"team": "a"}}},
        rollout={"maxUnavailable": 1, "drainTimeout": "30s"},
    )
    common = {
        "deployment": "prod",
        "preset": "nano",
        "runtime": {"version": "1.0.0", "registry": "registry.example.com/team"},
        "rollout": {"drainTimeout": "30s"},
    }
    selector = {"app.kubernetes.io/managed-by": "stepaudio-operator"}
    port = {"name": "http", "protocol": "TCP", "targetPort": "http"}
    assert children(raw) == [
        head("ServiceAccount", "prod-gateway", "gateway"),
        head("Role", "prod-gateway", "gateway", RBAC)
        | {
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["configmaps"],
                    "resourceNames": ["prod-routing"],
                    "verbs": ["get", "list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["get", "list", "watch"],
                },
            ]
        },
        head("RoleBinding", "prod-gateway", "gateway", RBAC)
        | {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "prod-gateway"},
            "subjects": [{"kind": "ServiceAccount", "name": "prod-gateway", "namespace": "speech"}],
        },
        head("Service", "prod-tts", "tts")
        | {
            "spec": {
                "clusterIP": "None",
                "ports": [{**port, "port": 8000}],
                "selector": {**selector, "stepaudio.io/pool": "prod-tts"},
            }
        },
        head("StepAudioPool", "prod-tts", "tts", POOLS)
        | {"spec": common | {"component": "tts", "replicas": 2, "podTemplate": {"labels": {"team": "a"}}}},
        head("Service", "prod-gateway", "gateway")
        | {
            "spec": {
                "type": "ClusterIP",
                "ports": [{**port, "port": 80}],
                "selector": {**selector, "stepaudio.io/pool": "prod-gateway"},
            }
        },
        head("StepAudioPool", "prod-gateway", "gateway", POOLS)
        | {"spec": common | {"component": "gateway", "replicas": 1}},
    ]


def test_what_is_said_to_a_deployment_is_said_to_its_pools() -> None:
    raw = owner()
    said = {"stepaudio.io/retry": "1", "stepaudio.io/restart": "monday"}
    raw["metadata"]["annotations"] = {**said, "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    annotations = [c["metadata"].get("annotations") for c in children(raw) if c["kind"] == "StepAudioPool"]
    assert annotations == [said] * 4


def test_model_settings_reach_the_pools_but_not_the_gateway() -> None:
    models = {"source": {"pvc": {"claimName": "m"}}}
    raw = owner(preset="step-audio", models=models, chat={"gpu": {"count": 8}, "maxModelLen": 4096})
    specs = {c["spec"]["component"]: c["spec"] for c in children(raw) if c["kind"] == "StepAudioPool"}
    assert specs["chat"] == {
        "deployment": "prod",
        "component": "chat",
        "preset": "step-audio",
        "runtime": {"version": "1.0.0", "registry": "registry.example.com/team"},
        "models": models,
        "replicas": 1,
        "gpu": {"count": 8},
        "maxModelLen": 4096,
    }
    assert specs["tokenizer"]["models"] == models
    assert "models" not in specs["gateway"]


def record(component: str, **spec: Any) -> PoolRecord:
    return PoolRecord.from_raw(
        {
            "metadata": {"name": f"prod-{component}", "namespace": "speech"},
            "spec": {"deployment": "prod", "component": component, **spec},
        }
    )


def runtimes(raw: dict[str, Any], pools: dict[str, PoolRecord]) -> list[dict[str, Any]]:
    return [c["spec"]["runtime"] for c in children(raw, pools) if c["kind"] == "StepAudioPool"]


def test_another_operator_version_does_not_change_the_images_of_a_deployment() -> None:
    pools = {"chat": record("chat", runtime={"version": "0.9", "registry": "old"})}
    assert runtimes(owner(), pools) == [{"version": "0.9", "registry": "old"}] * 4
    chosen = owner(runtime={"version": "2.0", "pullPolicy": "Always"})
    assert runtimes(chosen, pools) == [{"version": "2.0", "registry": "old", "pullPolicy": "Always"}] * 4


def test_who_decides_a_pools_replicas() -> None:
    raw = owner(tts={"replicas": 3}, preset="step-audio", models={"source": {"pvc": {"claimName": "m"}}})
    pools = {
        "chat": record("chat"),  # nobody has decided
        "tts": record("tts"),  # the user has, in the children
        "tokenizer": record("tokenizer", replicas=5),  # an autoscaler has
        "gateway": replace(record("gateway", replicas=4), replicas_owned=True),  # the user did, until now
    }

    def numbers(pools: dict[str, PoolRecord]) -> dict[str, int | None]:
        made = [c["spec"] for c in children(raw, pools) if c["kind"] == "StepAudioPool"]
        return {spec["component"]: spec.get("replicas") for spec in made}

    assert numbers({}) == {"chat": 1, "tts": 3, "tokenizer": 1, "gateway": 2}  # the preset's where left out
    assert numbers(pools) == {"chat": 1, "tts": 3, "tokenizer": None, "gateway": 4}


def test_what_belongs_to_a_disabled_component_is_obsolete() -> None:
    raw = owner(gateway={"enabled": False}, tokenizer={"enabled": False}, chat={"enabled": False})
    existing = [
        ("StepAudioPool", "prod-tts"),
        ("StepAudioPool", "prod-gateway"),
        ("Service", "prod-tokenizer"),
        ("Role", "prod-gateway"),
        ("ConfigMap", "prod-routing"),
        ("ConfigMap", "mine"),
    ]
    assert deployment.obsolete(raw, parse_deployment(raw), existing) == existing[1:5]


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


class TestRevisions:
    def hash8(self, **spec: Any) -> str:
        raw = pool_raw("chat", **spec)
        return pool.revision(raw, parse_pool(raw)).hash8

    def test_it_is_stable(self) -> None:
        # A change here restarts every pool in every cluster at the next operator upgrade.
        assert self.hash8() == "234b3aa5"

    def test_what_reaches_no_pod_and_what_equals_a_default_changes_nothing(self) -> None:
        assert self.hash8(replicas=7) == self.hash8()
        assert self.hash8(rollout={"maxUnavailable": 3}) == self.hash8()
        assert self.hash8(rollout={"maxUnavailable": 1}) == self.hash8()
        assert self.hash8(gpu={"memory": "80GB"}) == self.hash8()

    def test_what_reaches_a_pod_is_another_revision(self) -> None:
        variants = [
            self.hash8(),
            self.hash8(runtime={"version": "1.0.1", "registry": ""}),
            self.hash8(gpu={"count": 1}),
            self.hash8(maxModelLen=512),
            self.hash8(rollout={"drainTimeout": "61s"}),
            self.hash8(podTemplate={"labels": {"a": "b"}}),
        ]
        assert len(set(variants)) == len(variants)

    def test_a_restart_is_another_revision_of_the_same_pods(self) -> None:
        raw, again = pool_raw("chat"), pool_raw("chat")
        again["metadata"]["annotations"] = {"stepaudio.io/restart": "monday"}
        before, after = (pool.revision(r, parse_pool(r)) for r in (raw, again))
        assert before.hash8 != after.hash8
        assert pool.controller_revision(again, after, 4)["metadata"]["annotations"] == {
            "stepaudio.io/inputs": after.inputs,
            "stepaudio.io/release": str(before.release),
            "stepaudio.io/restart": "monday",
        }
        assert json.loads(json.dumps(after.data).replace(after.hash8, before.hash8)) == before.data

    def test_a_retry_changes_what_is_asked_and_no_pod(self) -> None:
        raw, again = pool_raw("chat"), pool_raw("chat")
        again["metadata"]["annotations"] = {"stepaudio.io/retry": "1"}
        assert pool.revision(again, parse_pool(again)) == pool.revision(raw, parse_pool(raw))
        assert pool.ask(again, parse_pool(again)) != pool.ask(raw, parse_pool(raw))

    def test_pods_come_from_the_stored_template_whatever_this_version_would_render(self) -> None:
        raw = pool_raw("chat")
        record = stored(raw)
        assert (record.number, record.pool, record.name) == (3, "prod-chat", f"prod-chat-{record.hash8}")
        data = {**record.data, "template": {"metadata": {"labels": {"old": "yes"}}, "spec": {"old": 1}}}
        made = pool.replica(raw, replace(record, data=data), slot=0)
        assert made["spec"] == {"old": 1}
        assert made["metadata"]["labels"] == {"old": "yes"}


def test_the_routing_object_is_read_back_as_it_was_written() -> None:
    written = Routing(
        generation=3,
        release="b1946ac9-1",
        serving=True,
        retry_after_s=None,
        pools={"tts": RoutedPool("prod-tts", 8000, {"9d3e77b1": 100})},
    )
    config = routing.config_map(owner(), written)
    assert config["metadata"]["name"] == "prod-routing"
    assert config["data"]["routing.json"] == (
        '{"generation": 3, "pools": {"tts": {"port": 8000, "revisions": {"9d3e77b1": 100},'
        ' "service": "prod-tts"}}, "release": "b1946ac9-1", "retryAfterSeconds": null, "serving": true}'
    )
    assert routing.parse(config) == written


def test_a_routing_object_that_somebody_broke_is_written_anew() -> None:
    for broken in (None, {}, {"data": {"routing.json": "{"}}, {"data": {"routing.json": "[1]"}}):
        assert routing.parse(broken) is None
