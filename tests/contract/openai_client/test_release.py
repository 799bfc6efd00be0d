"""A request keeps the release with which it began, through every pool; the gateway says when none is left."""

import json
import threading

import httpx

MODEL = "step-audio-chat"


def place(pod, revision, weight=100):
    return {"name": f"{pod.component}-{revision}", "url": pod.url, "revision": revision, "weight": weight}


def test_a_request_ends_in_the_release_in_which_it_began(
    stack, new_chat_pod, new_tts_pod, start_gateway, eventually
):
    old, new = (stack.chat, stack.tts), (new_chat_pod(), new_tts_pod())
    gateway = start_gateway({pod.component: [place(pod, "old")] for pod in old})
    answers = []

    def speak():
        answers.append(
            gateway.client().chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "say hello"}],
                modalities=["text", "audio"],
                audio={"voice": "lulu", "format": "wav"},
            )
        )

    def served():
        return httpx.get(f"{gateway.url}/stepaudio/figures").json()["pools"]

    old[0].hold.clear()
    early = threading.Thread(target=speak)
    early.start()
    eventually(lambda: old[0].requests)
    # Traffic goes over to the next release while the chat model still answers.
    pools = {a.component: [place(a, "old", 0), place(b, "new")] for a, b in zip(old, new, strict=True)}
    gateway.routing.write_text(json.dumps({"generation": 4, "release": "next", "pools": pools}))
    newest = "stepaudio_gateway_routing_generation 4.0"
    eventually(lambda: newest in httpx.get(f"{gateway.url}/metrics").text)
    speak()
    assert len(new[1].requests) == 1
    assert old[1].requests == []
    assert gateway.status()["routingGeneration"] == 3  # the early one is still on its way
    assert served()["tts"]["new"]["requests"] == len(new[1].requests)

    old[0].hold.set()
    early.join(30)
    assert len(answers) == 2
    assert len(old[1].requests) == 1  # its words were spoken by the release that wrote them
    eventually(lambda: gateway.status()["routingGeneration"] == 4)
    counted = served()["tts"]["new"]
    assert (counted["errors"], sum(counted["firstByte"])) == (0, counted["requests"])


def test_errors_are_counted_by_revision(stack, new_tts_pod, start_gateway):
    bad = new_tts_pod()
    bad.refuse = (500, {})
    gateway = start_gateway({"tts": [place(stack.tts, "good"), place(bad, "bad")]})
    body = {"model": "step-audio-tts", "voice": "lulu", "input": "hi"}
    codes = [httpx.post(f"{gateway.url}/v1/audio/speech", json=body).status_code for _ in range(6)]
    figures = httpx.get(f"{gateway.url}/stepaudio/figures").json()["pools"]["tts"]
    assert sorted(codes) == [200, 200, 200, 502, 502, 502]
    assert (figures["good"]["requests"], figures["good"]["errors"]) == (3, 0)
    assert (figures["bad"]["requests"], figures["bad"]["errors"]) == (3, 3)
    assert sum(figures["bad"]["firstByte"]) == 0
