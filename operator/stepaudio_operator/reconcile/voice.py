"""One reconcile of a StepAudioVoice: its recordings' sums, what a gateway says of it, and its status.

The deployment's reconcile hands what is wanted to the gateways (`voices.wanted`); they bring it. When the
voice is deleted the deployment is woken, wants it no longer, and the gateways remove it: no finalizer is
needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime

from stepaudio_operator import names, voices
from stepaudio_operator.conditions import Verdict, invalid
from stepaudio_operator.errors import SpecError
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.cluster import Cluster
from stepaudio_operator.polling import Poller, Target
from stepaudio_operator.reconcile.core import Outcome, Raw, report
from stepaudio_operator.records import VoiceRecord, VoiceSaid
from stepaudio_operator.spec.voice import ConfigMapFile, VoiceSpec, parse_voice

CHECK_S = 600.0
"""A ConfigMap of somebody else's is not watched: it is read again after so long (s)."""
SOON_S = 15.0
"""A voice that is on its way looks for its recording or a gateway again after so long (s)."""


class VoiceReconciler:
    """Reconciles voices."""

    def __init__(self, cluster: Cluster, poller: Poller, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._poller = poller
        self._now = now

    async def __call__(self, key: Key, raw: Raw) -> Outcome:
        """One reconcile of `raw`. Raises `ClusterError` where another try may help."""
        try:
            spec = parse_voice(raw)
        except SpecError as wrong:
            self._poller.want(key, [])
            current = voices.status(raw, wrong, sums=None, verdict=invalid(wrong), said=None, now=self._now())
            await report(self._cluster, key, raw, current)
            return Outcome()
        verdict, sums, said, look_after_s = self._blocked(key, raw, spec), None, None, CHECK_S
        if verdict is None:
            verdict, sums = await self._read(key, spec)
            look_after_s = SOON_S  # the ConfigMap may be on its way behind the voice
        if sums is None:
            self._poller.want(key, [])
        else:
            digest = voices.digest_of(raw, spec, sums)
            said, gateway = self._ask(key, raw, spec, digest)
            verdict = voices.judge(raw.get("status") or {}, digest, said, gateway)
            if is_final := voices.is_final(digest, said):
                self._poller.want(key, [])
            look_after_s = CHECK_S if verdict.ready or is_final else SOON_S
        assert verdict is not None  # noqa: S101 - one of the three has spoken
        current = voices.status(raw, spec, sums=sums, verdict=verdict, said=said, now=self._now())
        await report(self._cluster, key, raw, current)
        return Outcome(requeue_after=look_after_s)

    def _blocked(self, key: Key, raw: Raw, spec: VoiceSpec) -> Verdict | None:
        cache = self._cluster.cache
        deployment = cache.held(resources.DEPLOYMENTS.kind, key.namespace, spec.deployment)
        has_store = deployment is not None and deployment.record.voices
        return voices.blocked(
            VoiceRecord.from_raw(raw), cache.voices_of(key.namespace, spec.deployment), deployment, has_store
        )

    async def _read(self, key: Key, spec: VoiceSpec) -> tuple[Verdict | None, Mapping[str, str] | None]:
        """The sums of the recordings, or what is wrong with one of them."""
        files = {"wave": spec.wave.config_map}
        if spec.consent.recording is not None:
            files["recording"] = spec.consent.recording.config_map
        sums = {}
        for what, file in files.items():
            data = await self._cluster.binary_file(key.namespace, file.name, file.key)
            if data is None:
                return _missing(file), None
            sums[what] = hashlib.sha256(data).hexdigest()
        return None, sums

    def _ask(self, key: Key, raw: Raw, spec: VoiceSpec, digest: str) -> tuple[VoiceSaid | None, bool]:
        """What a gateway has said of the voice, and whether there is one to ask."""
        pods = self._cluster.pods(key.namespace, names.pool(spec.deployment, names.GATEWAY))
        gateway = next((pod for pod in pods if pod.ready and pod.live and pod.ip), None)
        if gateway is None:
            self._poller.want(key, [])
            return None, False
        uid = raw["metadata"]["uid"]
        target = Target(f"{gateway.uid}/{uid}", gateway.ip, names.GATEWAY_PORT, None, voice=(uid, digest))
        self._poller.want(key, [target])
        answer = self._poller.answer(target.uid)
        return answer.voice if answer is not None else None, True


def _missing(file: ConfigMapFile) -> Verdict:
    message = (
        f"ConfigMap {file.name} has no file {file.key} under binaryData: make it so, or correct the name"
    )
    return Verdict("RecordingMissing", message, stalled=True)
