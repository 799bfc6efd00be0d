"""kopf's part: it runs the process and watches what users write; every event becomes a wake-up.

Only `on.event` is used, so kopf writes nothing on the objects: no finalizers, no annotations. What else it
would look at or write is switched off (resource and namespace scanning, peering, event posting). Its retries
never end, so that a lost permission or a restarted API server is waited out. Pools are watched by our own
reflector, like the other children: kopf keeps about 40 KB for an object, and there are four pools to a
deployment.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import kopf

from stepaudio_operator import names
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.cluster import Cluster

RETRY_S = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 30.0)
"""Pauses between tries of kopf's own calls (s); the last one repeats for ever."""


class Endless:
    """Pauses without an end, from the start again for every call."""

    def __iter__(self) -> Iterator[float]:
        """The pauses in seconds."""
        return itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1]))


class NothingKept(kopf.DiffBaseStorage):
    """Of what kopf would compare objects by: it compares none for us, and has no need to copy them for it."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Nothing of the object."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        """Nothing was stored."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Stores nothing."""


def operator_settings() -> kopf.OperatorSettings:
    """kopf's settings."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NothingKept()
    settings.networking.error_backoffs = Endless()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 0.5  # its per-object task ends soon; ours is the queue that matters
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 20
    return settings


def register(registry: kopf.OperatorRegistry, client: Client, cluster: Cluster) -> None:
    """Registers the handlers."""

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        access = await client.access()
        return kopf.ConnectionInfo(
            server=access.server,
            ca_path=access.ca_file,
            certificate_path=access.certificate_file,
            private_key_path=access.key_file,
            insecure=not access.verify,
            token=access.token,
        )

    @kopf.on.event(names.GROUP, names.VERSION, names.DEPLOYMENT_PLURAL, registry=registry)
    async def deployment(event: kopf.RawEvent, **_: Any) -> None:
        cluster.see(resources.DEPLOYMENTS, event["type"], dict(event["object"]))

    @kopf.on.event(names.GROUP, names.VERSION, names.DATA_JOB_PLURAL, registry=registry)
    async def data_job(event: kopf.RawEvent, **_: Any) -> None:
        cluster.see(resources.DATA_JOBS, event["type"], dict(event["object"]))
