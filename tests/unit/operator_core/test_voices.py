"""The voice store of a deployment: which pods get what of it, and that nothing else changes for it."""

from typing import Any

import pytest

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.render import deployment
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.render.pool import input_hash, revision
from stepaudio_operator.spec.reading import parse_deployment, parse_pool

S3 = {"bucket": "voices", "prefix": "team/a", "endpoint": "http://minio:9000/", "secretRef": {"name": "s3"}}
SECRETS = [
    {"name": key, "valueFrom": {"secretKeyRef": {"name": "s3", "key": key}}}
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
]


def pools(voices: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    raw = {
        "apiVersion": names.API_VERSION,
        "kind": names.DEPLOYMENT_KIND,
        "metadata": {"name": "prod", "namespace": "speech", "uid": "u1"},
        "spec": {"preset": "nano"} | ({"voices": voices} if voices else {}),
    }
    made = deployment.children(raw, parse_deployment(raw), {}, ImageDefaults("1.0.0", ""))
    return {child["spec"]["component"]: child for child in made if child["kind"] == names.POOL_KIND}


def pod(pool: dict[str, Any]) -> dict[str, Any]:
    return dict(revision(pool, parse_pool(pool)).data["template"]["spec"])


def given(voices: dict[str, Any] | None, component: str) -> dict[str, Any]:
    """What a pod of `component` has of the voice store."""
    spec = pod(pools(voices)[component])
    container = spec["containers"][0]
    ours = ("STEPAUDIO_VOICES_URL", "STEPAUDIO_WATERMARK", "AWS_")
    return {
        "env": [variable for variable in container["env"] if variable["name"].startswith(ours)],
        "mounts": [mount for mount in container["volumeMounts"] if mount["name"] == "voices"],
        "volumes": [volume for volume in spec["volumes"] if volume["name"] == "voices"],
        "fsGroup": spec["securityContext"].get("fsGroup"),
    }


def test_gateway_and_tts_get_the_volume_and_may_write_it():
    voices = {"store": {"pvc": {"claimName": "voices", "subPath": "prod"}}}
    expected = {
        "env": [{"name": "STEPAUDIO_VOICES_URL", "value": "file:///var/lib/stepaudio/voices"}],
        "mounts": [{"name": "voices", "mountPath": "/var/lib/stepaudio/voices", "subPath": "prod"}],
        "volumes": [{"name": "voices", "persistentVolumeClaim": {"claimName": "voices"}}],
        "fsGroup": 10001,
    }
    assert {c: given(voices, c) for c in ("gateway", "tts")} == {"gateway": expected, "tts": expected}


def test_gateway_and_tts_get_the_bucket_and_its_keys_by_reference():
    env = [
        {"name": "STEPAUDIO_VOICES_URL", "value": "s3://voices/team/a"},
        {"name": "AWS_REGION", "value": "us-east-1"},
        {"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"},
        *SECRETS,
    ]
    expected = {"env": env, "mounts": [], "volumes": [], "fsGroup": None}
    assert {c: given({"store": {"s3": S3}}, c) for c in ("gateway", "tts")} == {
        "gateway": expected,
        "tts": expected,
    }


def test_pools_that_know_no_voices_get_nothing_of_them():
    nothing = {"env": [], "mounts": [], "volumes": [], "fsGroup": None}
    for voices, components in ((None, names.COMPONENTS), ({"store": {"s3": S3}}, ("chat", "tokenizer"))):
        assert [given(voices, c) for c in components] == [nothing] * len(components)


def test_the_watermark_is_the_gateways_alone():
    marked, plain = ({"store": {"s3": S3}, "watermark": on} for on in (True, False))
    assert {"name": "STEPAUDIO_WATERMARK", "value": "off"} in given(plain, "gateway")["env"]
    changed = {
        c
        for c in names.COMPONENTS
        if input_hash(parse_pool(pools(marked)[c])) != input_hash(parse_pool(pools(plain)[c]))
    }
    assert changed == {"gateway"}


@pytest.mark.parametrize(
    ("store", "field"),
    [
        ({}, "voices.store.pvc"),
        ({"pvc": {"claimName": "a"}, "s3": {"bucket": "abc"}}, "voices.store.pvc"),
        ({"s3": {"bucket": "Not/A/Bucket"}}, "voices.store.s3.bucket"),
        ({"s3": {"bucket": "abc", "endpoint": "minio:9000"}}, "voices.store.s3.endpoint"),
    ],
)
def test_a_store_that_cannot_be_is_refused_by_its_field(store, field):
    with pytest.raises(SpecError, match=field):
        pools({"store": store})
