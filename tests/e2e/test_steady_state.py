"""The operator writes nothing in the minute in which the tests before this one asked for speech."""

import json
import time

import pytest

from stepaudio_cluster.make_up import RELEASE
from tests.e2e.nano import Calm, Nano

pytestmark = pytest.mark.node

STEADY_S = 60.0
OPERATOR_USER = f"system:serviceaccount:{RELEASE}:"
READS = {"get", "list", "watch"}


def test_steady_state_writes_nothing(nano: Nano, calm: Calm | None) -> None:
    if calm is None or nano.cluster.audit_log is None:
        pytest.skip("counting writes needs the audit log of our own cluster")
    time.sleep(max(0.0, calm.at + STEADY_S - time.monotonic()))
    with nano.cluster.audit_log.open() as log:
        log.seek(calm.audited)
        entries = [json.loads(line) for line in log if line.endswith("\n")]
    ours = [e for e in entries if e["user"]["username"].startswith(OPERATOR_USER) and e["verb"] not in READS]
    writes = [e for e in ours if e["objectRef"]["resource"] != "leases"]
    assert ours, "the operator's lease is renewed, so its requests are in the log"
    assert writes == []
