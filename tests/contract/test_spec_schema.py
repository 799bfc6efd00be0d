"""The operator's parser and the CRD's schema give the same verdict on every spec.

Specs are generated: from documents that set every field, each field takes values at and beyond its bounds,
values of other types, null and nothing, each object gets an unknown field, and fields that depend on each
other take all combinations. Structural verdicts are compared offline with a JSON Schema validator; the
whole of them, CEL included, with a real API server (dry run, strict field validation).
"""

import base64
import copy
import itertools
import json
import random
import ssl
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from stepaudio_operator import crd, names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.spec.data import DataJobSpec
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import without_nulls
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.reading import parse_data_job, parse_deployment, parse_pool
from stepaudio_operator.spec.voice import VoiceSpec, parse_voice

POD_TEMPLATE = {
    "labels": {"team": "voice"},
    "annotations": {"note": "anything"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": 5}
    ],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "schedulerName": "other",
    "queue": {"name": "gpus", "priorityClass": "speech"},
    "registry": "registry.example.com:5000/near",
    "imagePullSecrets": [{"name": "pull"}],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
    "volumes": [{"name": "extra", "emptyDir": {}}],
    "volumeMounts": [{"name": "extra", "mountPath": "/extra", "subPath": "a", "readOnly": True}],
    "shmSize": "1Gi",
}
DEPLOYMENT = {
    "preset": "step-audio",
    "runtime": {"version": "1.4.2", "registry": "registry.example.com:5000/team", "pullPolicy": "Always"},
    "models": {"source": {"pvc": {"claimName": "models", "subPath": "a/b"}}},
    "chat": {
        "enabled": True,
        "replicas": 1,
        "gpu": {
            "count": 4,
            "nodes": 2,
            "memory": "80GB",
            "resource": "nvidia.com/gpu",
            "products": ["NVIDIA-A800-SXM4-80GB"],
            "requireMemory": True,
        },
        "maxModelLen": 16384,
        "gpuMemoryUtilization": 0.9,
        "quantization": "FP8",
        "podTemplate": POD_TEMPLATE,
    },
    "tts": {
        "enabled": True,
        "replicas": 1,
        "gpu": {"count": 1, "memory": "24GB"},
        "maxModelLen": 8192,
        "gpuMemoryUtilization": 0.5,
    },
    "tokenizer": {
        "enabled": True,
        "placement": "Own",
        "replicas": 1,
        "gpu": {
            "count": 1,
            "memory": "8GB",
            "claim": {"deviceClass": "gpu.example.com", "selectors": [{"cel": "device.driver == 'x'"}]},
        },
    },
    "gateway": {
        "enabled": True,
        "replicas": 2,
        "auth": {"secretRef": {"name": "keys"}},
        "maxAudioSeconds": 30,
        "maxInFlight": 64,
    },
    "rollout": {
        "strategy": "Auto",
        "maxUnavailable": 1,
        "drainTimeout": "10m",
        "surgeTimeout": "2m",
        "progressDeadline": "1h",
        "autoRollback": False,
        "historyLimit": 3,
    },
    "health": {"canary": {"interval": "60s"}, "stallTimeout": "2m"},
    "vram": {"policy": "Warn"},
}
NANO = {
    "preset": "nano",
    "models": {"source": {"image": {"path": "/opt/models", "reference": "registry.example.com/models:1"}}},
    "chat": {"replicas": 0},
    "tts": {
        "gpu": {"count": 1, "claim": {"templateName": "theirs"}},
        "autoscaling": {
            "min": 0,
            "max": 3,
            "inFlight": 4,
            "queueMilliseconds": 500,
            "firstAudioMilliseconds": 1500,
            "upWindow": "45s",
            "downWindow": "5m",
            "hold": "1m",
        },
    },
    "tokenizer": {"placement": "WithTTS"},
    "gateway": {"podTemplate": {"env": [{"name": "C"}]}},
}
POOL = {
    "deployment": "prod",
    "component": "chat",
    "preset": "step-audio",
    "replicas": 1,
    "runtime": {"version": "1", "registry": "", "pullPolicy": "Never"},
    "models": {"source": {"pvc": {"claimName": "models"}}},
    "gpu": {"count": 4, "memory": "80GB"},
    "maxModelLen": 4096,
    "gpuMemoryUtilization": 0.9,
    "quantization": "INT4",
    "health": {"stallTimeout": "90s"},
    "rollout": {
        "strategy": "Canary",
        "maxUnavailable": 2,
        "drainTimeout": "90s",
        "canary": {
            "steps": [{"traffic": 10, "pause": "5m"}, {"traffic": 50, "pause": "10m"}],
            "minRequests": 50,
            "maxErrorPercent": 1,
            "maxSlowdownPercent": 20,
        },
    },
    "podTemplate": POD_TEMPLATE,
}
GATEWAY_POOL = {
    "deployment": "prod",
    "component": "gateway",
    "preset": "nano",
    "runtime": {"version": "1"},
    "auth": {"secretRef": {"name": "keys"}},
    "maxAudioSeconds": 10,
    "maxInFlight": 5,
    "autoscaling": {"min": 1, "max": 2},
}

VOICE = {
    "deployment": "prod",
    "name": "Ada Lovelace",
    "wave": {"configMap": {"name": "ada", "key": "ada.flac"}},
    "transcript": "good morning,\nthis is my voice",
    "consent": {
        "person": "Ada Example",
        "statement": "I agree to my voice being imitated.",
        "recording": {"configMap": {"name": "ada", "key": "consent.opus"}},
    },
}
VOICE_NAMES = [
    "小明",
    "a-b.c_d",
    "a b",
    "_",
    "-a",
    "a-",
    ".a",
    "a.",
    " a",
    "a ",
    "a/b",
    "a:b",
    "a[b",
    "a^b",
    "a`b",
]
VOICE_NAMES += [
    "a{b",
    "a~b",
    "a!b",
    "a,b",
    "a@b",
    "a\\b",
    "a\x7f",
    "Zoë",
    "x" * 64,
    "x" * 65,
    "é" * 64,
    "é" * 65,
]
DATA_JOB = {
    "recipe": {"name": "speech", "texts": [{"file": "/texts/a.txt", "language": "en"}]},
    "output": {"volume": {"size": "10Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"}},
    "workers": 4,
    "runtime": {"version": "1.4.2", "registry": "registry.example.com:5000/team", "pullPolicy": "Always"},
    "podTemplate": {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
}
DATA_JOB_ON_CLAIM = {
    "recipe": {},
    "output": {"pvc": {"claimName": "data", "subPath": "a/b"}},
    "podTemplate": {"volumeMounts": [{"name": "texts", "mountPath": "/texts"}]},
}

# Values that are near to right for some pattern and wrong for others.
STRINGS = [
    "", "a", "A", "0", "-", "a-", "a.b", "a..b", "a_b", "/", "/a", "/a:b", "a/b", "1Gi", "1.5G", "-1", "1e3",
    "10m", "0m", "99999h", "100000s", "1h30m", "80GB", "80Gi", "0GB", "host:5000/x", "host:500000", "x y",
    "é", "tmp", "HOME", "/tmp", "a\n", "true", "null", "1",
]  # fmt: skip
# Not 1.0: the API server takes it for an integer in schemas, but not in CEL and the scale subresource.
OTHER_TYPES: list[Any] = [None, True, False, 0, 1, -1, 2.5, "1", [], {}, [None], {"a": None}, {"a": 1}]
REMOVED = object()
AT_ONCE = 8  # requests in flight: the API server takes some 10 ms for each, most of it waiting


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


def for_json_schema(node: Any) -> Any:
    """The structural schema in JSON Schema's words, as the API server reads it: unknown fields refused."""
    if isinstance(node, list):
        return [for_json_schema(n) for n in node]
    if not isinstance(node, dict):
        return node
    result = {k: for_json_schema(v) for k, v in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if isinstance(node.get("pattern"), str):
        # Python's `$` also matches before a last newline; that of the API server does not.
        result["pattern"] = node["pattern"].removesuffix("$") + r"\Z"
    open_ended = node.get("x-kubernetes-preserve-unknown-fields") or "properties" not in node
    if node.get("type") == "object" and not open_ended:
        result["additionalProperties"] = False
    return result


def structurally_valid(model: Any, spec: dict[str, Any]) -> bool:
    try:
        model.model_validate_json(json.dumps(without_nulls(spec, model)))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("model", "schema", "specs"),
    [
        (DeploymentSpec, DEPLOYMENT_SCHEMA, deployment_specs),
        (PoolSpec, POOL_SCHEMA, pool_specs),
        (VoiceSpec, VOICE_SCHEMA, voice_specs),
        (DataJobSpec, DATA_JOB_SCHEMA, data_job_specs),
    ],
)
def test_the_structural_verdicts_agree(model: Any, schema: Any, specs: Any) -> None:
    validator = jsonschema.Draft4Validator(for_json_schema(schema))
    generated = specs()
    verdicts = [
        (structurally_valid(model, s), validator.is_valid(without_nulls(s, model))) for s in generated
    ]
    different = [s for s, (ours, theirs) in zip(generated, verdicts, strict=True) if ours != theirs]
    assert different == []
    assert sum(ours for ours, _ in verdicts) > 100
    assert sum(not ours for ours, _ in verdicts) > 300


@pytest.fixture(scope="module")
def server(api_cluster: Any) -> Iterator[httpx.Client]:
    """The API server, with our CRDs in it."""
    with connect(Path(api_cluster.kubeconfig)) as client:
        install(client)
        yield client


def connect(kubeconfig: Path) -> httpx.Client:
    """A client with the certificates of `kubeconfig`."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def content(owner: dict[str, Any], field: str) -> bytes:
        if f"{field}-data" in owner:
            return base64.b64decode(owner[f"{field}-data"])
        return (kubeconfig.parent / owner[field]).read_bytes()

    context = ssl.create_default_context(cadata=content(cluster, "certificate-authority").decode())
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "crt"), Path(folder, "key")
        certificate.write_bytes(content(user, "client-certificate"))
        key.write_bytes(content(user, "client-key"))
        context.load_cert_chain(certificate, key)
    return httpx.Client(base_url=cluster["server"], verify=context, timeout=60)


def install(client: httpx.Client) -> None:
    """Applies the CRDs and waits until all are served."""
    for text in crd.render().values():
        body = yaml.safe_load(text)
        answer = client.patch(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}",
            params={"fieldManager": "test", "force": "true", "fieldValidation": "Strict"},
            content=text,
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        assert answer.status_code in (200, 201), answer.text
        for _ in range(600):
            stored = client.get(answer.request.url.path).json()
            listed = stored.get("status", {}).get("conditions") or ()
            conditions = {c["type"]: c["status"] for c in listed}
            if conditions.get("Established") == "True":
                break
            time.sleep(0.1)
        assert conditions.get("Established") == "True"


def submit(client: httpx.Client, plural: str, body: dict[str, Any]) -> tuple[bool, str]:
    """Whether the API server would take `body`, and its words if not."""
    answer = client.post(
        f"/apis/{names.API_VERSION}/namespaces/default/{plural}",
        params={"dryRun": "All", "fieldValidation": "Strict"},
        json=body,
    )
    assert answer.status_code in (201, 400, 422), answer.text
    return answer.status_code == 201, answer.json().get("message", "")


def verdict(parse: Any, body: dict[str, Any]) -> tuple[bool, str]:
    try:
        parse(body)
    except SpecError as invalid:
        return False, str(invalid)
    return True, ""


@pytest.mark.api
@pytest.mark.parametrize(
    ("kind", "plural", "parse", "name", "specs", "sample"),
    [
        (names.DEPLOYMENT_KIND, names.DEPLOYMENT_PLURAL, parse_deployment, "prod", deployment_specs, 2000),
        (names.POOL_KIND, names.POOL_PLURAL, parse_pool, None, pool_specs, 600),
        (names.VOICE_KIND, names.VOICE_PLURAL, parse_voice, "ada", voice_specs, 800),
        (names.DATA_JOB_KIND, names.DATA_JOB_PLURAL, parse_data_job, "speech", data_job_specs, 600),
    ],
)
def test_the_api_server_judges_as_the_parser(
    server: httpx.Client, kind: str, plural: str, parse: Any, name: str | None, specs: Any, sample: int
) -> None:
    generated = specs()
    bodies = [
        {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": name or f"prod-{spec.get('component')}"},
            "spec": spec,
        }
        for spec in random.Random(3).sample(generated, min(sample, len(generated)))
    ]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda body: submit(server, plural, body), bodies))
    verdicts = [verdict(parse, body) for body in bodies]
    compared = zip(bodies, verdicts, answers, strict=True)
    assert [each for each in compared if each[1][0] != each[2][0]] == []
    accepted = sum(taken for taken, _ in answers)
    assert accepted > 100
    assert len(bodies) - accepted > 200


@pytest.mark.api
@pytest.mark.parametrize(
    ("kind", "plural", "parse", "name", "specs"),
    [
        (names.DEPLOYMENT_KIND, names.DEPLOYMENT_PLURAL, parse_deployment, "prod", combinations),
        (names.POOL_KIND, names.POOL_PLURAL, parse_pool, None, pool_combinations),
        (names.DATA_JOB_KIND, names.DATA_JOB_PLURAL, parse_data_job, "speech", data_job_combinations),
    ],
)
def test_cross_field_rules_mean_the_same_in_cel(
    server: httpx.Client, kind: str, plural: str, parse: Any, name: str | None, specs: Any
) -> None:
    for spec in specs():
        metadata = {"name": name or f"prod-{spec['component']}"}
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        assert verdict(parse, body)[0] == submit(server, plural, body)[0], spec


NAMES = [
    "a",
    "prod",
    "a-b",
    "1a",
    "a.b",
    "A",
    "a-",
    "x" * 31,
    "x" * 32,
    "x" * 39,
    "x" * 40,
    "x" * 58,
    "x" * 59,
    "a--b",
    "a_b",
    "é",
]


@pytest.mark.api
@pytest.mark.parametrize("name", NAMES)
def test_names_are_judged_alike(server: httpx.Client, name: str) -> None:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": name},
        "spec": {"preset": "nano"},
    }
    assert verdict(parse_deployment, body)[0] == submit(server, names.DEPLOYMENT_PLURAL, body)[0]
    grouped = {**body, "spec": {"preset": "nano", "chat": {"gpu": {"count": 2, "nodes": 2}}}}
    assert verdict(parse_deployment, grouped)[0] == submit(server, names.DEPLOYMENT_PLURAL, grouped)[0]
    pool = {
        **body,
        "kind": names.POOL_KIND,
        "metadata": {"name": f"{name}-chat"},
        "spec": {"deployment": name, "component": "chat", "preset": "nano", "runtime": {"version": "1"}},
    }
    assert verdict(parse_pool, pool)[0] == submit(server, names.POOL_PLURAL, pool)[0]
    data_job = {**body, "kind": names.DATA_JOB_KIND, "spec": DATA_JOB}
    assert verdict(parse_data_job, data_job)[0] == submit(server, names.DATA_JOB_PLURAL, data_job)[0]


@pytest.mark.api
@pytest.mark.parametrize("name", ["a", "a.b", "x" * 64, "x" * 65])
def test_a_voice_without_a_name_is_called_as_its_object(server: httpx.Client, name: str) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": names.VOICE_KIND, "metadata": {"name": name}}
    for spec in (VOICE, {k: v for k, v in VOICE.items() if k != "name"}):
        given = {**body, "spec": spec}
        assert verdict(parse_voice, given)[0] == submit(server, names.VOICE_PLURAL, given)[0]


@pytest.mark.api
def test_a_refusal_names_the_field_and_the_cure(server: httpx.Client) -> None:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "prod"},
        "spec": {"preset": "step-audio", "tokenizer": {"enabled": False}},
    }
    said = submit(server, names.DEPLOYMENT_PLURAL, body)[1]
    assert "spec.models: " in said
    assert "set models.source to huggingFace, modelScope, s3 or pvc.claimName" in said
    assert "spec.tokenizer.enabled: " in said
    unknown = submit(server, names.DEPLOYMENT_PLURAL, {**body, "spec": {"preset": "nano", "chta": {}}})
    assert unknown == (False, unknown[1])
    assert 'unknown field "spec.chta"' in unknown[1]
