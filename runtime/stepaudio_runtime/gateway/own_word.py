"""Pods that count as not ready and say themselves that they serve.

The controller-manager calls every pod of a node that it does not hear not ready, whether it serves or not: an
API server that was away for a while makes the whole cluster look so. Where that leaves a pool without a pod,
its pods are asked themselves (`GET /status`), and those that say that they are ready get its requests. Until
it has answered, one that served before keeps them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import httpx

from stepaudio_runtime.contract import Route
from stepaudio_runtime.gateway.routing import Endpoint, Listed, PoolRoute

log = logging.getLogger(__name__)

ASK_EVERY_S = 1.0
ANSWER_S = 1.0
"""For a pod's answer; a kubelet gives its probes about as long."""

Ask = Callable[[Endpoint], Awaitable[bool]]
"""Whether a pod says that it serves; never raises."""


async def says_ready(client: httpx.AsyncClient, endpoint: Endpoint) -> bool:
    """`Ask` by HTTP. Somebody else at the pod's old address is not taken for it."""
    try:
        answer = await client.get(endpoint.url + Route.STATUS, timeout=ANSWER_S)
        said = answer.json() if answer.status_code == 200 else {}
        return said.get("ready") is True and said.get("revision") == endpoint.revision
    except (httpx.HTTPError, ValueError, AttributeError):
        return False


class OwnWord:
    """Asks pods for as long as there is doubt, and tells `changed` when what they say is another thing."""

    def __init__(self, ask: Ask, changed: Callable[[], None]) -> None:
        self._ask = ask
        self._changed = changed
        self._served: frozenset[Endpoint] = frozenset()  # what `endpoints` gave last
        self._doubted: frozenset[Endpoint] = frozenset()
        self._heard: dict[Endpoint, bool] = {}
        self._asking: asyncio.Task[None] | None = None

    def endpoints(
        self, routes: Mapping[str, PoolRoute], listed: Mapping[str, Listed]
    ) -> dict[str, tuple[Endpoint, ...]]:
        """The endpoints of each pool: the ready ones, and where there is none, those that say they are."""
        doubted = {name: _doubted(routes[name], found) for name, found in listed.items()}
        self._doubted = frozenset().union(*doubted.values())
        self._heard = {e: said for e, said in self._heard.items() if e in self._doubted}
        if self._doubted and self._asking is None:
            self._asking = asyncio.create_task(self._ask_on(), name="ask-pods")
        found = {
            name: (*listed[name].ready, *(e for e in unheard if self._heard.get(e, e in self._served)))
            for name, unheard in doubted.items()
        }
        self._served = frozenset().union(*found.values())
        return found

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_on(self) -> None:
        try:
            while asked := sorted(self._doubted, key=lambda e: e.name):
                said = await asyncio.gather(*(self._ask(endpoint) for endpoint in asked))
                heard = dict(zip(asked, said, strict=True))
                if heard != self._heard:
                    self._heard = heard
                    self._tell([e.name for e, ready in heard.items() if ready and e in self._doubted])
                    self._changed()
                await asyncio.sleep(ASK_EVERY_S)
        finally:
            self._asking = None

    def _tell(self, names: list[str]) -> None:
        if names:
            log.warning("not ready for the cluster, but serving by their own word: %s", ", ".join(names))


def _doubted(route: PoolRoute, listed: Listed) -> tuple[Endpoint, ...]:
    """Pods that are to be asked: those of the routed revisions, where none of them counts as ready."""
    if any(route.revisions.get(e.revision, 0) > 0 for e in listed.ready):
        return ()
    return tuple(e for e in listed.unready if route.revisions.get(e.revision, 0) > 0)
