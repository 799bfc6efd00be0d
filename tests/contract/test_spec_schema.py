"""The operator's parser and the CRD's schema give the same verdict on every spec.

Specs are generated: from documents that set every field, each field takes values at and beyond its bounds,
values of other types, null and nothing, each object gets an unknown field, and fields that depend on each
other take all combinations. Structural verdicts are compared offline with a JSON Schema validator; the
whole of them, CEL included, with a real API server (dry run, strict field validation).
"""

import base64
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
from tests.contract.generated_specs import (
    DATA_JOB_SCHEMA,
    DEPLOYMENT_SCHEMA,
    POOL_SCHEMA,
    VOICE_SCHEMA,
    combinations,
    data_job_combinations,
    data_job_specs,
    deployment_specs,
    pool_combinations,
    pool_specs,
    voice_specs,
)
from tests.contract.whole_specs import DATA_JOB, VOICE

AT_ONCE = 8  # requests in flight: the API server takes some 10 ms for each, most of it waiting


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
