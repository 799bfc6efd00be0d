"""Specs become exactly these Kubernetes objects, and a new operator leaves stored revisions as they are."""

import json
from dataclasses import replace
from typing import Any

from stepaudio_operator.records import PoolRecord, RoutedPool, Routing
from stepaudio_operator.render import deployment, pool, routing
from stepaudio_operator.spec.reading import parse_deployment, parse_pool
from tests.unit.operator_core.rendered import (
    LABELS,
    OWNER_OF_CHILDREN,
    children,
    owner,
    pool_raw,
    stored,
)


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


def test_a_pool_that_leaves_stays_as_it_was_applied() -> None:
    of_tokenizer = ("StepAudioPool", "prod-tokenizer")
    rollout = {"maxUnavailable": 2, "drainTimeout": "30s"}
    raw = owner(tokenizer={"replicas": 2, "podTemplate": {"labels": {"team": "a"}}}, rollout=rollout)
    raw["metadata"]["annotations"] = {"stepaudio.io/restart": "monday"}
    applied = next(c for c in children(raw) if (c["kind"], c["metadata"]["name"]) == of_tokenizer)
    told = {**applied["metadata"]["annotations"], "stepaudio.io/keep-revision": "0000000a", "else": "1"}
    live = {**applied, "metadata": {**applied["metadata"], "annotations": told, "uid": "u"}, "status": {}}
    live["spec"] = {**applied["spec"], "rollout": {**rollout, "strategy": "Auto", "historyLimit": 10}}
    mine = replace(record("tokenizer", replicas=2), replicas_owned=True)
    later = owner(tokenizer={"placement": "WithTTS"}, runtime={"version": "2.0"})
    assert deployment.as_it_stands(later, live, mine) == applied
    scaled = {k: v for k, v in applied["spec"].items() if k != "replicas"}
    assert deployment.as_it_stands(later, live, record("tokenizer"))["spec"] == scaled
    older = {**live, "spec": {**applied["spec"], "unknown": 1}}
    assert deployment.as_it_stands(later, older, mine)["spec"] == older["spec"]


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
