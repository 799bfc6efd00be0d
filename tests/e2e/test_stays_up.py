"""Any pod, or the operator, may be killed: all comes back to Ready by itself, and nothing else is touched."""

import json

import pytest

from stepaudio_cluster.make_up import DEPLOYMENT, RELEASE
from tests.e2e.nano import Nano, wait_until

pytestmark = pytest.mark.node


# Speech and chat in one go: each takes a while to load, and they do so side by side.
@pytest.mark.parametrize("components", [("tokenizer",), ("gateway",), ("tts", "chat")], ids="+".join)
def test_a_killed_pod_is_replaced(nano: Nano, components: tuple[str, ...]) -> None:
    nano.wait_ready()
    before = nano.pods()
    killed = {name: uid for component in components for name, uid in nano.pods(component).items()}
    assert len(killed) == len(components)
    for name in killed:
        nano.cluster.kubectl("delete", "pod", name, "--grace-period=0", "--force")

    def replaced() -> bool:
        now = [nano.pods(component).values() for component in components]
        return all(now) and not any(set(uids) & set(killed.values()) for uids in now)

    wait_until(replaced, 120, "new pods")
    nano.wait_ready()
    nano.up.hello(nano.cluster, nano.reply)
    assert (before.items() - killed.items()) <= nano.pods().items(), "the others were left alone"


def test_a_killed_operator_comes_back_and_touches_no_pod(nano: Nano) -> None:
    nano.wait_ready()
    pods, operators = nano.pods(), nano.operator_pods()
    assert operators
    for name in operators:
        nano.cluster.kubectl("delete", "pod", name, "-n", RELEASE, "--grace-period=0", "--force")
    wait_until(
        lambda: bool(nano.operator_pods()) and nano.operator_pods() != operators, 120, "a new operator"
    )
    nano.cluster.kubectl("rollout", "status", "-n", RELEASE, "deployment", "--timeout=120s")
    # The new one acts: what is deleted now comes back.
    victim = next(iter(nano.pods("tokenizer")))
    nano.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    nano.wait_ready()
    kept = {name: uid for name, uid in pods.items() if name != victim}
    assert kept.items() <= nano.pods().items()


def test_idle_operator_stays_under_150_mib(nano: Nano) -> None:
    name = next(iter(nano.operator_pods()))
    status = nano.cluster.kubectl("exec", "-n", RELEASE, name, "--", "cat", "/proc/1/status")
    resident_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"operator: {resident_kib / 1024:.0f} MiB resident")
    assert resident_kib < 150 * 1024


def test_kubectl_diff_finds_nothing_after_reconcile(nano: Nano) -> None:
    nano.wait_ready()
    live = json.loads(nano.cluster.kubectl("get", "sad", DEPLOYMENT, "--show-managed-fields", "-o", "json"))
    applied = {k: live[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": {"name": DEPLOYMENT}}
    diff = nano.cluster.kubectl(
        "diff",
        "--server-side",
        "--field-manager=make-up",
        "--force-conflicts",
        "-f",
        "-",
        stdin=json.dumps(applied),
        check=False,
    )
    assert diff == ""
    managers = {f["manager"] for f in live["metadata"]["managedFields"] if f.get("subresource") != "status"}
    assert managers == {"make-up"}, "the operator never writes the spec"
