"""What we write for others is what they read: the example's ScaledObject is right by KEDA's own schema, and
the labels and the gate of Kueue bear the names of Kueue's own code.

Both come from the Go modules that `cluster/go/schemas` pins; where they cannot be had, the tests are skipped.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stepaudio_cluster import binaries
from stepaudio_operator import names

ROOT = Path(__file__).parents[2]
Raw = dict[str, Any]


@pytest.fixture(scope="module")
def module() -> Callable[[str], Path]:
    """The folder of a module, checked by go.sum."""
    folder = binaries.GO_MODULE / "schemas"
    pinned = dict(re.findall(r"^\t(\S+) (v\S+)$", (folder / "go.mod").read_text(), re.MULTILINE))

    def found(path: str) -> Path:
        command = [binaries.go(), "mod", "download", "-json", f"{path}@{pinned[path]}"]
        environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        answer = json.loads(done.stdout or "{}")
        if "Dir" not in answer:
            said = answer.get("Error") or done.stderr
            assert "checksum mismatch" not in said, said
            pytest.skip(f"{path} cannot be had here: {said}")
        return Path(answer["Dir"])

    return found


def strict(schema: Raw) -> Raw:
    """A CRD's schema with no other fields than those it names, as the API server's strict checks have it."""
    schema = copy.deepcopy(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
    if "properties" in schema:
        schema["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        schema.setdefault("additionalProperties", False)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            schema[inner] = strict(schema[inner])
    return schema


def test_the_scaled_object_is_right_by_kedas_schema(module: Callable[[str], Path]) -> None:
    file = module("github.com/kedacore/keda/v2") / "config/crd/bases/keda.sh_scaledobjects.yaml"
    crd = yaml.safe_load(file.read_text())
    example = yaml.safe_load((ROOT / "examples/autoscaling/keda.yaml").read_text())
    (version,) = (v for v in crd["spec"]["versions"] if v["served"])
    kind = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
    assert (example["apiVersion"], example["kind"]) == kind
    spec = strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.validate(example["spec"], spec)
    for broken in (
        {"minReplicas": 0},
        {"maxReplicaCount": "6"},
        {"scaleTargetRef": {"kind": "StepAudioPool"}},
        {"triggers": [{"type": "prometheus"}]},
        {"triggers": [{"type": "prometheus", "metadata": {"threshold": 4}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**example["spec"], **broken}, spec)


def test_kueues_names_are_kueues_own(module: Callable[[str], Path]) -> None:
    kueue = module("sigs.k8s.io/kueue")
    said = (kueue / "pkg/controller/constants/constants.go").read_text()
    said += (kueue / "pkg/controller/jobs/pod/constants/constants.go").read_text()
    theirs = dict(re.findall(r'^\t(\w+)\s+= "(kueue\.x-k8s\.io/\S+)"$', said, re.MULTILINE))
    assert theirs["QueueLabel"] == names.LABEL_QUEUE
    assert theirs["WorkloadPriorityClassLabel"] == names.LABEL_QUEUE_PRIORITY
    # What the API server says of a pod with this gate is how one is known that is held back.
    gate = theirs["SchedulingGateName"]
    assert f'"name": "{gate}"' in (ROOT / "tests/integration/operator/test_gpus.py").read_text()
