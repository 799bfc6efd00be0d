"""The chart: its objects are valid, its permissions are exactly those that the operator declares to use,
its CRDs are those of crds/, and its values are checked.
"""

import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stepaudio_operator import crd
from stepaudio_operator.kube import resources
from stepaudio_operator.settings import from_environment
from stepaudio_operator.spec.fields import IMAGE_TAG, REGISTRY

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/step-audio"
# Helm built from its module knows no version of Kubernetes when no cluster is asked.
KUBERNETES = "1.35.0"


def helm_binary() -> str | None:
    """STEPAUDIO_HELM, the path, or what the one-machine cluster has built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = sorted(cache.glob("stepaudio/cluster/*/bin/helm"))
    return os.environ.get("STEPAUDIO_HELM") or shutil.which("helm") or (str(built[-1]) if built else None)


def template(*arguments: str) -> "subprocess.CompletedProcess[str]":
    helm = helm_binary()
    if helm is None:
        pytest.skip("helm is not here: set STEPAUDIO_HELM, or bring the one-machine cluster up once")
    command = [helm, "template", "release", str(CHART), "--kube-version", KUBERNETES, "-n", "system"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def objects(*arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    done = template(*arguments)
    assert done.returncode == 0, done.stderr
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout) if o}


NAME = "release-step-audio-operator"


def test_every_object_is_valid() -> None:
    made = objects(
        "--set-json", 'tolerations=[{"key":"a","operator":"Exists"}]', "--set-json", 'podLabels={"a":"b"}'
    )
    for body in made.values():
        if body["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(body, "1.31", strict=True)
    assert sorted(made) == [
        ("ClusterRole", NAME),
        ("ClusterRoleBinding", NAME),
        ("CustomResourceDefinition", "stepaudiodatajobs.stepaudio.io"),
        ("CustomResourceDefinition", "stepaudiodeployments.stepaudio.io"),
        ("CustomResourceDefinition", "stepaudiopools.stepaudio.io"),
        ("CustomResourceDefinition", "stepaudiovoices.stepaudio.io"),
        ("Deployment", NAME),
        ("Role", f"{NAME}-lease"),
        ("RoleBinding", f"{NAME}-lease"),
        ("Service", NAME),
        ("ServiceAccount", NAME),
    ]


def test_the_crds_are_the_generated_ones_and_outlive_the_chart() -> None:
    made = objects()
    for text in crd.render().values():
        wanted = yaml.safe_load(text)
        body = made["CustomResourceDefinition", wanted["metadata"]["name"]]
        assert body["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert body == wanted
    assert not any(kind == "CustomResourceDefinition" for kind, _ in objects("--set", "crds.install=false"))


def granted(rules: list[dict[str, Any]]) -> dict[tuple[str, str], set[str]]:
    verbs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs[group, resource] |= set(rule["verbs"])
    return verbs


def test_it_grants_what_the_operator_uses_and_no_more() -> None:
    declared: dict[tuple[str, str], set[str]] = {}
    for resource in resources.ALL:
        declared[resource.group, resource.plural] = set(resource.verbs)
        if resource.status_verbs:
            declared[resource.group, f"{resource.plural}/status"] = set(resource.status_verbs)
    made = objects()
    everywhere = granted(made["ClusterRole", NAME]["rules"])
    lease = granted(made["Role", f"{NAME}-lease"]["rules"])
    assert everywhere | lease == declared
    assert not everywhere.keys() & lease.keys()


def test_a_single_namespace_is_bound_and_watched_alone() -> None:
    made = objects("--set", "watchNamespace=speech")
    assert made["RoleBinding", NAME]["metadata"]["namespace"] == "speech"
    assert ("ClusterRoleBinding", NAME) not in made


def test_the_operator_understands_the_environment_that_it_is_given() -> None:
    numbers = "replicas=2,watchNamespace=speech,workers=3,log.level=DEBUG"
    texts = "image.tag=9,image.registry=reg/x,runtime.version=7,runtime.registry=r"
    made = objects("--set", numbers, "--set-string", texts)
    pod = made["Deployment", NAME]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "reg/x/stepaudio/operator:9"
    settings = from_environment({v["name"]: v.get("value", "from-the-pod") for v in container["env"]})
    assert settings.lease.name == NAME
    assert settings.lease.identity == settings.lease.namespace == "from-the-pod"
    assert (settings.namespace, settings.workers) == ("speech", 3)
    assert (settings.images.version, settings.images.registry) == ("7", "r")
    assert (settings.log.json, settings.log.level, settings.health.port) == (True, "DEBUG", 8080)


@pytest.mark.parametrize(
    "wrong",
    [
        "replicas=many",
        "log.format=xml",
        "unknown=1",
        "crds.keep=maybe",
        "runtime.registry=reg.example.com/team/",
        "runtime.registry=https://reg.example.com",
        "runtime.version=1.4.2+build",
        "image.registry=reg.example.com/",
    ],
)
def test_wrong_values_are_refused(wrong: str) -> None:
    done = template("--set", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0].split(".")[0] in done.stderr


def test_the_values_of_images_are_those_that_a_spec_may_have() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["definitions"]["registry"]["pattern"] == REGISTRY
    version = schema["properties"]["runtime"]["properties"]["version"]["pattern"]
    assert version == f"^({IMAGE_TAG[1:-1]})?$"  # "" is the operator's own
