"""Every way in which a pod is known to fail: how it is recognised, what it means, what is done, what cures.

One table, read by the pools' conditions and by recovery; `python -m stepaudio_operator.failures` prints it
for `docs/failures.md`. A pod is judged by what the kubelet says of its container and by its last words
(`Reason: what; cure`, `docs/architecture.md`); words of libraries that a pod only passes on are recognised by
their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from stepaudio_operator import names
from stepaudio_operator.conditions import first_line
from stepaudio_operator.records import PodRecord

Retry = Literal["Restart", "Elsewhere", "Never"]
NEVER: Final = "Never"
RETRIES: dict[Retry, str] = {
    "Restart": "the kubelet starts it again where it is, with growing pauses",
    "Elsewhere": "the same; after the second time on a node, a new pod on another",
    "Never": "only a person can cure it: it is not hurried",
}


@dataclass(frozen=True)
class Failure:
    """One row. Recognised by the first of these that is given and fits: `exit_reason` (the kubelet's word
    for the container's end), `word` (first word of the pod's last line), `text` (anywhere in that line).
    """

    reason: str
    retry: Retry
    cause: str
    cure: str
    exit_reason: str = ""
    word: str = ""
    text: str = ""

    def fits(self, pod: PodRecord) -> bool:
        """Whether this is how `pod` ended last."""
        said = first_line(pod.exit_message)
        return (
            (bool(self.exit_reason) and pod.exit_reason == self.exit_reason)
            or (bool(self.word) and said.startswith(f"{self.word}:"))
            or (bool(self.text) and re.search(self.text, said, re.IGNORECASE) is not None)
        )


def _file(reason: str, cause: str) -> Failure:
    return Failure(
        reason, "Never", cause, "download the file that the message names again, or correct it", word=reason
    )


FAILURES: tuple[Failure, ...] = (
    Failure(
        "OutOfMemory",
        "Never",
        "the container used more main memory than its limit and was killed",
        "raise podTemplate.resources.limits.memory",
        exit_reason="OOMKilled",
    ),
    Failure(
        "CudaOutOfMemory",
        "Restart",
        "the GPU has not the memory asked for: something else uses it, or the share of vLLM is too large",
        "lower gpuMemoryUtilization or maxModelLen, and see what else runs on the card",
        text=r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory"
        r"|Free memory on device \S+ .* less than desired",
    ),
    Failure(
        "NoCacheBlocks",
        "Never",
        "beside the weights there is no room for the KV cache of one request of full length",
        "lower maxModelLen, raise gpuMemoryUtilization, or use more or larger GPUs (status.vram)",
        text=r"No available memory for the cache blocks|larger than the available KV cache memory",
    ),
    Failure(
        "DriverTooOld",
        "Elsewhere",
        "the node's NVIDIA driver is older than the CUDA runtime of the image",
        "update the driver of the node, or keep the pods off it with podTemplate.nodeSelector",
        text=r"NVIDIA driver on your system is too old|driver version is insufficient",
    ),
    Failure(
        "NoGpu",
        "Elsewhere",
        "the container sees no GPU although it asked for one",
        "check the node's device plugin and container runtime",
        text=r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device",
    ),
    Failure(
        "GpuFault",
        "Elsewhere",
        "the driver reported an error of the GPU (XID) that ends what runs on it",
        "look up the XID in NVIDIA's list; drain the node, reset or replace the card",
        word="GpuFault",
        text=r"CUDA error: (an illegal|uncorrectable|unspecified|misaligned|device-side|the launch)|\bXid\b",
    ),
    Failure(
        "NcclFailed",
        "Elsewhere",
        "the GPUs of one replica could not talk to each other",
        "check the links between the node's GPUs and the size of /dev/shm (podTemplate.shmSize)",
        text=r"NCCL error|nccl\w+Error|ProcessGroupNCCL|DistBackendError",
    ),
    Failure(
        "EngineStalled",
        "Elsewhere",
        "requests were in flight and the engine took no step: a worker or a collective operation hangs",
        "none is needed where it does not come back; else look at the node's GPUs and links",
        word="EngineStalled",
    ),
    Failure(
        "LoadStalled",
        "Elsewhere",
        "loading stood still: the volume or a peer does not answer",
        "check the models' volume and the node's network",
        word="LoadStalled",
    ),
    Failure(
        "CanaryFailed",
        "Elsewhere",
        "the model answered a known question wrongly, three times in a row or against its record",
        "none is needed where it does not come back; else the card or the files are damaged",
        word="CanaryFailed",
    ),
    Failure(
        "DiskFull",
        "Restart",
        "a volume or the node's disk has no space left",
        "give the volume more space, or clear the node",
        text=(
            r"No space left on device|ENOSPC|Errno 28|ephemeral.(local.)?storage"
            r"|Usage of EmptyDir volume .* exceeds"
        ),
    ),
    _file("ModelFileMissing", "a file of the model folder is not there"),
    _file("ModelFileTruncated", "a file is shorter than it says, or is not what its name says"),
    _file("ModelShapeMismatch", "tensors do not have the shapes of the configuration"),
    _file("ModelConfigInvalid", "a configuration of the model says something impossible"),
    Failure(
        "ConfigInvalid",
        "Never",
        "a setting contradicts the model or another setting",
        "change the field that the message names",
        word="ConfigInvalid",
    ),
    Failure(
        "SourceUnauthorized",
        "Never",
        "the models' source answered 401 or 403: the token is missing, wrong or has no access",
        "correct the Secret that models.source names, and accept the model's licence with its account",
        word="SourceUnauthorized",
    ),
    Failure(
        "SourceNotFound",
        "Never",
        "the models' source answered 404: no such model or revision",
        "correct the name in models.source",
        word="SourceNotFound",
    ),
    Failure(
        "SourceRateLimited",
        "Restart",
        "the models' source answered 429 for long: too many requests",
        "none is needed; a token raises the limit",
        word="SourceRateLimited",
    ),
    Failure(
        "SourceUnavailable",
        "Restart",
        "the models' source sent nothing for long",
        "none is needed where it comes back; else check the network and the source",
        word="SourceUnavailable",
    ),
    Failure(
        "ChecksumMismatch",
        "Restart",
        "a downloaded file is not the one that the source describes, twice in a row",
        "none is needed where it does not come back; else something between changes the file",
        word="ChecksumMismatch",
    ),
    Failure(
        "VolumeFull",
        "Never",
        "the models' volume, its quota or a limit on file sizes is full",
        "give models.cache a larger size",
        word="VolumeFull",
    ),
    Failure(
        "VolumeNotWritable",
        "Never",
        "the job may not write to its volume",
        "let the user that the message names write there, by the volume's owner or by fsGroup",
        word="VolumeNotWritable",
    ),
    Failure(
        "EngineFailed",
        "Restart",
        "vLLM, or a model in the pod's own process, failed for a reason that is not in this table",
        "read the line that the message quotes, and the pod's log",
        word="EngineFailed",
    ),
)

IMAGE_PULL = Failure(
    "ImagePullBackOff",
    "Never",
    "the image is not there, or may not be pulled",
    "check runtime.version, runtime.registry and podTemplate.imagePullSecrets",
)
"""Known by what the container waits for, not by how it ended (`pool_checks.py`)."""


def diagnose(pod: PodRecord) -> Failure | None:
    """How `pod` ended last, as far as that is known; None where it has not ended, or nobody knows."""
    if pod.exit_code is None or pod.exit_code == 0:
        return None
    return next((row for row in FAILURES if row.fits(pod)), None)


def diagnose_pod(pod: PodRecord) -> Failure | None:
    """The same for a pod that has ended as a whole: its own words count too (an eviction's, say)."""
    found = diagnose(pod)
    if found is None and pod.failed:
        said = f"{pod.reason} {first_line(pod.message)}"
        return next((row for row in FAILURES if row.text and re.search(row.text, said, re.IGNORECASE)), None)
    return found


def table() -> Iterator[str]:
    """The table in Markdown, for `docs/failures.md`."""
    yield "| reason | what happened | what is done | what cures it |"
    yield "|---|---|---|---|"
    for row in (*FAILURES, IMAGE_PULL):
        yield f"| `{row.reason}` | {row.cause} | {RETRIES[row.retry]} | {row.cure} |"


def message(pod: PodRecord, row: Failure) -> str:
    """What a condition says of `pod`: its own words where it has some, else the cause, and the cure."""
    said = first_line(pod.exit_message)
    words = said.removeprefix(f"{row.word}: ") if row.word else said
    if row.exit_reason or not said:
        words = row.cause
    # A pod that knows its file or field says the cure itself.
    own_cure = pod.exit_code == names.EXIT_CONFIGURATION
    return f"{pod.name}: {words}" if own_cure else f"{pod.name}: {words.rstrip('.')}; {row.cure}"


if __name__ == "__main__":
    print("\n".join(table()))
