"""What `doctor` says of a cluster: each trouble has its finding and its cure; a sound cluster has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepaudio_operator import crd
from stepaudio_operator.doctor.facts import (
    Facts,
    NodeFact,
    OperatorFact,
    Permission,
    QuotaFact,
    StorageFact,
    WebhookFact,
)
from stepaudio_operator.doctor.findings import Level, findings

CRDS = {
    d["metadata"]["name"]: frozenset(
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    )
    for d in crd.definitions()
}
A800 = NodeFact(
    "gpu-1", True, "containerd://2.1.4", {"nvidia.com/gpu": 4}, "NVIDIA-A800-SXM4-80GB", 81920, 580
)
SOUND = Facts(
    namespace="speech",
    version=(1, 35),
    crds=CRDS,
    nodes=(A800,),
    storage=(StorageFact("shared", "efs.csi.aws.com", True),),
    operators=(OperatorFact("system", "op", "op", "stepaudio/operator:1", 1, 1),),
    permissions=(Permission("", "pods", "", "create", True),),
    webhooks=(WebhookFact("policy", "system/policy", True),),
    quotas=(QuotaFact("team", "requests.nvidia.com/gpu", "8", "4"),),
)


def test_a_sound_cluster_has_no_trouble() -> None:
    assert [str(finding) for finding in findings(SOUND)] == [
        "ok       version: Kubernetes 1.35",
        "ok       crds: stepaudiodeployments.stepaudio.io is installed",
        "ok       crds: stepaudiopools.stepaudio.io is installed",
        "ok       crds: stepaudiovoices.stepaudio.io is installed",
        "ok       crds: stepaudiodatajobs.stepaudio.io is installed",
        "ok       operator: system/op (stepaudio/operator:1): 1 of 1 ready",
        "ok       permissions: the operator may do all 1 things it does",
        "ok       gpus: 1 node with 4 x NVIDIA-A800-SXM4-80GB (81920 MiB)",
        "ok       storage: shared (default): efs.csi.aws.com, ReadWriteMany",
        "ok       quotas: team in speech has in use requests.nvidia.com/gpu 4 of 8",
    ]


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (replace(SOUND, version=(1, 30)), Level.PROBLEM, "upgrade the cluster to 1.31 or newer"),
        (replace(SOUND, version=(1, 32)), Level.NOTE, "needs Kubernetes 1.33"),
        (replace(SOUND, crds={}), Level.PROBLEM, "stepaudiopools.stepaudio.io is not installed"),
        (
            replace(SOUND, crds={name: fields - {"models"} for name, fields in CRDS.items()}),
            Level.PROBLEM,
            "it does not know models",
        ),
        (replace(SOUND, operators=()), Level.PROBLEM, "is not installed; helm install"),
        (
            replace(SOUND, operators=(replace(SOUND.operators[0], ready=0),)),  # type: ignore[index]
            Level.PROBLEM,
            "has no ready replica; kubectl -n system describe pods",
        ),
        (
            replace(SOUND, operators=(replace(SOUND.operators[0], wanted=0, ready=0),)),  # type: ignore[index]
            Level.PROBLEM,
            "scale it to 1 or 2",
        ),
        (replace(SOUND, operators=SOUND.operators * 2), Level.WARNING, "must not serve the same"),  # type: ignore[operator]
        (
            replace(
                SOUND,
                permissions=(
                    Permission("batch", "jobs", "", "create", False),
                    Permission("batch", "jobs", "", "delete", False),
                    Permission("", "pods", "status", "patch", False),
                ),
            ),
            Level.PROBLEM,
            "the operator may not create, delete jobs.batch; upgrade the chart",
        ),
        (replace(SOUND, nodes=()), Level.PROBLEM, "no node is ready"),
        (replace(SOUND, nodes=(NodeFact("a", True, ""),)), Level.WARNING, "no node offers a GPU; install"),
        (
            replace(SOUND, nodes=(replace(A800, memory_mib=None),)),
            Level.WARNING,
            "gpu-1 is not known; install",
        ),
        (
            replace(SOUND, nodes=(replace(A800, gpus={"nvidia.com/gpu": 2}),)),
            Level.NOTE,
            "no ready node has four GPUs of 80 GB",
        ),
        (replace(SOUND, nodes=(replace(A800, memory_mib=24576),)), Level.NOTE, "no ready node has four GPUs"),
        (
            replace(SOUND, nodes=(replace(A800, driver_major=535),)),
            Level.PROBLEM,
            "upgrade its driver to 580",
        ),
        (
            replace(SOUND, nodes=(replace(A800, driver_major=None),)),
            Level.NOTE,
            "driver of gpu-1 is not known",
        ),
        (replace(SOUND, storage=()), Level.WARNING, "there is no storage class"),
        (
            replace(SOUND, storage=(StorageFact("fast", "ebs.csi.aws.com", True),)),
            Level.NOTE,
            "set models.cache.accessMode: ReadWriteOnce",
        ),
        (
            replace(SOUND, storage=(StorageFact("shared", "nfs", False),)),
            Level.WARNING,
            "no storage class is the default; set models.cache.storageClassName",
        ),
        (
            replace(SOUND, storage=SOUND.storage * 2),  # type: ignore[operator]
            Level.WARNING,
            "several classes are the default: shared, shared",
        ),
        (
            replace(SOUND, webhooks=(WebhookFact("policy", "system/policy", False),)),
            Level.PROBLEM,
            "policy is asked about every pod and its Service system/policy has no ready endpoint; bring",
        ),
        (
            replace(SOUND, quotas=(QuotaFact("team", "pods", "10", "10"),)),
            Level.PROBLEM,
            "team in speech leaves pods 10 of 10: used up; raise the quota",
        ),
        (
            replace(SOUND, nodes=None, unreadable={"nodes": "nodes is forbidden"}),
            Level.WARNING,
            "could not be looked at: nodes is forbidden",
        ),
    ],
)
def test_each_trouble_has_its_finding_and_its_cure(facts: Facts, level: Level, words: str) -> None:
    more = [f for f in findings(facts) if f not in findings(SOUND)]
    assert [f for f in more if f.level is level and words in str(f)], "\n".join(map(str, more))
    assert all(f.cure or f.level in (Level.OK, Level.NOTE) for f in more)
