"""Every way to a GPU becomes exactly its part of a pod; GPU memory is judged by what that way says of it."""

from typing import Any

import pytest

from stepaudio_operator.errors import SpecError
from stepaudio_operator.foresight import preview
from stepaudio_operator.gpus import cards, vram
from stepaudio_operator.presets import PRESETS
from stepaudio_operator.records import RevisionRecord
from stepaudio_operator.render import pool
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment, parse_pool

Raw = dict[str, Any]
MODELS = {"source": {"pvc": {"claimName": "models"}}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
SELECTOR = {"app.kubernetes.io/managed-by": "stepaudio-operator", "stepaudio.io/pool": "prod-tts"}
LABELS = {
    "app.kubernetes.io/name": "step-audio",
    "app.kubernetes.io/instance": "prod",
    "app.kubernetes.io/managed-by": "stepaudio-operator",
    "app.kubernetes.io/component": "tts",
    "stepaudio.io/deployment": "prod",
    "stepaudio.io/pool": "prod-tts",
}


def pool_raw(component: str = "tts", **spec: Any) -> Raw:
    common = {"deployment": "prod", "component": component, "preset": "step-audio", "models": MODELS}
    return {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioPool",
        "metadata": {"name": f"prod-{component}", "namespace": "speech", "uid": "p-uid"},
        "spec": {**common, "runtime": {"version": "1.0.0"}, **spec},
    }


def stored(raw: Raw) -> RevisionRecord:
    body = pool.controller_revision(raw, pool.revision(raw, parse_pool(raw)), 1)
    body["metadata"]["uid"] = "r-uid"
    return RevisionRecord.from_raw(body)


def pod(raw: Raw) -> Raw:
    return pool.replica(raw, stored(raw), slot=0)


def differences(raw: Raw) -> Raw:
    """What of the pod's spec is other than that of a pod of the same pool on any GPU."""
    plain, made = pod(pool_raw(raw["spec"]["component"]))["spec"], pod(raw)["spec"]
    (container,) = made["containers"]
    (other,) = plain["containers"]
    found = {k: v for k, v in made.items() if k != "containers" and plain.get(k) != v}
    ours = {v["name"]: v.get("value") for v in container["env"]}
    theirs = {v["name"]: v.get("value") for v in other["env"]}
    env = {k: v for k, v in ours.items() if theirs.get(k) != v and k != "STEPAUDIO_REVISION"}
    main = {k: v for k, v in container.items() if k != "env" and other.get(k) != v}
    return {**found, "main": main, "env": env}


def expressions(**found: list[str]) -> list[Raw]:
    operators = {"product": "In", "memory": "Gt"}
    return [
        {"key": f"nvidia.com/gpu.{k}", "operator": operators[k], "values": values}
        for k, values in found.items()
    ]


@pytest.mark.parametrize(
    ("resource", "count"),
    [("nvidia.com/mig-3g.40gb", 1), ("nvidia.com/gpu.shared", 1), ("amd.com/gpu", 1)],
)
def test_another_resource_takes_the_place_of_the_usual_one(resource: str, count: int) -> None:
    assert differences(pool_raw(gpu={"resource": resource})) == {
        "main": {
            "resources": {
                "requests": {"cpu": "4", "memory": "16Gi", resource: "1"},
                "limits": {"memory": "32Gi", resource: "1"},
            }
        },
        "env": {},
    }


def test_products_and_memory_choose_nodes_by_their_labels() -> None:
    gpu = {"products": ["NVIDIA-L4", "NVIDIA-A10"], "memory": "24GB", "requireMemory": True}
    wanted = expressions(product=["NVIDIA-L4", "NVIDIA-A10"], memory=["22430"])
    assert differences(pool_raw(gpu=gpu)) == {
        "affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": wanted}]}}},
        "main": {},
        "env": {},
    }


def test_cards_report_what_they_are_asked_for() -> None:
    # MiB of `nvidia.com/gpu.memory`, as nodes with these cards are labelled.
    reported = {"16GB": 15360, "24GB": 22731, "40GB": 40960, "48GB": 45634, "80GB": 79000, "141GB": 143771}
    for memory, label in reported.items():
        affinity = differences(pool_raw(gpu={"memory": memory, "requireMemory": True}))["affinity"]
        (term,) = affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
        assert int(term["matchExpressions"][0]["values"][0]) < label


def test_the_choice_goes_into_every_alternative_of_an_own_affinity() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    preferred = [{"weight": 1, "preference": {"matchExpressions": [zone]}}]
    own = {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [zone]}, by_name, {}]},
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        },
        "podAntiAffinity": {"x": []},
    }
    chosen = expressions(product=["NVIDIA-L4"])
    raw = pool_raw(gpu={"products": ["NVIDIA-L4"]}, podTemplate={"affinity": own})
    assert pod(raw)["spec"]["affinity"] == {
        "nodeAffinity": {
            REQUIRED: {
                "nodeSelectorTerms": [
                    {"matchExpressions": [zone, *chosen]},
                    {**by_name, "matchExpressions": chosen},
                    {},  # matches no node, as before
                ]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        },
        "podAntiAffinity": {"x": []},
    }


@pytest.mark.parametrize("own", [{"nodeAffinity": None}, {"nodeAffinity": {REQUIRED: None}}])
def test_an_affinity_of_nulls_is_none(own: Raw) -> None:
    raw = pool_raw(gpu={"products": ["NVIDIA-L4"]}, podTemplate={"affinity": own})
    terms = [{"matchExpressions": expressions(product=["NVIDIA-L4"])}]
    assert pod(raw)["spec"]["affinity"] == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}


@pytest.mark.parametrize(
    "own", [{"nodeAffinity": [1]}, {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": 1}}}]
)
def test_an_affinity_that_is_none_is_left_to_the_api_server(own: Raw) -> None:
    raw = pool_raw(gpu={"products": ["NVIDIA-L4"]}, podTemplate={"affinity": own})
    assert pod(raw)["spec"]["affinity"] == own


def test_a_claim_takes_the_place_of_a_resource() -> None:
    attribute = "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA A100-SXM4-80GB'"
    raw = pool_raw(gpu={"claim": {"deviceClass": "gpu.nvidia.com", "selectors": [{"cel": attribute}]}})
    name = f"prod-tts-{stored(raw).hash8}"
    assert differences(raw) == {
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
        "main": {
            "resources": {
                "requests": {"cpu": "4", "memory": "16Gi"},
                "limits": {"memory": "32Gi"},
                "claims": [{"name": "gpu"}],
            }
        },
        "env": {},
    }
    assert pool.claim_template(raw, stored(raw)) == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": name,
            "namespace": "speech",
            "labels": {**LABELS, "stepaudio.io/revision": stored(raw).hash8},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ControllerRevision",
                    "name": name,
                    "uid": "r-uid",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "spec": {
                "devices": {
                    "requests": [
                        {
                            "name": "gpu",
                            "exactly": {
                                "deviceClassName": "gpu.nvidia.com",
                                "allocationMode": "ExactCount",
                                "count": 1,
                                "selectors": [{"cel": {"expression": attribute}}],
                            },
                        }
                    ]
                }
            }
        },
    }


def test_a_claim_template_of_somebody_else_is_only_named() -> None:
    raw = pool_raw(gpu={"claim": {"templateName": "theirs"}})
    assert pod(raw)["spec"]["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "theirs"}]
    assert pool.claim_template(raw, stored(raw)) is None


def test_a_plan_shows_the_claims_once_and_before_the_pods() -> None:
    spec = {
        "preset": "step-audio",
        "models": MODELS,
        "chat": {"replicas": 2, "gpu": {"claim": {"deviceClass": "gpu.nvidia.com"}}},
    }
    raw = {"apiVersion": "stepaudio.io/v1alpha1", "kind": "StepAudioDeployment", "spec": spec}
    planned = preview.objects({**raw, "metadata": {"name": "prod"}}, ImageDefaults("1.0.0"))
    kinds = [p.body["kind"] for p in planned if p.body["metadata"]["name"].startswith("prod-chat-")]
    assert kinds == ["ControllerRevision", "ResourceClaimTemplate", "Pod", "Pod"]


def test_a_spread_without_a_selector_counts_the_pods_of_the_pool() -> None:
    zone = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
    own = {**zone, "labelSelector": {"matchLabels": {"app": "x"}}}
    assert differences(pool_raw(podTemplate={"topologySpreadConstraints": [zone, own]})) == {
        "topologySpreadConstraints": [{**zone, "labelSelector": {"matchLabels": SELECTOR}}, own],
        "main": {},
        "env": {},
    }


def test_a_queue_is_a_label_of_the_pods() -> None:
    raw = pool_raw(podTemplate={"queue": {"name": "gpus", "priorityClass": "speech"}})
    assert differences(raw) == {"main": {}, "env": {}}
    assert pod(raw)["metadata"]["labels"] == {
        **LABELS,
        "stepaudio.io/revision": stored(raw).hash8,
        "kueue.x-k8s.io/queue-name": "gpus",
        "kueue.x-k8s.io/priority-class": "speech",
    }


def test_a_declared_size_is_an_input_only_where_nodes_are_chosen_by_it() -> None:
    def hash8(**gpu: Any) -> str:
        raw = pool_raw(gpu=gpu)
        return pool.revision(raw, parse_pool(raw)).hash8

    assert hash8(memory="24GB") == hash8(memory="40GB")
    assert hash8(memory="24GB", requireMemory=True) != hash8(memory="40GB", requireMemory=True)


@pytest.mark.parametrize(
    ("product", "size"),
    [
        ("NVIDIA-A800-SXM4-80GB", 80),
        ("NVIDIA-H100-80GB-HBM3", 80),
        ("Tesla-V100-SXM2-16GB", 16),
        ("Tesla-T4", 16),
        ("NVIDIA-A10-SHARED", 24),
        ("NVIDIA-A100-SXM4-40GB-SHARED", 40),
        ("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40),
        ("NVIDIA-A100-SXM4-80GB-MIG-mixed", None),
        ("NVIDIA-GH200-480GB", 96),
        ("NVIDIA-Unheard-Of", None),
    ],
)
def test_the_memory_of_a_product(product: str, size: int | None) -> None:
    assert cards.product_gb(product) == size


@pytest.mark.parametrize(
    ("resource", "size"),
    [
        ("nvidia.com/mig-1g.10gb", 10),
        ("nvidia.com/mig-1g.10gb.me", 10),
        ("nvidia.com/mig-1c.3g.40gb", 40),
        ("nvidia.com/mig-7g.141gb", 141),
        ("nvidia.com/gpu", None),
        ("nvidia.com/gpu.shared", None),
        ("example.com/mig-3g.40gb", None),
    ],
)
def test_the_memory_of_a_profile(resource: str, size: int | None) -> None:
    assert cards.profile_gb(resource) == size


def deployment(**spec: Any) -> Any:
    raw = {"preset": "step-audio", "models": MODELS, **spec}
    return parse_deployment({"metadata": {"name": "prod"}, "spec": raw})


def test_memory_is_judged_by_the_way() -> None:
    judged = vram.to_status(
        deployment(
            chat={
                "gpu": {"count": 4, "memory": "80GB", "products": ["NVIDIA-A100-SXM4-40GB", "NVIDIA-H200"]}
            },
            tts={"gpu": {"resource": "nvidia.com/mig-1g.12gb"}},
            tokenizer={"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
        )
    )
    assert [(entry["gpu"], entry["fit"]) for entry in judged] == [
        ("4x40GB (NVIDIA-A100-SXM4-40GB or NVIDIA-H200)", "Exceeds"),
        ("1x12GB (nvidia.com/mig-1g.12gb)", "Exceeds"),
        ("1x10GB (nvidia.com/mig-1g.10gb)", "Fits"),
    ]
    assert judged[1]["message"].endswith("would fit: GPUs of 24GB")


def test_no_part_of_a_card_is_proposed_several_times() -> None:
    gpu = {"count": 1, "resource": "nvidia.com/mig-7g.80gb"}
    (chat, *_) = vram.to_status(deployment(chat={"gpu": gpu}))
    assert chat["fit"] == "Exceeds"
    assert "gpu.count" not in chat["message"]


def test_the_tokenizers_share_the_card_and_the_context_of_the_decoder() -> None:
    alone, together = (
        vram.estimates(deployment(chat={"enabled": False}, tokenizer=tokenizer))
        for tokenizer in ({}, {"placement": "WithTTS"})
    )
    assert [sums.setup.component for sums in alone] == ["tts", "tokenizer"]
    (tts,) = together
    context = next(line.size for line in alone[1].lines if "context" in line.what)
    assert tts.beside == alone[0].beside + alone[1].beside - context


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"chat": {"gpu": {"resource": "nvidia.com/mig-3g.40gb"}}}, "chat.gpu.count", "parts of cards"),
        (
            {"chat": {"gpu": {"count": 2, "resource": "nvidia.com/gpu.shared"}}},
            "chat.gpu.count",
            "parts of cards",
        ),
        (
            {"tts": {"gpu": {"resource": "nvidia.com/mig-3g.40gb", "memory": "40GB"}}},
            "tts.gpu.memory",
            "says its memory itself",
        ),
        ({"tts": {"gpu": {"requireMemory": True}}}, "tts.gpu.requireMemory", "how much"),
        (
            {"tts": {"gpu": {"claim": {"templateName": "t"}, "products": ["NVIDIA-L4"]}}},
            "tts.gpu.claim",
            "by its selectors",
        ),
        ({"tts": {"gpu": {"claim": {}}}}, "tts.gpu.claim.deviceClass", "exactly one"),
        (
            {"tts": {"gpu": {"claim": {"templateName": "t", "selectors": [{"cel": "true"}]}}}},
            "tts.gpu.claim.selectors",
            "a template of yours has its own",
        ),
        ({"tokenizer": {"gpu": {"count": 0, "products": ["L4"]}}}, "tokenizer.gpu.count", "cannot choose"),
        ({"preset": "nano", "tts": {"gpu": {"products": ["L4"]}}}, "tts.gpu", "on the CPU"),
        ({"tts": {"gpu": {"products": []}}}, "tts.gpu.products", "at least 1 entries"),
        (
            {"tts": {"podTemplate": {"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}}},
            "tts.podTemplate.resources.limits",
            "gpu.resource",
        ),
        (
            {"tts": {"podTemplate": {"queue": {"name": "a"}, "labels": {"kueue.x-k8s.io/queue-name": "b"}}}},
            "tts.podTemplate.labels",
            "queue says it",
        ),
        (
            {"tokenizer": {"placement": "WithTTS", "gpu": {"count": 1}}},
            "tokenizer.gpu",
            "the TTS pods decide it",
        ),
        (
            {"tokenizer": {"placement": "WithTTS"}, "tts": {"enabled": False}},
            "tokenizer.placement",
            "no TTS pods",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(spec: Raw, field: str, words: str) -> None:
    with pytest.raises(SpecError) as refused:
        deployment(**spec)
    ((path, message),) = refused.value.problems
    assert path == f"spec.{field}"
    assert words in message


def test_what_a_replica_needs_in_words() -> None:
    def words(**spec: Any) -> str:
        return parse_pool(pool_raw("chat", **spec)).gpu_words

    assert words() == "4x80GB on one node"
    mig = {"count": 1, "resource": "nvidia.com/mig-3g.40gb"}
    assert words(gpu=mig) == "1x40GB (nvidia.com/mig-3g.40gb) on one node"
    assert words(gpu={"claim": {"templateName": "t"}}) == "4x80GB (claim by template t) on one node"
    assert PRESETS["nano"].pools["chat"].gpu_memory is None
    assert words(preset="nano", gpu={"count": 2}) == "2 GPUs on one node"
    assert words(gpu={"count": 8, "nodes": 2}) == "4x80GB on each of 2 nodes"
