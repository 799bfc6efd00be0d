"""What the pods of a pool say of themselves: which of them are asked for what, and what they said last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stepaudio_operator import names
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.records import PodRecord, PodReport
from stepaudio_operator.spec.pool import PoolSpec


def ask_pods(
    poller: Poller,
    key: Key,
    spec: PoolSpec,
    pods: Iterable[PodRecord],
    gateways: Iterable[PodRecord],
) -> Mapping[str, PodReport]:
    """Asks pods of models for their progress while they load, and for their GPUs once they serve. For
    `autoscaling` pods that serve are asked for their work, and `gateways` who waits where the pool may sleep.

    Returns what the pods said, by uid; one that has not answered is not there.
    """
    targets = list(_targets(spec, pods))
    sleeps = spec.autoscaling is not None and spec.autoscaling.min == 0
    front = [_work(pod, names.GATEWAY_PORT) for pod in gateways if sleeps and serves(pod)]
    poller.want(key, targets + front)
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


def serves(pod: PodRecord) -> bool:
    """Whether a pod can be asked for its work."""
    return pod.live and pod.ready and bool(pod.ip)


def _work(pod: PodRecord, port: int, *, gpus: bool = False) -> Target:
    return Target(pod.uid, pod.ip, port, None, gpus=gpus, work=True)


def _targets(spec: PoolSpec, pods: Iterable[PodRecord]) -> Iterator[Target]:
    scaled = spec.autoscaling is not None
    if spec.component not in names.MODEL_COMPONENTS:
        yield from (_work(pod, names.GATEWAY_PORT) for pod in pods if scaled and serves(pod))
        return
    for pod in pods:
        if not pod.live or not pod.ip or pod.running_since is None:
            continue
        if not pod.ready:
            yield Target(pod.uid, pod.ip, names.POOL_PORT, None, progress=True)
        elif scaled:
            yield _work(pod, names.POOL_PORT, gpus=bool(spec.gpu_count))
        elif spec.gpu_count:
            yield Target(pod.uid, pod.ip, names.POOL_PORT, None, gpus=True)
