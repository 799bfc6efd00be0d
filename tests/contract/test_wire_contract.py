"""The operator's table of names, the runtime's, and docs/architecture.md say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_type_hints

from stepaudio_operator import data_job, names, records, voices
from stepaudio_operator.polling import Answer
from stepaudio_operator.render import routing as render
from stepaudio_operator.spec.voice import parse_voice
from stepaudio_runtime import bodies, contract
from stepaudio_runtime.contract import Component, Env, Route
from stepaudio_runtime.gateway.declared_voices import Source, Wanted, parse_voices
from stepaudio_runtime.gateway.routing import PoolRoute, Routing, Wake, parse_routing
from stepaudio_runtime.health.state import PodState

DOCS = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")

BOTH = {  # operator's name -> runtime's value
    "GROUP": contract.API_GROUP,
    "VERSION": contract.API_VERSION,
    "COMPONENTS": tuple(Component),
    "LABEL_NAME": contract.LABEL_NAME,
    "LABEL_INSTANCE": contract.LABEL_INSTANCE,
    "LABEL_COMPONENT": contract.LABEL_COMPONENT,
    "LABEL_MANAGED_BY": contract.LABEL_MANAGED_BY,
    "LABEL_DEPLOYMENT": contract.LABEL_DEPLOYMENT,
    "LABEL_POOL": contract.LABEL_POOL,
    "LABEL_REVISION": contract.LABEL_REVISION,
    "APP_NAME": contract.APP_NAME,
    "REVISION_DIGITS": contract.REVISION_DIGITS,
    "POOL_PORT": contract.POOL_PORT,
    "GATEWAY_PORT": contract.GATEWAY_PORT,
    "GATEWAY_SERVICE_PORT": contract.GATEWAY_SERVICE_PORT,
    "PORT_NAME": contract.PORT_NAME,
    "USER_ID": contract.RUN_AS_UID,
    "HEALTH_PATH": Route.HEALTHZ,
    "READY_PATH": Route.READYZ,
    "STATUS_PATH": Route.STATUS,
    "METRICS_PATH": Route.METRICS,
    "FIGURES_PATH": Route.FIGURES,
    "DECLARED_VOICES_PATH": Route.DECLARED_VOICES,
    "VOICES_KEY": contract.VOICES_KEY,
    "FIRST_BYTE_BOUNDS_S": bodies.FIRST_BYTE_BOUNDS_S,
    "MODELS_MOUNT": str(contract.MODELS_MOUNT),
    "NANO_MODELS_DIR": str(contract.NANO_MODELS_DIR),
    "TERMINATION_LOG": str(contract.TERMINATION_LOG),
    "EXIT_CONFIGURATION": contract.EXIT_CONFIG,
    "EXIT_UNAVAILABLE": contract.EXIT_UNAVAILABLE,
    "GRACE_MARGIN_S": contract.GRACE_BEYOND_DRAIN_S,
    "ROUTING_KEY": contract.ROUTING_KEY,
}

S3_VARIABLES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"}
"""Read by the S3 client itself."""


def constants(scope: object) -> dict[str, object]:
    return {name: value for name, value in vars(scope).items() if name.isupper()}


def documented(pattern: str) -> set[str]:
    return set(re.findall(pattern, DOCS))


def test_names_ports_and_paths_are_the_same_in_both_packages():
    assert {name: getattr(names, name) for name in BOTH} == BOTH
    assert contract.RUN_AS_GID == contract.RUN_AS_UID


def test_every_environment_variable_is_known_to_both():
    operators = {value for name, value in constants(names).items() if name.startswith("ENV_")}
    assert set(constants(Env).values()) == operators - {"HOME", *S3_VARIABLES}


def test_names_of_children_agree():
    for component in Component:
        assert names.pool("prod", component) == contract.pool_name("prod", component)
    assert names.voices("prod") == contract.voices_configmap_name("prod")
    assert names.routing("prod") == contract.routing_configmap_name("prod")
    assert contract.pod_revision(names.pod("prod-chat", "1f0c22aa", 12), "prod-chat") == "1f0c22aa"
    for other in (
        "prod-chat-1f0c22aa",
        "prod-chat-1f0c22a-0",
        "prod-tts-1f0c22aa-0",
        "prod-chat-1f0c22aa-x",
        "",
    ):
        assert contract.pod_revision(other, "prod-chat") is None
    # A pool whose name begins with another's name.
    assert contract.pod_revision(names.pod("a-chat-chat", "1f0c22aa", 0), "a-chat") is None


def test_the_documentation_names_every_variable_and_route():
    assert set(constants(Env).values()) <= documented(r"\b(STEPAUDIO_[A-Z_]+|POD_NAME(?:SPACE)?)\b")
    ours = {Route.CHAT_COMPLETIONS, Route.AUDIO_SPEECH, Route.AUDIO_TRANSCRIPTIONS, Route.MODELS}  # OpenAI's
    routes = documented(r"`(?:GET|POST) (/[a-z0-9/._]+)")
    assert {value for value in constants(Route).values() if value not in ours} == routes
    for header in (contract.HEADER_SAMPLE_RATE, contract.HEADER_TEXT_TOKENS, contract.HEADER_RETRY_AFTER):
        assert f"`{header}`" in DOCS
    assert documented(r"`(Model[A-Z]\w+)`") == set(contract.StartReason)


def test_the_documented_routing_object_is_the_typed_one():
    example = json.loads(re.search(r"```json\n(\{\"generation\".*?)```", DOCS, re.DOTALL)[1])
    assert set(example) == set(get_type_hints(bodies.RoutingObject))
    assert set(example["pools"]) == set(names.MODEL_COMPONENTS)
    for pool in example["pools"].values():
        assert set(pool) - {"wake"} == bodies.RoutingPool.__required_keys__
    assert set(example["pools"]["tts"]) == set(get_type_hints(bodies.RoutingPool))
    assert set(example["pools"]["tts"]["wake"]) == set(get_type_hints(bodies.RoutingWake))


def test_the_documented_status_is_the_typed_one():
    status = re.search(r'`\{("component".*?)\}` \|', DOCS)[1]
    fields = re.findall(r'"(\w+)"', status)
    expected = [*get_type_hints(bodies.PodStatus), *get_type_hints(bodies.LoadStatus)]
    expected += [*get_type_hints(bodies.GpuStatus), *get_type_hints(bodies.LatelyStatus)]
    assert sorted(fields) == sorted(expected)
    assert set(re.search(r'"phase": "([^"]+)"', status)[1].split("\\|")) == set(bodies.Phase)


def test_what_a_data_job_says_is_as_documented_and_as_the_operator_reads_it():
    said = re.search(r'`"samples": (\{.*?\})`', DOCS)[1]
    assert re.findall(r'"(\w+)"', said) == list(get_type_hints(bodies.SampleCounts))
    assert set(get_type_hints(bodies.DataStatus)) == {"samples", *get_type_hints(bodies.PodStatus)}
    figures = re.search(r"Last words: `(\{.*?\})`", DOCS)[1]
    assert (
        re.findall(r'"(\w+)"', figures) == list(get_type_hints(bodies.DataFigures)) == list(data_job.FIGURES)
    )
    answer = Answer.from_json({"phase": "Loading", "samples": {"made": 3, "refused": 1, "total": 9}})
    assert (answer.samples_made, answer.samples_total) == (3, 9)


def test_audio_ids_are_as_documented():
    assert (contract.LINGUISTIC_CODES, contract.AUDIO_CODES, contract.AUDIO_OFFSET) == (1024, 5120, 65536)
    assert "Codes 0..1023 are linguistic, 1024..5119 semantic" in DOCS
    assert contract.AUDIO_OFFSET_KEY in DOCS
    assert contract.SENTENCES_KEY in DOCS
    ids = (contract.PAD_ID, contract.BOS_ID, contract.EOS_ID, contract.EOT_ID, contract.BOT_ID)
    assert ids == (0, 1, 2, 3, 4)


def test_the_routing_object_that_the_operator_writes_is_the_one_that_the_gateway_reads():
    owner = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "prod", "namespace": "ns", "uid": "u"}}
    pools = {
        "chat": records.RoutedPool("prod-chat", 8000, {"1f0c22aa": 95, "9d3e77b1": 5}),
        "tts": records.RoutedPool("prod-tts", 8000, {"77aa01c2": 100}, records.Wake(60, 90)),
        "tokenizer": records.RoutedPool("prod-tokenizer", 8000, {"77aa01c2": 100}, records.Wake(None, 9)),
    }
    written = records.Routing(generation=7, release="b1946ac9", serving=False, retry_after_s=30, pools=pools)
    stored = render.config_map(owner, written)
    text = stored["data"][contract.ROUTING_KEY]
    assert render.parse(stored) == written
    assert set(json.loads(text)) == set(get_type_hints(bodies.RoutingObject))
    read = {
        "chat": PoolRoute("prod-chat", 8000, {"1f0c22aa": 95, "9d3e77b1": 5}),
        "tts": PoolRoute("prod-tts", 8000, {"77aa01c2": 100}, Wake(60, 90)),
        "tokenizer": PoolRoute("prod-tokenizer", 8000, {"77aa01c2": 100}, Wake(None, 9)),
    }
    assert parse_routing(text) == Routing(7, "b1946ac9", False, 30, read)


def test_what_a_pod_says_of_its_work_is_what_the_operator_reads():
    now = [100.0]
    state = PodState("tts", clock=lambda: now[0])
    state.become_ready()
    with state.admit():
        now[0] += 30
    state.lately.queued(3.0, requests=4)
    state.lately.first_audio(1.25)
    now[0] += 30
    assert Answer.from_json(state.status()).work == records.Work(0, 0.5, 0.75, 1.25)
    state.waiting = lambda: {"tts": 2}
    assert Answer.from_json(state.status()).waiting == {"tts": 2}


def test_the_voices_that_the_operator_writes_are_those_that_the_gateway_reads():
    owner = {"metadata": {"name": "prod", "namespace": "ns"}}
    file = {"configMap": {"name": "ada", "key": "a.flac"}}
    consent = {"person": "P", "statement": "S", "recording": file}
    spec = {"deployment": "prod", "name": "Ada", "wave": file, "transcript": "T", "consent": consent}
    raw = {"metadata": {"name": "ada", "uid": "u1"}, "spec": spec}
    sums = {"wave": "aa", "recording": "bb"}
    digest = voices.digest_of(raw, parse_voice(raw), sums)
    raw["status"] = {"sha256": "aa", "digest": digest, "consent": {"recordingSha256": "bb"}}
    text = voices.object_of(owner, voices.wanted([raw], []))
    written = json.loads(text)
    assert set(written) == set(get_type_hints(bodies.VoicesObject))
    (entry,) = written["voices"]
    assert set(entry) == set(get_type_hints(bodies.WantedVoice))
    assert set(entry["wave"]) == set(get_type_hints(bodies.VoiceSource))
    wave, proof = Source("ada", "a.flac", "aa"), Source("ada", "a.flac", "bb")
    assert parse_voices(text) == ("ns/prod", {"u1": Wanted("u1", "Ada", digest, wave, "T", "P", "S", proof)})
    example = json.loads(re.search(r"```json\n(\{\"owner\".*?)```", DOCS, re.DOTALL)[1])
    assert set(example["voices"][0]) == set(get_type_hints(bodies.WantedVoice))
    state = re.search(r'`\{"voices": \{UID: \{(.*?)\}\}\}`', DOCS)[1]
    assert re.findall(r'"(\w+)":?', state)[:1] == ["digest"]
    assert set(get_type_hints(bodies.DeclaredState)) <= set(re.findall(r'"(\w+)"', state))
