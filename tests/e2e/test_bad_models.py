"""A truncated model file stops the pod with one line that names it, and that line reaches the deployment."""

import json
from collections.abc import Iterator

import pytest

from stepaudio_cluster.images import RUNTIME_CPU, Builder
from tests.e2e.nano import Nano, wait_until

pytestmark = pytest.mark.node

NAME = "truncated"
BROKEN_FILE = "Step-Audio-TTS-3B/CosyVoice-300M-25Hz/flow.pt"


def claim() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def writer(image: str) -> dict[str, object]:
    """Writes the nano models onto the volume and cuts one file in half."""
    script = f"stepaudio nano /models && chmod a+rx /models && truncate --size=100000 /models/{BROKEN_FILE}"
    container = {
        "name": "writer",
        "image": image,
        "command": ["sh", "-ec", script],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
    }
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": NAME}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{NAME}-writer"}, "spec": spec}


def deployment(version: str) -> dict[str, object]:
    spec = {
        "preset": "nano",
        "runtime": {"version": version},
        "models": {"source": {"pvc": {"claimName": NAME}}},
        "chat": {"enabled": False},
        "tokenizer": {"enabled": False},
    }
    return {
        "apiVersion": "stepaudio.io/v1alpha1",
        "kind": "StepAudioDeployment",
        "metadata": {"name": NAME},
        "spec": spec,
    }


@pytest.fixture
def broken(nano: Nano) -> Iterator[Nano]:
    """A speech-only deployment whose models lie on a volume, with one file cut."""
    builder = Builder.detect(nano.up.project, nano.up.logs)
    kubectl = nano.cluster.kubectl
    try:
        for thing in (claim(), writer(builder.reference(RUNTIME_CPU))):
            kubectl("apply", "-f", "-", stdin=json.dumps(thing))
        phase = "jsonpath={.status.phase}"
        wait_until(
            lambda: kubectl("get", "pod", f"{NAME}-writer", "-o", phase) == "Succeeded", 180, "models written"
        )
        kubectl("apply", "-f", "-", stdin=json.dumps(deployment(builder.version())))
        yield nano
    finally:
        kubectl("delete", "sad", NAME, "--ignore-not-found", "--wait=true", check=False)
        kubectl("delete", "pod", f"{NAME}-writer", "--ignore-not-found", "--grace-period=0", check=False)
        kubectl("delete", "pvc", NAME, "--ignore-not-found", "--wait=false", check=False)


def test_a_truncated_file_is_named_in_the_condition(broken: Nano) -> None:
    def ready_condition() -> dict[str, str]:
        raw = json.loads(broken.cluster.kubectl("get", "sad", NAME, "-o", "json"))
        conditions = {c["type"]: c for c in raw.get("status", {}).get("conditions", [])}
        found: dict[str, str] = conditions.get("Ready", {})
        return found

    wait_until(lambda: BROKEN_FILE in ready_condition().get("message", ""), 180, f"{BROKEN_FILE} is named")
    condition = ready_condition()
    assert condition["status"] == "False"
    assert condition["reason"] == "ModelFileTruncated"
    assert "Traceback" not in condition["message"]
