"""Whom a change wakes: exactly those whose next reconcile could do something else because of it."""

import copy
from typing import Any

from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Cache, Held, Key, LazyObject, hold
from stepaudio_operator.kube.resources import Resource

Raw = dict[str, Any]
DEPLOYMENT = Key("StepAudioDeployment", "a", "prod")
TTS = Key("StepAudioPool", "a", "prod-tts")
GATEWAY = Key("StepAudioPool", "a", "prod-gateway")


def raw(resource: Resource, name: str, *, pool: str = "", component: str = "tts", **parts: Any) -> Raw:
    labels = {"stepaudio.io/deployment": "prod", "app.kubernetes.io/component": component}
    if pool:
        labels |= {"stepaudio.io/pool": pool, "stepaudio.io/revision": "0000abcd"}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "namespace": "a",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "generation": 1,
            "labels": labels,
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {}}],
        },
        **parts,
    }


class Woken:
    """A cache that notes whom it wakes."""

    def __init__(self) -> None:
        self.keys: list[tuple[Key, bool]] = []
        self.cache = Cache(lambda key, fresh: self.keys.append((key, fresh)))

    def take(self) -> set[tuple[Key, bool]]:
        keys, self.keys = set(self.keys), []
        return keys

    def see(self, resource: Resource, new: Raw | None, old: Raw | None = None, own: bool = False) -> Any:
        held = [hold(resource, body) if body else None for body in (old, new)]
        self.cache.change(held[0], held[1], own)
        return self.take()


def changed(body: Raw, **parts: Any) -> Raw:
    return {**copy.deepcopy(body), **parts}


def test_a_deployment_wakes_itself_afresh_when_its_spec_changes_and_not_by_our_own_status() -> None:
    woken, first = Woken(), raw(resources.DEPLOYMENTS, "prod", spec={"preset": "nano"})
    assert woken.see(resources.DEPLOYMENTS, first) == {(DEPLOYMENT, True)}
    reported = changed(first, status={"observedGeneration": 1})
    assert woken.see(resources.DEPLOYMENTS, reported, first, own=True) == set()
    tampered = changed(reported, status={})
    assert woken.see(resources.DEPLOYMENTS, tampered, reported) == {(DEPLOYMENT, False)}
    edited = changed(tampered)
    edited["metadata"]["generation"] = 2
    assert woken.see(resources.DEPLOYMENTS, edited, tampered) == {(DEPLOYMENT, True)}
    # Also where that comes with the answer to a status of ours that was on its way.
    assert woken.see(resources.DEPLOYMENTS, edited, tampered, own=True) == {(DEPLOYMENT, True)}
    assert woken.cache.raw(DEPLOYMENT) == {
        **edited,
        "metadata": {k: v for k, v in edited["metadata"].items() if k != "managedFields"},
    }


def test_a_pool_wakes_its_deployment_by_its_status_and_itself_by_its_spec() -> None:
    woken, first = Woken(), raw(resources.POOLS, "prod-tts", spec={"component": "tts", "deployment": "prod"})
    assert woken.see(resources.POOLS, first, own=True) == {(TTS, True), (DEPLOYMENT, False)}
    reported = changed(first, status={"readyReplicas": 1})
    assert woken.see(resources.POOLS, reported, first, own=True) == {(DEPLOYMENT, False)}
    scaled = changed(reported, spec={**reported["spec"], "replicas": 3})
    scaled["metadata"]["generation"] = 2
    assert woken.see(resources.POOLS, scaled, reported) == {(TTS, True), (DEPLOYMENT, False)}


def test_a_pod_wakes_its_pool_when_it_matters_and_a_gateway_pod_its_deployment_too() -> None:
    woken = Woken()
    pod = raw(resources.PODS, "prod-tts-0000abcd-0", pool="prod-tts", status={"phase": "Pending"})
    assert woken.see(resources.PODS, pod) == {(TTS, False)}
    chatter = changed(pod, spec={"tolerations": []})
    assert woken.see(resources.PODS, chatter, pod) == set()
    running = changed(pod, status={"phase": "Running"})
    assert woken.see(resources.PODS, running, pod) == {(TTS, False)}
    assert woken.see(resources.PODS, None, running) == {(TTS, False)}
    gateway = raw(resources.PODS, "prod-gateway-x", pool="prod-gateway", component="gateway", status={})
    assert woken.see(resources.PODS, gateway) == {(GATEWAY, False), (DEPLOYMENT, False)}


def volume(**metadata: Any) -> Raw:
    body = raw(resources.CLAIMS, "models-1", spec={"resources": {"requests": {"storage": "1Gi"}}}, status={})
    body["metadata"]["labels"] = {"stepaudio.io/models": "models-1", "stepaudio.io/when-unused": "Delete"}
    body["metadata"] |= metadata
    return body


def test_a_revision_that_goes_may_free_a_volume_and_a_volume_that_goes_is_let_go() -> None:
    woken, revision = Woken(), raw(resources.REVISIONS, "prod-tts-1", pool="prod-tts", data={}, revision=1)
    woken.see(resources.REVISIONS, revision)
    assert woken.see(resources.REVISIONS, None, revision) == {(TTS, False)}
    woken.see(resources.CLAIMS, volume())
    woken.see(resources.REVISIONS, revision)
    assert woken.see(resources.REVISIONS, None, revision) == {(TTS, False), (DEPLOYMENT, False)}

    going = volume(deletionTimestamp="2026-01-01T00:00:00Z")
    lets_go = Key("PersistentVolumeClaim", "a", "models-1")
    assert woken.see(resources.CLAIMS, going, volume()) == {(lets_go, True)}
    user = raw(resources.DEPLOYMENTS, "prod", status={"cache": {"claimName": "models-1"}})
    woken.see(resources.DEPLOYMENTS, user)
    assert woken.see(resources.CLAIMS, volume(), None) == {(DEPLOYMENT, False)}


def test_drift_of_a_service_wakes_the_deployment_and_what_is_not_ours_does_not() -> None:
    woken, service = Woken(), raw(resources.SERVICES, "prod-tts", spec={"selector": {"x": "y"}})
    service["metadata"]["managedFields"] = [
        {
            "manager": "stepaudio-operator",
            "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:selector": {}}},
        }
    ]
    assert woken.see(resources.SERVICES, service) == {(DEPLOYMENT, False)}
    assert woken.see(resources.SERVICES, changed(service, status={"loadBalancer": {}}), service) == set()
    drifted = changed(service, spec={"selector": {"x": "z"}})
    assert woken.see(resources.SERVICES, drifted, service) == {(DEPLOYMENT, False)}


def test_a_vanished_child_casts_doubt_on_its_deployment_and_a_pod_does_not() -> None:
    woken = Woken()
    woken.see(resources.DEPLOYMENTS, raw(resources.DEPLOYMENTS, "prod"))
    woken.see(resources.PODS, None, raw(resources.PODS, "p", pool="prod-tts"))
    assert woken.cache.doubtful == set()
    woken.see(resources.POOLS, None, raw(resources.POOLS, "prod-tts"))
    assert woken.cache.doubtful == {Key("StepAudioDeployment", "a", "prod")}


def test_members_are_found_by_pool_and_deployment_and_leave_no_trace() -> None:
    woken = Woken()
    pool = raw(resources.POOLS, "prod-tts", spec={"component": "tts", "deployment": "prod"})
    pods = [raw(resources.PODS, f"prod-tts-0000abcd-{slot}", pool="prod-tts") for slot in (1, 0)]
    budget = raw(resources.DISRUPTION_BUDGETS, "prod-tts", pool="prod-tts")
    for resource, body in (
        (resources.POOLS, pool),
        (resources.PODS, pods[0]),
        (resources.PODS, pods[1]),
        (resources.DISRUPTION_BUDGETS, budget),
    ):
        woken.see(resource, body)
    cache = woken.cache
    assert [p.name for p in cache.of_pool("a", "prod-tts", "Pod")] == [
        "prod-tts-0000abcd-0",
        "prod-tts-0000abcd-1",
    ]
    assert list(cache.pools("a", "prod")) == ["tts"]
    assert [(held.kind, held.name) for held in cache.children("a", "prod")] == [("StepAudioPool", "prod-tts")]
    assert (cache.count("Pod"), cache.keys()) == (2, [TTS])
    for resource, body in (
        (resources.PODS, pods[0]),
        (resources.PODS, pods[1]),
        (resources.DISRUPTION_BUDGETS, budget),
        (resources.POOLS, pool),
    ):
        woken.see(resource, None, body)
    assert cache.of_pool("a", "prod-tts", "Pod") == []
    assert (cache.children("a", "prod"), cache.keys(), cache.count("Pod")) == ([], [], 0)
    assert not cache._of_pool and not cache._of_deployment


def test_a_revision_keeps_its_template_whole_and_small() -> None:
    template = {"template": {"spec": {"containers": [{"name": "main"}] * 3}}, "image": "x:1"}
    held = hold(
        resources.REVISIONS, raw(resources.REVISIONS, "prod-tts-0000abcd", pool="prod-tts", data=template)
    )
    assert isinstance(held, Held)
    assert isinstance(held.record.data, LazyObject)
    assert dict(held.record.data) == template
    assert len(held.record.data) == 2
    mine = copy.deepcopy(held.record.data)
    assert mine == template
    mine.clear()  # type: ignore[attr-defined]  # it is a plain dictionary, and nobody else's
    assert dict(held.record.data) == template
