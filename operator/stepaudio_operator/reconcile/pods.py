"""What the pods of a pool say of themselves: which of them are asked for what, and what they said last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stepaudio_operator import names
from stepaudio_operator.cache import Key
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.records import PodRecord, PodReport
from stepaudio_operator.spec import PoolSpec


def ask_pods(poller: Poller, key: Key, spec: PoolSpec, pods: Iterable[PodRecord]) -> Mapping[str, PodReport]:
    """Asks pods of models for their progress while they load, and for their GPUs once they serve.

    Returns what they said, by uid; a pod that has not answered is not there.
    """
    targets = list(_targets(spec, pods))
    poller.want(key, targets)
    answers = {target.uid: poller.answer(target.uid) for target in targets}
    return {
        uid: PodReport(
            serves=answer.phase == "Ready",
            bytes_loaded=answer.bytes_loaded or 0,
            bytes_total=answer.bytes_total or 0,
            gpus=answer.gpus,
        )
        for uid, answer in answers.items()
        if answer is not None and answer.phase is not None
    }


def _targets(spec: PoolSpec, pods: Iterable[PodRecord]) -> Iterator[Target]:
    if spec.component not in names.MODEL_COMPONENTS:
        return
    for pod in pods:
        if not pod.live or not pod.ip or pod.running_since is None:
            continue
        if not pod.ready:
            yield Target(pod.uid, pod.ip, names.POOL_PORT, None, progress=True)
        elif spec.gpu_count:
            yield Target(pod.uid, pod.ip, names.POOL_PORT, None, gpus=True)
