"""What the end-to-end tests see of the nano deployment: its objects, its pods, a client of its API."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from stepaudio_cluster.api import Cluster
from stepaudio_cluster.make_up import DEPLOYMENT, READY_S, RELEASE, Up, cluster_url, wait_ready

OPERATOR_SELECTOR = "app.kubernetes.io/name=step-audio-operator"


@dataclass(frozen=True)
class Nano:
    """The running deployment as the tests see it."""

    cluster: Cluster
    up: Up
    reply: Path

    def client(self) -> OpenAI:
        """A client as a service in the cluster would have it."""
        with cluster_url(self.cluster, f"{DEPLOYMENT}-gateway") as url:
            return OpenAI(base_url=url, api_key="none", timeout=180, max_retries=0)

    def objects(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """What `kubectl get` lists."""
        listed: list[dict[str, Any]] = json.loads(
            self.cluster.kubectl("get", kind, *arguments, "-o", "json")
        )["items"]
        return listed

    def pods(self, component: str | None = None) -> dict[str, str]:
        """Name -> uid of the deployment's pods that are not being deleted."""
        selector = f"stepaudio.io/deployment={DEPLOYMENT}"
        selector += f",app.kubernetes.io/component={component}" if component else ""
        listed = self.objects("pods", "-l", selector)
        return {
            p["metadata"]["name"]: p["metadata"]["uid"]
            for p in listed
            if not p["metadata"].get("deletionTimestamp")
        }

    def operator_pods(self) -> dict[str, str]:
        """Name -> uid of the operator's pods."""
        listed = self.objects("pods", "-n", RELEASE, "-l", OPERATOR_SELECTOR)
        return {
            p["metadata"]["name"]: p["metadata"]["uid"]
            for p in listed
            if not p["metadata"].get("deletionTimestamp")
        }

    def wait_ready(self) -> None:
        """Until the deployment says Ready and every pod of it is."""
        wait_ready(self.cluster, DEPLOYMENT, READY_S)
        wait_until(self._all_pods_ready, 120, "all pods ready")

    def _all_pods_ready(self) -> bool:
        listed = self.objects("pods", "-l", f"stepaudio.io/deployment={DEPLOYMENT}")
        conditions = [{c["type"]: c["status"] for c in p["status"].get("conditions", [])} for p in listed]
        return len(listed) == 4 and all(c.get("Ready") == "True" for c in conditions)


@dataclass(frozen=True)
class Calm:
    """A moment after which nothing changes: the clock (monotonic, s), and the end of the audit log."""

    at: float
    audited: int


def wait_until(holds: Callable[[], bool], patience_s: float, what: str) -> None:
    """Asks once a second; fails naming `what` when `patience_s` are over."""
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not after {patience_s:.0f} s: {what}")
        time.sleep(1)
