"""Leader election by a `coordination.k8s.io` Lease: one replica acts, the others stand by.

Rules (those of client-go)
- A candidate takes the Lease when nobody holds it, when the holder let it go, or when it has seen no renewal
  for the Lease's whole duration by its own clock: clocks of different machines are never compared.
- The holder renews every `retry_s`. Where it has not managed to for `renew_s`, it stops being the leader;
  that is before anybody else may take the Lease, since `renew_s < duration_s`.
- On a clean stop the holder empties the Lease, so that the next one need not wait.
- Every write carries the resource version that was read, so of two candidates only one wins.

`kubernetes.aio.leaderelection` does not release, compares wall clocks, and keeps the process running with its
models loaded; hence this small one.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepaudio_operator.errors import ClusterError, Conflict, LeaseLost, NotFound
from stepaudio_operator.kube import resources
from stepaudio_operator.kube.client import Client

Raw = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Where the Lease is and how fast it changes hands."""

    namespace: str
    name: str = "stepaudio-operator"
    identity: str = ""
    """Who we are: unique among the replicas."""
    duration_s: float = 15.0
    """A Lease not renewed for so long may be taken (s)."""
    renew_s: float = 10.0
    """A holder that could not renew for so long gives up (s); below `duration_s`."""
    retry_s: float = 2.0
    """Time between attempts (s)."""


class Candidate:
    """What one replica knows of the Lease. Pure: `now` is its own monotonic clock, in seconds."""

    def __init__(self, identity: str, duration_s: float) -> None:
        self._identity = identity
        self._duration_s = duration_s
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self._seen_duration_s = duration_s

    def observe(self, spec: Raw, now: float) -> None:
        """Takes in the Lease as just read."""
        seen = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
        self._seen_duration_s = float(spec.get("leaseDurationSeconds") or self._duration_s)
        if seen != self._seen:
            self._seen, self._seen_at = seen, now

    def may_take(self, now: float) -> bool:
        """Whether the Lease as last observed is free, ours or expired."""
        if self._seen is None:
            return False
        holder = self._seen[0]
        return holder in ("", self._identity) or now >= self._seen_at + self._seen_duration_s

    def claim(self, spec: Raw, wall: datetime) -> Raw:
        """The Lease's spec with us as the holder."""
        time = wall.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = spec.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration_s),
            "acquireTime": spec.get("acquireTime", time) if mine else time,
            "renewTime": time,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
        }


class Leadership:
    """Acquires, keeps and releases the Lease."""

    def __init__(
        self,
        client: Client,
        settings: LeaseSettings,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
    ) -> None:
        self.leader = False
        self.answered = asyncio.Event()
        """Set once the API server has answered a look at the Lease."""
        self.trouble = ""
        """Why the last look at the Lease failed, in brackets; "" where it did not."""
        self._client = client
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._candidate = Candidate(settings.identity, settings.duration_s)
        self._renewed_at = clock()

    @property
    def silence_s(self) -> float:
        """Seconds since the Lease was last renewed by us."""
        return self._clock() - self._renewed_at

    async def acquire(self) -> None:
        """Returns once we hold the Lease."""
        logger.info("waiting for the lease %s/%s", self._settings.namespace, self._settings.name)
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._settings.retry_s)
        self.leader = True
        logger.info("holding the lease as %s", self._settings.identity)

    async def keep(self) -> None:
        """Renews for ever. Raises `LeaseLost` where somebody else holds it or renewal failed for too long."""
        while True:
            await asyncio.sleep(self._settings.retry_s)
            left = self._renewed_at + self._settings.renew_s - self._clock()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    renewed = await self._attempt()
            except TimeoutError:
                renewed = False
            if renewed:
                continue
            if self._clock() >= self._renewed_at + self._settings.renew_s:
                self.leader = False
                raise LeaseLost(f"the lease was not renewed for {self._settings.renew_s:.0f} s")
            if not self._candidate.may_take(self._clock()):
                self.leader = False
                raise LeaseLost("another replica holds the lease")

    async def release(self) -> None:
        """Lets the Lease go, where we hold it; best effort."""
        if not self.leader:
            return
        self.leader = False
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._settings.identity:
                lease["spec"] = self._candidate.claim(lease["spec"], self._wall()) | {"holderIdentity": ""}
                await self._client.replace(resources.LEASES, lease)
                logger.info("released the lease")
        except ClusterError as error:
            logger.warning("could not release the lease: %s", error)

    async def _attempt(self) -> bool:
        """One look and, where allowed, one write. True where we hold the Lease afterwards."""
        try:
            lease = await self._read()
            self.answered.set()
            self.trouble = ""
            if lease is None:
                lease = {
                    "apiVersion": resources.LEASES.api_version,
                    "kind": "Lease",
                    "metadata": {"namespace": self._settings.namespace, "name": self._settings.name},
                    "spec": self._candidate.claim({}, self._wall()),
                }
                started = self._clock()
                stored = await self._client.create(resources.LEASES, lease)
            else:
                self._candidate.observe(lease.get("spec") or {}, self._clock())
                if not self._candidate.may_take(self._clock()):
                    return False
                lease["spec"] = self._candidate.claim(lease.get("spec") or {}, self._wall())
                started = self._clock()
                stored = await self._client.replace(resources.LEASES, lease)
        except Conflict:
            return False  # another candidate was faster; look again
        except ClusterError as error:
            self.trouble = f"(lease {self._settings.namespace}/{self._settings.name}: {error})"
            logger.warning("%s", self.trouble.strip("()"))
            return False
        self._renewed_at = started
        self._candidate.observe(stored["spec"], started)
        return True

    async def _read(self) -> Raw | None:
        try:
            return await self._client.get(resources.LEASES, self._settings.namespace, self._settings.name)
        except NotFound:
            return None
