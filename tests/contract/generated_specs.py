"""Specs of every kind, right and wrong: whole ones changed in one place each, and fields that depend on each
other in all combinations.
"""

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

from stepaudio_operator import crd, names
from stepaudio_operator.spec.data import DataJobSpec
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.voice import VoiceSpec
from tests.contract.whole_specs import (
    DATA_JOB,
    DATA_JOB_ON_CLAIM,
    DEPLOYMENT,
    GATEWAY_POOL,
    NANO,
    POOL,
    VOICE,
    VOICE_NAMES,
)

# Values that are near to right for some pattern and wrong for others.
STRINGS = [
    "", "a", "A", "0", "-", "a-", "a.b", "a..b", "a_b", "/", "/a", "/a:b", "a/b", "1Gi", "1.5G", "-1", "1e3",
    "10m", "0m", "99999h", "100000s", "1h30m", "80GB", "80Gi", "0GB", "host:5000/x", "host:500000", "x y",
    "é", "tmp", "HOME", "/tmp", "a\n", "true", "null", "1",
]  # fmt: skip
# Not 1.0: the API server takes it for an integer in schemas, but not in CEL and the scale subresource.
OTHER_TYPES: list[Any] = [None, True, False, 0, 1, -1, 2.5, "1", [], {}, [None], {"a": None}, {"a": 1}]
REMOVED = object()


def values(schema: dict[str, Any]) -> Iterator[Any]:
    """Values at and beyond the bounds of one field's schema, and values of other types."""
    yield from OTHER_TYPES
    yield from schema.get("enum", ())
    for bound in ("minimum", "maximum"):
        if bound in schema:
            yield from (schema[bound] - 1, schema[bound], schema[bound] + 1)
    if schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema:
        yield from STRINGS
        for length in {schema.get("maxLength", 5), 39}:
            yield from ("a" * length, "a" * (length + 1), "1" * (length + 1), "/" + "a" * (length - 1))
    if "maxItems" in schema:
        for count in (schema["maxItems"], schema["maxItems"] + 1):
            yield [_item(schema["items"], i) for i in range(count)]
        yield [_item(schema["items"], 0)] * 2
    if "maxProperties" in schema:
        for count in (schema["maxProperties"], schema["maxProperties"] + 1):
            yield {f"k{i}": "1" for i in range(count)}


def _item(schema: dict[str, Any], number: int) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for key in schema.get("required", ()):
        item[key] = f"/x{number}" if key == "mountPath" else f"x{number}"
    return item


def paths(schema: dict[str, Any], document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """(path, schema) of every place in `document`."""
    if at:
        yield at, schema
    if isinstance(document, dict):
        for key, value in document.items():
            child = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if isinstance(child, dict):
                yield from paths(child, value, (*at, key))
    elif isinstance(document, list) and "items" in schema:
        for i, value in enumerate(document):
            yield from paths(schema["items"], value, (*at, i))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`document` with `value` at `path`, or without it."""
    result = copy.deepcopy(document)
    parent = result
    for step in path[:-1]:
        parent = parent[step]
    if value is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return result


def mutations(schema: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield document
    yield {**document, "unknown": 1}
    for path, part in paths(schema, document):
        for value in (*values(part), REMOVED):
            yield replaced(document, path, value)
        if part.get("type") == "object" and "properties" in part:
            yield replaced(document, (*path, "unknown"), 1)


def combinations() -> Iterator[dict[str, Any]]:
    """Fields that depend on each other, in all combinations."""
    sources: list[Any] = [
        REMOVED,
        {"image": {}},
        {"image": {"path": "/m"}},
        {"image": {"reference": "registry.example.com/models:1"}},
        {"image": {"reference": "registry.example.com/models@sha256:0a", "path": "/m"}},
        {"pvc": {"claimName": "m"}},
        {"image": {}, "pvc": {"claimName": "m"}},
        {},
    ]
    for preset, source, chat, tts in itertools.product(
        ("nano", "step-audio"), sources, (True, False), (True, False)
    ):
        spec = {"preset": preset, "chat": {"enabled": chat}, "tts": {"enabled": tts}}
        if source is not REMOVED:
            spec["models"] = {"source": source}
        yield spec
        yield {**spec, "tokenizer": {"enabled": False}}
    for preset, component, gpu, share in itertools.product(
        ("nano", "step-audio"), ("chat", "tts"), (None, {}, {"count": 0}, {"count": 1}), (None, 0.5)
    ):
        part: dict[str, Any] = {}
        if gpu is not None:
            part["gpu"] = gpu
        if share is not None:
            part["gpuMemoryUtilization"] = share
        yield {"preset": preset, "models": {"source": {"pvc": {"claimName": "m"}}}, component: part}
    for rollout in rollouts():
        yield {"preset": "nano", "rollout": rollout}
    for preset, component, gpu in itertools.product(("nano", "step-audio"), ("chat", "tts"), gpus()):
        yield {"preset": preset, "models": {"source": {"pvc": {"claimName": "m"}}}, component: {"gpu": gpu}}
    for placement, tts, enabled, own in itertools.product(
        ("Own", "WithTTS"),
        (True, False),
        (True, False),
        ({}, {"replicas": 1}, {"gpu": {}}, {"autoscaling": {"max": 2}}),
    ):
        tokenizer = {"placement": placement, "enabled": enabled, **own}
        yield {"preset": "nano", "tts": {"enabled": tts}, "tokenizer": tokenizer}
    for component, autoscaling in itertools.product(names.COMPONENTS, autoscalings()):
        yield {"preset": "nano", component: {"replicas": 1, "autoscaling": autoscaling}}
    for queue, labels in itertools.product(({}, {"name": "q"}), ({}, {"kueue.x-k8s.io/queue-name": "q"})):
        yield {"preset": "nano", "tts": {"podTemplate": {"queue": queue, "labels": labels}}}


def autoscalings() -> Iterator[dict[str, Any]]:
    """What some components do not know, and bounds that do not go together."""
    for least, hold in itertools.product((None, 0, 1, 3), (None, "1m")):
        given = {"min": least, "max": 2, "hold": hold}
        yield {field: value for field, value in given.items() if value is not None}
    yield from ({"max": 2, field: 500} for field in ("queueMilliseconds", "firstAudioMilliseconds"))


def gpus() -> Iterator[dict[str, Any]]:
    """Every way to a GPU with every number of them, and ways that exclude each other."""
    claims: list[dict[str, Any]] = [
        {},
        {"deviceClass": "c"},
        {"templateName": "t"},
        {"deviceClass": "c", "templateName": "t"},
        {"templateName": "t", "selectors": []},
    ]
    ways: list[dict[str, Any]] = [
        *({"resource": f"nvidia.com/{name}"} for name in ("gpu", "gpu.shared", "mig-3g.40gb")),
        {"products": ["L4"]},
        {"requireMemory": False},
        {"requireMemory": True},
        {"requireMemory": True, "memory": "8GB"},
        {"resource": "nvidia.com/mig-3g.40gb", "memory": "8GB"},
        *({"claim": claim} for claim in claims),
        *({"claim": {"templateName": "t"}, **other} for other in ({"products": ["a"]}, {"resource": "a/b"})),
    ]
    for count, way in itertools.product((None, 0, 1, 2), ways):
        yield way if count is None else {**way, "count": count}
    for count, nodes in itertools.product((None, 0, 1, 2, 4), (1, 2, 4)):
        yield {"nodes": nodes} if count is None else {"nodes": nodes, "count": count}


def rollouts() -> Iterator[dict[str, Any]]:
    """Every strategy with every field that only one of them reads, and steps out of order."""
    one, two = {"traffic": 10, "pause": "1m"}, {"traffic": 50, "pause": "1m"}
    for strategy, surge, steps in itertools.product(
        (None, "Auto", "Surge", "InPlace", "Recreate", "Canary"),
        (None, "1m"),
        (None, [], [one], [one, two], [two, one], [one, one]),
    ):
        given = {"strategy": strategy, "surgeTimeout": surge}
        rollout: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if steps is not None:
            rollout["canary"] = {"steps": steps}
        yield rollout


def pool_combinations() -> Iterator[dict[str, Any]]:
    """Every component with every field that only some know."""
    fields = {
        "gpu": {"count": 1},
        "withTokenizer": True,
        "maxModelLen": 512,
        "gpuMemoryUtilization": 0.5,
        "auth": {"secretRef": {"name": "k"}},
        "maxAudioSeconds": 5,
        "maxInFlight": 5,
        "models": {"source": {"image": {}}},
    }
    for component, preset in itertools.product(names.COMPONENTS, ("nano", "step-audio")):
        base = {"deployment": "prod", "component": component, "preset": preset, "runtime": {"version": "1"}}
        yield base
        for field, value in fields.items():
            yield {**base, field: value}
        for autoscaling in autoscalings():
            yield {**base, "autoscaling": autoscaling}
        models = {"source": {"pvc": {"claimName": "m"}}}
        yield {**base, "gpu": {"count": 2}, "models": models}
        yield {**base, "models": {"source": {"image": {"reference": "registry.example.com/models:1"}}}}
        for gpu in ({"resource": "nvidia.com/mig-3g.40gb"}, {"resource": "a/b.shared", "count": 2}):
            yield {**base, "gpu": gpu, "models": models}
        for gpu in ({"count": 2, "nodes": 2}, {"count": 1, "nodes": 1}, {"count": 1, "nodes": 2}):
            yield {**base, "gpu": gpu, "models": models}


def data_job_combinations() -> Iterator[dict[str, Any]]:
    """Every place for the data with every other."""
    places = {"pvc": {"claimName": "data"}, "volume": {"size": "1Gi"}}
    for chosen in itertools.chain.from_iterable(itertools.combinations(places, n) for n in range(3)):
        yield {"recipe": {}, "output": {name: places[name] for name in chosen}}


DEPLOYMENT_SCHEMA, POOL_SCHEMA = crd.schema(DeploymentSpec), crd.schema(PoolSpec)
VOICE_SCHEMA = crd.schema(VoiceSpec)
DATA_JOB_SCHEMA = crd.schema(DataJobSpec)


def unique(specs: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in dict.fromkeys(json.dumps(s, sort_keys=True) for s in specs)]


def deployment_specs() -> list[dict[str, Any]]:
    return unique(
        itertools.chain(
            mutations(DEPLOYMENT_SCHEMA, DEPLOYMENT), mutations(DEPLOYMENT_SCHEMA, NANO), combinations()
        )
    )


def pool_specs() -> list[dict[str, Any]]:
    return unique(
        itertools.chain(
            mutations(POOL_SCHEMA, POOL), mutations(POOL_SCHEMA, GATEWAY_POOL), pool_combinations()
        )
    )


def voice_specs() -> list[dict[str, Any]]:
    called = ({**VOICE, "name": name} for name in VOICE_NAMES)
    said = (replaced(VOICE, ("consent", "statement"), text) for text in (" ", "\n", "\t a", "a\n", "\u00a0"))
    return unique(itertools.chain(mutations(VOICE_SCHEMA, VOICE), called, said))


def data_job_specs() -> list[dict[str, Any]]:
    return unique(
        itertools.chain(
            mutations(DATA_JOB_SCHEMA, DATA_JOB),
            mutations(DATA_JOB_SCHEMA, DATA_JOB_ON_CLAIM),
            data_job_combinations(),
        )
    )
