"""What users had written when the operator was started: work begins when kopf has told of all of it.

kopf tells of what it lists one object at a time. Whoever worked before the last has come would take the
models, the voices and the pools of the rest for nobody's. So the names are listed first and ticked off; what
kopf does not tell of for a while, for it may be gone by then, is asked for by name.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from stepaudio_operator.errors import ClusterError, NotFound
from stepaudio_operator.kube.cache import Key
from stepaudio_operator.kube.client import Client
from stepaudio_operator.kube.reflector import Reflector, Store
from stepaudio_operator.kube.resources import Resource

Raw = dict[str, Any]
logger = logging.getLogger(__name__)

QUIET_S = 10.0
"""Where kopf has told of nothing new for so long (s), what is left is asked for."""
ASKS = 6
"""How often it is, before work begins without what cannot be read."""
NAMED = 4
"""Of what is left, how many are named in the log."""


class Expected:
    """The names that kopf has yet to tell of. `see` takes in what was asked for."""

    def __init__(
        self,
        client: Client,
        written: Sequence[Resource],
        see: Callable[[Resource, None, Raw], None],
        *,
        namespace: str | None,
        on_trouble: Callable[[Resource, ClusterError], None],
    ) -> None:
        self._client = client
        self._see = see
        self._resources = {resource.kind: resource for resource in written}
        self._untold: set[Key] = set()
        self._news = asyncio.Event()
        self.readers = [
            Reflector(
                client,
                resource,
                Store(partial(_key, resource), self._take_in),
                namespace=namespace,
                on_trouble=on_trouble,
            )
            for resource in written
        ]

    async def read(self) -> None:
        """Returns once everything is listed, however often that has to be tried."""
        await asyncio.gather(*(reader.first() for reader in self.readers))

    def tick_off(self, resource: Resource, raw: Raw) -> None:
        """Takes in that kopf has told of an object, or that it is gone."""
        key = _key(resource, raw)
        if key in self._untold:
            self._untold.discard(key)
            self._news.set()

    async def all_told(self, quiet_s: float = QUIET_S) -> None:
        """Returns once all that was listed has been told of or is gone, or cannot be read for minutes."""
        asked = 0
        while self._untold and asked < ASKS:
            self._news.clear()
            try:
                async with asyncio.timeout(quiet_s):
                    await self._news.wait()
            except TimeoutError:
                asked += 1
                await self._ask()
        if self._untold:
            logger.warning("work begins without %s, which cannot be read", self._left())
            self._untold.clear()

    async def _ask(self) -> None:
        logger.info("asks for %s, of which nobody has told yet", self._left())
        for key in sorted(self._untold):
            resource = self._resources[key.kind]
            try:
                live = await self._client.get(resource, key.namespace, key.name)
            except NotFound:
                self._untold.discard(key)
            except ClusterError as error:
                logger.warning("%s cannot be read: %s", key, error)
            else:
                self._see(resource, None, live)

    def _left(self) -> str:
        more = f" and {len(self._untold) - NAMED} more" if len(self._untold) > NAMED else ""
        return ", ".join(map(str, sorted(self._untold)[:NAMED])) + more

    def _take_in(self, old: Key | None, new: Key | None, _own: bool) -> None:
        if new is not None:
            self._untold.add(new)
        elif old is not None:
            self._untold.discard(old)


def _key(resource: Resource, raw: Raw) -> Key:
    return Key(resource.kind, raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
