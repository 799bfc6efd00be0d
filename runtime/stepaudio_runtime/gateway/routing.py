"""Where a request goes: the active release, its ready endpoints, and what is in flight on each. No I/O.

Rules:
1. Only revisions that the routing object names with a weight above 0 get requests; a revision's share of
   them is its weight, over the revisions that have a ready endpoint.
2. Without a conversation, the endpoint with the fewest requests in flight is taken, the longest unused one
   among equals.
3. A conversation goes to the endpoint that comes first in its own order of all endpoints (rendezvous hash:
   every gateway computes the same order, and an endpoint's leaving moves only its own conversations),
   unless that one holds more than its share: in flight there >= ceil(1.25 x (all + 1) / endpoints).
4. An endpoint that could not be reached is passed over for a few seconds while there is another.
5. serving = false, or no ready endpoint, is Unavailable with the time after which to try again.
6. A pool that may sleep (`wake`) and has no ready endpoint is waited for as the routing object says. Of every
   pool that was asked for in the last minute without a ready endpoint the operator is told (`waiting`), with
   the requests that are held for it.
7. A request keeps the release of its first choice to its end, whatever the routing object says by then: codes
   of one release mean nothing to the pods of another. `generation` is the newest one only when nothing older
   is on its way.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stepaudio_runtime.contract import PORT_NAME, pod_revision
from stepaudio_runtime.errors import Unavailable

LOAD_FACTOR = 1.25
"""How far above the mean load an endpoint may be and still get its own conversations."""

COOL_DOWN_S = 3.0
"""Seconds for which an unreachable endpoint is passed over."""

LATELY_S = 60.0
"""Seconds for which the operator is told that somebody asked for a pool that had no ready endpoint."""

RETRY_AFTER_S = 5
"""Seconds after which a client may try again, where the routing object says nothing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod of a pool. `name` is the pod's name, `url` has no trailing slash."""

    name: str
    url: str
    revision: str


@dataclass(frozen=True, slots=True)
class Wake:
    """What becomes of a request for a pool that sleeps: held so long (None: not at all), then 503 (s)."""

    hold_s: int | None
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class PoolRoute:
    """A pool of the routing object: its Service, and the weight of each revision; `wake`: it may sleep."""

    service: str
    port: int
    revisions: Mapping[str, int]
    wake: Wake | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """The routing object, parsed."""

    generation: int
    release: str
    serving: bool
    retry_after_s: int | None
    pools: Mapping[str, PoolRoute]


def parse_routing(text: str) -> Routing:
    """The routing object from its JSON. Raises ValueError with the field at fault."""
    raw = json.loads(text)
    try:
        pools = {
            name: PoolRoute(
                service=str(pool["service"]),
                port=int(pool["port"]),
                revisions={str(revision): int(weight) for revision, weight in pool["revisions"].items()},
                wake=parse_wake(pool.get("wake")),
            )
            for name, pool in raw["pools"].items()
        }
        retry_after = raw.get("retryAfterSeconds")
        return Routing(
            generation=int(raw["generation"]),
            release=str(raw["release"]),
            serving=bool(raw["serving"]),
            retry_after_s=None if retry_after is None else int(retry_after),
            pools=pools,
        )
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"routing object: {fault!r}") from fault


def parse_wake(raw: Mapping[str, Any] | None) -> Wake | None:
    """`wake` of a pool from its JSON. Raises KeyError and TypeError."""
    if raw is None:
        return None
    hold = raw.get("holdSeconds")
    return Wake(None if hold is None else int(hold), int(raw["retryAfterSeconds"]))


@dataclass(frozen=True, slots=True)
class Listed:
    """The endpoints of one Service that are not on their way out, ordered by pod name."""

    ready: tuple[Endpoint, ...] = ()
    unready: tuple[Endpoint, ...] = ()


def listed_endpoints(slices: Iterable[Mapping[str, Any]], service: str, port: int) -> Listed:
    """Endpoints of one Service from its EndpointSlices (raw objects).

    The revision is read from the pod's name; an endpoint without one is not ours. `port` is used where a
    slice names no port `http`. A pod that several slices list is ready where one of them says so.
    """
    found: dict[bool, dict[str, Endpoint]] = {True: {}, False: {}}
    for piece in slices:
        named = [p.get("port") for p in piece.get("ports") or () if p.get("name") == PORT_NAME]
        number = named[0] if named and named[0] else port
        for entry in piece.get("endpoints") or ():
            conditions = entry.get("conditions") or {}
            pod = (entry.get("targetRef") or {}).get("name", "")
            revision = pod_revision(pod, service)
            addresses = entry.get("addresses") or ()
            if conditions.get("terminating") or not addresses or revision is None:
                continue
            host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
            # An absent `ready` counts as true, by the API's own definition.
            found[conditions.get("ready") is not False][pod] = Endpoint(
                pod, f"http://{host}:{number}", revision
            )
    in_order = {ready: [entries[name] for name in sorted(entries)] for ready, entries in found.items()}
    return Listed(tuple(in_order[True]), tuple(e for e in in_order[False] if e.name not in found[True]))


@dataclass(slots=True)
class _Load:
    """What this gateway knows of one endpoint beyond its address."""

    in_flight: int = 0
    last_used: int = 0
    cold_until: float = 0.0


@dataclass(slots=True, eq=False)
class _Era:
    """A release for as long as it is served in one go: its newest routing object, and who is on its way."""

    routing: Routing
    paths: int = 0

    def weights(self, pool: str) -> Mapping[str, int]:
        route = self.routing.pools.get(pool)
        return route.revisions if route else {}


class Path:
    """One request's way through the pools."""

    __slots__ = ("era",)

    def __init__(self) -> None:
        self.era: _Era | None = None


@dataclass(slots=True)
class _Pool:
    endpoints: tuple[Endpoint, ...] = ()
    turns: dict[str, float] = field(default_factory=dict)
    loads: dict[str, _Load] = field(default_factory=dict)
    missed_at: float | None = None  # when a request last found no ready endpoint
    held: int = 0  # requests that wait for one


class Balancer:
    """The routing state of one gateway; every method belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._era: _Era | None = None
        self._past: list[_Era] = []  # with requests on their way
        self._pools: dict[str, _Pool] = {}
        self._uses = 0

    # --- what is known ------------------------------------------------------------------------------

    def update(self, routing: Routing, endpoints: Mapping[str, tuple[Endpoint, ...]]) -> None:
        """Take over a routing object and the ready endpoints of its pools (by pool, not by Service)."""
        era = self._era
        if era is not None and (era.routing.release, era.routing.serving) == (
            routing.release,
            routing.serving,
        ):
            era.routing = routing
        else:
            if era is not None and era.paths:
                self._past.append(era)
            era = self._era = _Era(routing)
        for name in {*self._pools, *routing.pools}:
            pool = self._pools.setdefault(name, _Pool())
            route = routing.pools.get(name)
            pool.endpoints = endpoints.get(name, ()) if route else ()
            kept = {endpoint.name for endpoint in pool.endpoints}
            # A load outlives its endpoint while requests are still in flight there.
            pool.loads = {k: load for k, load in pool.loads.items() if k in kept or load.in_flight}
            pool.turns = {k: turn for k, turn in pool.turns.items() if k in era.weights(name)}

    @property
    def routing(self) -> Routing | None:
        """The newest routing object."""
        return self._era.routing if self._era else None

    @property
    def generation(self) -> int | None:
        """Generation of the routing object by which everything is served that is on its way."""
        served = [era.routing.generation for era in (*self._past, self._era) if era is not None]
        return min(served, default=None)

    def has(self, pool: str) -> bool:
        """Whether the deployment has this pool at all."""
        return self.routing is not None and pool in self.routing.pools

    def candidates(self, pool: str, path: Path | None = None) -> tuple[Endpoint, ...]:
        """Ready endpoints of the revisions that get requests: of new ones, or those of a `path`."""
        state, era = self._pools.get(pool), (path and path.era) or self._era
        if state is None or era is None:
            return ()
        weights = era.weights(pool)
        return tuple(e for e in state.endpoints if weights.get(e.revision, 0) > 0)

    @contextmanager
    def path(self) -> Iterator[Path]:
        """One request, for as long as the block runs."""
        path = Path()
        try:
            yield path
        finally:
            if path.era is not None:
                path.era.paths -= 1
                self._past = [era for era in self._past if era.paths]

    def in_flight(self, pool: str) -> dict[str, int]:
        """Requests in flight from this gateway, by endpoint name."""
        state = self._pools.get(pool)
        return {name: load.in_flight for name, load in state.loads.items()} if state else {}

    def asleep(self, pool: str, path: Path | None = None) -> Wake | None:
        """What to do with a request for `pool` while it sleeps or wakes; None where it serves, or may not."""
        era = (path and path.era) or self._era
        route = era.routing.pools.get(pool) if era is not None and era.routing.serving else None
        return None if route is None or self.candidates(pool, path) else route.wake

    def missed(self, pool: str, *, now: float) -> None:
        """Note that a request needs a pod of `pool` and finds none."""
        self._pools[pool].missed_at = now

    @contextmanager
    def held(self, pool: str) -> Iterator[None]:
        """Count one request that waits for the first pod of `pool` while the block runs."""
        self._pools[pool].held += 1
        try:
            yield
        finally:
            self._pools[pool].held -= 1

    def waiting(self, *, now: float) -> dict[str, int]:
        """Requests held, by pool that was asked for lately and had no ready endpoint."""
        routed = self.routing.pools if self.routing is not None else {}
        return {
            name: pool.held
            for name, pool in self._pools.items()
            if name in routed
            if pool.held or (pool.missed_at is not None and now - pool.missed_at <= LATELY_S)
        }

    # --- choice -------------------------------------------------------------------------------------

    def pick(
        self,
        pool: str,
        *,
        now: float,
        path: Path | None = None,
        key: bytes | None = None,
        avoid: frozenset[str] = frozenset(),
    ) -> Endpoint:
        """The endpoint for one request.

        `now` is the clock's time in seconds; `path` the request that this is a part of, `key` identifies a
        conversation; `avoid` names endpoints that have just failed this request: they are taken only if
        there is no other. Raises Unavailable.
        """
        era = (path and path.era) or self._era
        if era is None:
            raise Unavailable("no routing object yet", retry_after_s=RETRY_AFTER_S)
        newest = (self._era or era).routing
        retry_after_s = newest.retry_after_s or RETRY_AFTER_S
        if not era.routing.serving:
            raise Unavailable("this deployment is not serving at the moment", retry_after_s=retry_after_s)
        found = self.candidates(pool, path)
        if not found:
            if pool in self._pools:
                self.missed(pool, now=now)
            if (wake := self.asleep(pool, path)) is not None:
                message = f"the {pool} pods sleep and are being woken"
                raise Unavailable(message, retry_after_s=wake.retry_after_s)
            raise Unavailable(f"no {pool} pod is ready", retry_after_s=retry_after_s)
        if path is not None and path.era is None:
            path.era = era
            era.paths += 1
        state, weights = self._pools[pool], era.weights(pool)
        untried = [e for e in found if e.name not in avoid] or list(found)
        warm = [e for e in untried if self._load(state, e).cold_until <= now] or untried
        if key is None:
            revision = self._next_revision(state, weights, {e.revision for e in warm})
            rest = [e for e in warm if e.revision == revision]
            return min(rest, key=lambda e: self._idleness(state, e))
        revision = max({e.revision for e in warm}, key=lambda r: (_weighted_score(key, r, weights[r]), r))
        return self._own_endpoint(state, [e for e in warm if e.revision == revision], key)

    @contextmanager
    def holding(self, pool: str, endpoint: Endpoint) -> Iterator[None]:
        """Count one request in flight on `endpoint` while the block runs."""
        load = self._load(self._pools[pool], endpoint)
        self._uses += 1
        load.last_used = self._uses
        load.in_flight += 1
        try:
            yield
        finally:
            load.in_flight -= 1

    def failed(self, pool: str, endpoint: Endpoint, *, now: float) -> None:
        """Note that `endpoint` could not be reached."""
        self._load(self._pools[pool], endpoint).cold_until = now + COOL_DOWN_S

    # --- inside -------------------------------------------------------------------------------------

    def _load(self, pool: _Pool, endpoint: Endpoint) -> _Load:
        return pool.loads.setdefault(endpoint.name, _Load())

    def _idleness(self, pool: _Pool, endpoint: Endpoint) -> tuple[int, int, str]:
        load = self._load(pool, endpoint)
        return load.in_flight, load.last_used, endpoint.name

    def _next_revision(self, pool: _Pool, weights: Mapping[str, int], present: set[str]) -> str:
        """Smooth weighted round robin: over any run of requests each share is within one of its weight."""
        total = sum(weights[revision] for revision in present)
        for revision in present:
            pool.turns[revision] = pool.turns.get(revision, 0.0) + weights[revision] / total
        chosen = max(sorted(present), key=lambda revision: pool.turns[revision])
        pool.turns[chosen] -= 1.0
        return chosen

    def _own_endpoint(self, pool: _Pool, endpoints: list[Endpoint], key: bytes) -> Endpoint:
        """The first endpoint in the conversation's order that is within its share of the load."""
        total = sum(self._load(pool, e).in_flight for e in endpoints)
        share = math.ceil(LOAD_FACTOR * (total + 1) / len(endpoints))
        order = sorted(endpoints, key=lambda e: (_score(key, e.name), e.name), reverse=True)
        # Not all can hold their share, since share x endpoints > total: the search always ends in a hit.
        return next(e for e in order if self._load(pool, e).in_flight < share)


def _score(key: bytes, name: str) -> float:
    """A number in (0, 1], the same in every process, for this pair alone."""
    digest = hashlib.blake2b(name.encode(), key=key[:64], digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 1) / 2**64


def _weighted_score(key: bytes, name: str, weight: int) -> float:
    """Rendezvous score under which `name` wins a share of keys proportional to its weight."""
    return math.inf if (u := _score(key, name)) >= 1.0 else -weight / math.log(u)
