"""A created voice over real processes: made through the gateway, spoken with, also by a TTS pod that started
later; its prompt is shared in vLLM's prefix cache, by texts and by the sentence groups of one; its speech is
marked; deleted, it is gone.
"""

import io
import json

import numpy as np
import openai
import pytest
import soundfile

from stepaudio_runtime.audio.watermark import detect
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import SpeechRequest

pytestmark = pytest.mark.vllm

ENOUGH_S = 2
SAID = "please say three nine five, and set a timer for ten minutes"
TEXT = "The kitchen light is on. The timer is set for ten minutes. Please say four seven two."
ONE_GROUP = "The kitchen light is on."
TWO_GROUPS = f"{ONE_GROUP} The timer is set for ten minutes."  # the model speaks a sentence at once


def recording() -> bytes:
    """A voice of the teacher's that is not among those of the nano models."""
    out, wave = io.BytesIO(), Espeak().speak(SpeechRequest(SAID, "en-us+f4"))
    soundfile.write(out, wave.samples, wave.rate, format="FLAC")
    return out.getvalue()


def create(client: openai.OpenAI, name: str) -> dict:
    body = {
        "name": name,
        "transcript": SAID,
        "consent_person": "Li Hua",
        "consent_statement": "I agree to my voice being imitated.",
    }
    headers = {"Content-Type": "multipart/form-data"}
    files = [("wave", ("voice.flac", recording()))]
    return client.post("/voices", body=body, files=files, options={"headers": headers}, cast_to=object)


def speak(client: openai.OpenAI, voice: str, text: str = TEXT, seed: int = 1) -> np.ndarray:
    answer = client.audio.speech.create(
        model="step-audio-tts", voice=voice, input=text, response_format="wav", extra_body={"seed": seed}
    )
    wave, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate == 22_050
    return wave


def audible(client: openai.OpenAI, voice: str) -> int:
    """A seed by which the voice says enough to carry a mark, for one that is new may stop early."""
    for seed in range(12):
        if len(speak(client, voice, seed=seed)) > ENOUGH_S * 22_050:
            return seed
    pytest.fail(f"no seed gives {ENOUGH_S} s of speech")


def test_the_life_of_a_created_voice(pods, tmp_path):
    routing = tmp_path / "routing.json"

    def route(pod) -> None:
        routing.write_text(json.dumps({"generation": pod.port, "pools": {"tts": [pod.url]}}))
        gateway.wait_until("routing", lambda: gateway.status()["routingGeneration"] == pod.port)

    tts = pods["tts"]
    routing.write_text(json.dumps({"generation": 0, "pools": {"tts": [tts.url]}}))
    gateway = pods.start("gateway", STEPAUDIO_STATIC_ROUTING=str(routing)).wait_ready()
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        route(tts)
        own = client.get("/voices", cast_to=object)["data"][0]["id"]
        create(client, "Ada")
        seed = audible(client, "Ada")
        first = speak(client, "Ada", seed=seed)
        assert detect(first, 22_050).found
        assert not detect(speak(client, own), 22_050).found, "the model's own voice is not marked"
        assert_the_prompt_is_shared(tts, client)
        assert_sentence_groups_share_the_prompt(tts, client)

        tts.end()
        later = pods["tts"]
        route(later)
        assert np.array_equal(speak(client, "Ada", seed=seed), first)

        client.delete("/voices/Ada", cast_to=object)
        with pytest.raises(openai.NotFoundError):
            client.get("/voices/Ada", cast_to=object)
        with pytest.raises(openai.BadRequestError) as error:
            speak(client, "Ada")
        assert error.value.code == "unknown_voice"
        assert not any(pods.store.rglob("*.*")), "nothing of it is left in the store"

        create(client, "Ada")
        assert np.array_equal(speak(client, "Ada", seed=seed), first), "made anew, it is there again"
        client.delete("/voices/Ada", cast_to=object)


def use_of_the_prefix_cache(tts) -> np.ndarray:
    """vLLM's own counters: answers, tokens of their prompts, and those of them that came from the cache."""
    names = ("request_success_total", "prefix_cache_queries_total", "prefix_cache_hits_total")
    return np.array([tts.metric(f"vllm:{name}") for name in names])


def assert_the_prompt_is_shared(tts, client: openai.OpenAI) -> None:
    """Most tokens of another text's prompt come from the prefix cache."""
    for seed in range(12):
        before = use_of_the_prefix_cache(tts)
        speak(client, "Ada", f"another text number {seed}.", seed)
        calls, queries, hits = use_of_the_prefix_cache(tts) - before
        if calls == 1:  # a loop that is tried again would share its own prompt too
            assert hits / queries > 0.8
            return
    pytest.fail("every answer went in circles")


def assert_sentence_groups_share_the_prompt(tts, client: openai.OpenAI) -> None:
    """In a voice that nobody has spoken in, a text's first group finds what any voice's does, its second the
    voice's recording too. A voice's name is a part of its prompt, so another one is unknown.
    """
    _, found_by_any = spoken_in_a_new_voice(tts, client, ONE_GROUP, groups=1)
    asked, found = spoken_in_a_new_voice(tts, client, TWO_GROUPS, groups=2)
    assert found - 2 * found_by_any > asked / 2 * 0.3


def spoken_in_a_new_voice(tts, client: openai.OpenAI, text: str, groups: int) -> tuple[float, float]:
    """Tokens of the prompts of a text in so many `groups`, and how many came from the cache."""
    for seed in range(6):
        name = f"Voice {groups} {seed}"
        create(client, name)
        before = use_of_the_prefix_cache(tts)
        speak(client, name, text, seed)
        answers, asked, found = use_of_the_prefix_cache(tts) - before
        client.delete(f"/voices/{name}", cast_to=object)
        if answers == groups:
            return asked, found
    pytest.fail("every answer went in circles")
