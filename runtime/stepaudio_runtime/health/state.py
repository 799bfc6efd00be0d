"""The state of one pod, as its health routes show it, and the rules by which it changes. No I/O here.

A pod is Loading, then Ready; from both it may go to Draining (SIGTERM) or Failed, and from neither back.
Only a Ready pod admits requests, and one that is leaving: it is Draining already, but serves what still comes
over connections that clients hold open. A request counts as in flight until its last byte has been sent.

A pod may have a guest: a second service in the same process, with a state of its own, so that its work is
bounded and its signs of life are counted apart. The pod is ready when both are, and stalled when one is.

Liveness: a pod with work in flight that shows no sign of progress (`beat`) for nearly `stall_timeout_s` is
stalled. An idle pod never is, nor one whose requests all wait for their clients to send or to take something.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepaudio_runtime.bodies import GpuStatus, NotReady, Phase, PodStatus
from stepaudio_runtime.errors import Overloaded, Unavailable
from stepaudio_runtime.health.lately import Lately

STALL_SHARE = 0.9  # of the stall timeout: looking and ending take the rest


class PodState:
    """Phase, load progress, work in flight and signs of life of one pod.

    `max_in_flight` bounds admitted requests; `stall_timeout_s` is in seconds; `clock` is monotonic, in
    seconds. All methods belong to the event loop's thread, `beat` and `load_progress` to any.
    """

    def __init__(
        self,
        component: str,
        revision: str = "",
        *,
        max_in_flight: int = 64,
        stall_timeout_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.component = component
        self.revision = revision
        self.max_in_flight = max_in_flight
        self.guest: PodState | None = None
        self.routing_generation: int | None = None
        self.waiting: Callable[[], dict[str, int]] | None = None
        self.lately = Lately(clock)
        self.in_flight = 0
        self.admitted = 0
        self._at_clients = 0
        self.draining = False
        self.leaving = False
        self.bytes_loaded = 0
        self.bytes_total = 0
        self.eta_s: float | None = None
        self.gpus: list[GpuStatus] = []
        self._phase = Phase.LOADING
        self._reason = "Loading"
        self._message = "starting"
        self.stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._last_beat = clock()
        self._idle = asyncio.Event()
        self._idle.set()

    # --- phases -------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What `GET /status` calls `phase`."""
        if self._phase is Phase.FAILED:
            return Phase.FAILED
        return Phase.DRAINING if self.draining else self._phase

    @property
    def ready(self) -> bool:
        """Whether the pod can serve all that it is for."""
        return self.phase is Phase.READY and (self.guest is None or self.guest.ready)

    @property
    def all_in_flight(self) -> int:
        """Requests in flight in this pod, those of a guest too."""
        return self.in_flight + (self.guest.in_flight if self.guest is not None else 0)

    def load(self, message: str, *, reason: str = "Loading") -> None:
        """Not (or no longer) ready: `reason` is CamelCase, `message` says what is being waited for."""
        if self._phase is not Phase.FAILED:
            self._phase, self._reason, self._message = Phase.LOADING, reason, message

    def load_progress(self, loaded: int, total: int, eta_s: float | None = None) -> None:
        """Bytes of model files read so far, and in all; seconds that are left, where somebody knows."""
        self.bytes_loaded, self.bytes_total, self.eta_s = loaded, total, eta_s

    def become_ready(self) -> None:
        """The model is loaded and its canary has sung."""
        if self._phase is not Phase.FAILED:
            self._phase, self._reason, self._message = Phase.READY, "Ready", ""
            self.bytes_loaded = self.bytes_total

    def fail(self, reason: str, message: str) -> None:
        """Nothing in this process can cure it; the first failure is kept."""
        if self._phase is not Phase.FAILED:
            self._phase, self._reason, self._message = Phase.FAILED, reason, message

    def leave(self) -> None:
        """Ready no more, so that nobody new is sent here; who is connected is still served."""
        self.draining, self.leaving = True, self.phase is Phase.READY
        if self.guest is not None:
            self.guest.leave()

    def drain(self) -> None:
        """Admit nothing more."""
        self.draining, self.leaving = True, False
        if self.guest is not None:
            self.guest.drain()

    # --- work ---------------------------------------------------------------------------------------

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request while the block runs.

        Raises Unavailable (503) unless Ready or leaving, Overloaded (429) at the bound.
        """
        if not (self.phase is Phase.READY or self.leaving):
            answer = self.not_ready()
            raise Unavailable(f"this pod is not serving: {answer['reason']} {answer['message']}".strip())
        if self.in_flight >= self.max_in_flight:
            raise Overloaded(
                f"{self.in_flight} requests are in flight here, the bound is {self.max_in_flight}"
            )
        if self.in_flight == self._at_clients:
            self.beat()
        self.in_flight += 1
        self.lately.in_flight(self.in_flight)
        self.admitted += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.lately.in_flight(self.in_flight)
            if self.in_flight == 0:
                self._idle.set()

    @contextmanager
    def at_client(self) -> Iterator[None]:
        """While the block runs, one of the requests in flight waits for its client."""
        self._at_clients += 1
        try:
            yield
        finally:
            self._at_clients -= 1
            if self.in_flight - self._at_clients == 1:
                self.beat()  # the first that is the model's again: its time begins now

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False if that took longer than `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                if self.guest is not None:
                    await self.guest._idle.wait()
        except TimeoutError:
            return False
        return True

    def beat(self) -> None:
        """Note progress: a token, a chunk, a finished job."""
        self._last_beat = self._clock()

    # --- answers ------------------------------------------------------------------------------------

    def unhealthy(self) -> NotReady | None:
        """Why the kubelet should restart this pod, or None."""
        if self._phase is Phase.FAILED:
            return self.not_ready()
        return self.stalled()

    def stalled(self) -> NotReady | None:
        """Why the pod counts as stalled, or None."""
        working = self.in_flight - self._at_clients
        if working > 0 and self._clock() - self._last_beat > self.stall_timeout_s * STALL_SHARE:
            message = f"{working} requests in flight and no step of the engine within the stall timeout of "
            return {"reason": "EngineStalled", "message": f"{message}{self.stall_timeout_s:g} s"}
        return self.guest.stalled() if self.guest is not None else None

    def not_ready(self) -> NotReady:
        """Reason and message of the present phase."""
        if self.phase is Phase.DRAINING:
            return {"reason": "Draining", "message": f"{self.all_in_flight} requests in flight"}
        if self.phase is Phase.READY and self.guest is not None and not self.guest.ready:
            return self.guest.not_ready()
        return {"reason": self._reason, "message": self._message}

    def status(self) -> PodStatus:
        """Body of `GET /status`."""
        words = self.not_ready()
        return {
            "component": self.component,
            "revision": self.revision,
            "phase": self.phase.value,
            "ready": self.ready,
            "draining": self.draining,
            "inFlight": self.all_in_flight,
            "lately": self.lately.status(),
            "load": {
                "bytesLoaded": self.bytes_loaded,
                "bytesTotal": self.bytes_total,
                "etaSeconds": None if self.eta_s is None else round(self.eta_s),
            },
            "gpus": self.gpus,
            "routingGeneration": self.routing_generation,
            "waiting": self.waiting() if self.waiting is not None else None,
            "reason": words["reason"],
            "message": words["message"],
        }
