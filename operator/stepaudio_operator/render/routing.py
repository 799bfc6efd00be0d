"""The routing object: a ConfigMap with one JSON document that every gateway watches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.records import RoutedPool, Routing, Wake
from stepaudio_operator.render.objects import child


def config_map(owner: Mapping[str, Any], routing: Routing) -> dict[str, Any]:
    """The ConfigMap `NAME-routing` of `owner` (the raw StepAudioDeployment)."""
    name = owner["metadata"]["name"]
    document = {
        "generation": routing.generation,
        "release": routing.release,
        "serving": routing.serving,
        "retryAfterSeconds": routing.retry_after_s,
        "pools": {
            component: {
                "service": pool.service,
                "port": pool.port,
                "revisions": dict(pool.revisions),
                **_wake(pool.wake),
            }
            for component, pool in routing.pools.items()
        },
    }
    config = child(
        owner,
        api_version="v1",
        kind="ConfigMap",
        name=names.routing(name),
        labels=names.child_labels(name),
    )
    config["data"] = {names.ROUTING_KEY: json.dumps(document, sort_keys=True)}
    return config


def parse(config: Mapping[str, Any] | None) -> Routing | None:
    """The routing that a ConfigMap holds; None where there is none or it cannot be read."""
    text = ((config or {}).get("data") or {}).get(names.ROUTING_KEY)
    if not isinstance(text, str):
        return None
    try:
        document = json.loads(text)
        return Routing(
            generation=int(document["generation"]),
            release=document["release"],
            serving=document["serving"],
            retry_after_s=document["retryAfterSeconds"],
            pools={
                component: RoutedPool(
                    pool["service"], pool["port"], pool["revisions"], _parse_wake(pool.get("wake"))
                )
                for component, pool in document["pools"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _wake(wake: Wake | None) -> dict[str, Any]:
    if wake is None:
        return {}
    return {"wake": {"holdSeconds": wake.hold_s, "retryAfterSeconds": wake.retry_after_s}}


def _parse_wake(raw: Any) -> Wake | None:
    return None if raw is None else Wake(raw["holdSeconds"], raw["retryAfterSeconds"])
