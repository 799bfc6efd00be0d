"""The table of failures: every row is recognised, none takes another's place, and the docs are the table."""

from pathlib import Path
from typing import Any

import pytest

from stepaudio_operator.failures import FAILURES, RETRIES, diagnose, message, table
from stepaudio_operator.records import PodRecord

DOCS = Path(__file__).parents[3] / "docs" / "failures.md"


def pod(said: str = "", code: int = 1, reason: str = "Error") -> PodRecord:
    ended: dict[str, Any] = {"exitCode": code, "reason": reason, "message": said}
    container = {"name": "main", "lastState": {"terminated": ended}}
    return PodRecord.from_raw({"metadata": {"name": "p"}, "status": {"containerStatuses": [container]}})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("EngineFailed: vLLM exited with status 1: torch.OutOfMemoryError: CUDA out of memory. Tried to"
         " allocate 2.00 GiB; the pod's log has the rest", "CudaOutOfMemory"),
        ("EngineFailed: vLLM did not start: RuntimeError: The NVIDIA driver on your system is too old (found"
         " version 11040).", "DriverTooOld"),
        ("EngineFailed: vLLM exited with status 1: RuntimeError: NCCL error: unhandled system error",
         "NcclFailed"),
        ("EngineFailed: vLLM exited with status 1: OSError: [Errno 28] No space left on device", "DiskFull"),
        ("EngineFailed: vLLM was ended by signal 9", "EngineFailed"),
        ("EngineStalled: 1 requests in flight", "EngineStalled"),
        ("LoadStalled: nothing was read", "LoadStalled"),
        ("GpuFault: XID 79 on GPU 0", "GpuFault"),
        ("SourceRateLimited: the hub answers 429", "SourceRateLimited"),
        ("boom", None),
    ],
)  # fmt: skip
def test_last_words_are_recognised(said: str, reason: str | None) -> None:
    found = diagnose(pod(said))
    assert (found and found.reason) == reason


def test_the_kubelets_word_and_a_peaceful_end() -> None:
    killed = diagnose(pod(code=137, reason="OOMKilled"))
    assert killed is not None
    assert killed.reason == "OutOfMemory"
    assert diagnose(pod(code=137)) is None, "killed by somebody else"
    assert diagnose(pod("EngineStalled: x", code=0)) is None


def test_every_row_is_whole_and_found_by_its_own_mark() -> None:
    assert len({row.reason for row in FAILURES}) == len(FAILURES)
    for row in FAILURES:
        assert row.cause and row.cure and row.retry in RETRIES
        assert row.exit_reason or row.word or row.text
        if row.word:
            assert diagnose(pod(f"{row.word}: something")) == row


@pytest.mark.parametrize(
    ("said", "code", "shown"),
    [
        (
            "EngineFailed: vLLM did not start: it has no room.\nand more",
            1,
            "p: vLLM did not start: it has no room; ",
        ),
        ("ConfigInvalid: X is 'soon'; correct it", 78, "p: X is 'soon'; correct it"),
        ("", 137, "p: the container used more main memory than its limit and was killed; "),
    ],
)
def test_a_condition_quotes_the_pod_and_says_what_cures_it(said: str, code: int, shown: str) -> None:
    ended = pod(said, code, "Error" if said else "OOMKilled")
    row = diagnose(ended)
    assert row is not None
    assert message(ended, row) == shown + (row.cure if shown.endswith("; ") else "")


def test_the_docs_hold_the_table() -> None:
    # After a change: python -m stepaudio_operator.failures, into docs/failures.md.
    assert "\n".join(table()) in DOCS.read_text()
