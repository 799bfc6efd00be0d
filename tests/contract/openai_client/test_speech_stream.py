"""Text in pieces over a WebSocket: the first clause is heard before the text has ended, all of it is one
file; cancel, bounds, keys, and errors that say what to do.
"""

import asyncio
import contextlib
import hashlib
import json
import socket

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

START = {"type": "start", "model": "step-audio-tts", "voice": "lulu", "response_format": "pcm"}


def address(gateway) -> str:
    return gateway.url.replace("http", "ws") + "/v1/audio/speech/stream"


class Talk:
    """A connection: `events` and `audio` as they came."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.events: list[dict] = []
        self.audio = b""

    async def say(self, *messages: dict | str) -> None:
        for message in messages:
            await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def until(self, kind: str) -> None:
        async with asyncio.timeout(60):
            while not self.events or self.events[-1]["type"] != kind:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    self.audio += message
                else:
                    self.events.append(json.loads(message))

    async def heard(self) -> None:
        """Wait for the first sound."""
        before = len(self.audio)
        async with asyncio.timeout(60):
            while len(self.audio) == before:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    self.audio += message
                else:
                    self.events.append(json.loads(message))


def text(words: str) -> dict:
    return {"type": "text", "text": words}


async def test_the_first_clause_is_heard_before_the_text_has_ended(stack):
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START | {"seed": 7, "emotion": "happy"}, text("Hello my fri"), text("end, I"))
        await talk.heard()
        assert talk.events == [
            {"type": "started", "response_format": "pcm"},
            {"type": "piece", "text": "Hello my friend,"},
        ]
        await talk.say(text(" am here. And now"), text(" goodbye."), {"type": "end"})
        await talk.until("done")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1000
    said = ["Hello my friend,", "I am here.", "And now goodbye."]
    assert [event["text"] for event in talk.events if event["type"] == "piece"] == said
    assert stack.tts.requests == [
        {"input": f"(高兴1){words}", "voice": "lulu", "seed": 7 + number} for number, words in enumerate(said)
    ]
    seconds = sum(len(f"(高兴1){words}") for words in said) * 0.05
    assert len(talk.audio) / 2 / 24_000 == pytest.approx(seconds, abs=0.01)
    assert np.abs(np.frombuffer(talk.audio, "<i2").astype(int)).max() > 10_000
    codes = round(seconds * 125 / 3)
    assert talk.events[-1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": pytest.approx(codes, abs=1),
        "total_tokens": pytest.approx(15 + codes, abs=1),
    }


async def test_a_sentence_is_spoken_when_its_writer_pauses(stack):
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("Hello."))
        await talk.heard()
    assert [request["input"] for request in stack.tts.requests] == ["Hello."]


async def test_tags_in_front_of_the_text_hold_for_all_of_it(stack):
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("(粤语)你好我的朋友，再见。"), {"type": "end"})
        await talk.until("done")
    assert [request["input"] for request in stack.tts.requests] == ["(粤语)你好我的朋友，", "(粤语)再见。"]


async def test_a_tag_alone_or_what_has_no_sound_does_not_end_the_stream(stack):
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("(happy)\nHello my friend. (sad). ①. Goodbye.\n(sad)"), {"type": "end"})
        await talk.until("done")
    assert [event["text"] for event in talk.events if event["type"] == "piece"] == [
        "(happy)Hello my friend.",
        "①.",
        "Goodbye.",
    ]
    assert [request["input"] for request in stack.tts.requests] == [
        "(高兴1)Hello my friend.",
        "(高兴1)①.",
        "(高兴1)Goodbye.",
    ]


async def test_cancel_drops_what_is_not_spoken_and_the_stream_goes_on(stack, eventually):
    stack.tts.hold.clear()
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("halting words here, and more. And more. "))
        await talk.heard()
        await talk.say({"type": "cancel"})
        await talk.until("cancelled")
        eventually(lambda: stack.tts.aborted)  # before the rest of it is let go, which might be made by then
        stack.tts.hold.set()
        await talk.say(text("Something else."), {"type": "end"})
        await talk.until("done")
    assert [event["text"] for event in talk.events if event["type"] == "piece"] == [
        "halting words here,",
        "Something else.",
    ]


@pytest.mark.parametrize("changes", [{}, {"speed": 0.5}, {"volume": 2.0, "response_format": "wav"}])
async def test_after_a_cancel_only_what_came_after_it_is_heard(stack, changes):
    """The pod's speech is cut inside a sample, and tempo and rate hold back a part of it."""
    stack.tts.hold.clear()
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START | changes, text("halting words here, and more."))
        await talk.heard()
        await talk.say({"type": "cancel"})
        await talk.until("cancelled")
        before = len(talk.audio)
        stack.tts.hold.set()
        await talk.say({"type": "text", "text": "Something else."}, {"type": "end"})
        await talk.until("done")
    rate = 22_050 if changes.get("response_format") == "wav" else 24_000
    after = np.frombuffer(talk.audio[before:], "<i2") / 32_768
    seconds = len("Something else.") * 0.05 / changes.get("speed", 1)
    assert len(after) / rate == pytest.approx(seconds, abs=0.01)
    power = np.abs(np.fft.rfft(after * np.hanning(len(after)))) ** 2
    hertz = np.fft.rfftfreq(len(after), 1 / rate)
    assert power[np.abs(hertz - 440) < 20].sum() > 0.99 * power.sum()


async def test_a_client_that_leaves_is_not_worked_for(stack, eventually):
    stack.tts.hold.clear()
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("halting words here, and more."))
        await talk.heard()
    eventually(lambda: stack.tts.aborted)
    stack.tts.hold.set()
    eventually(lambda: stack.gateway.status()["inFlight"] == 0)


@pytest.mark.parametrize(
    ("messages", "code", "param", "close"),
    [
        (["nonsense"], "invalid_message", "type", 1008),
        ([{"type": "text", "text": "hi"}], "invalid_value", "type", 1008),
        (["[" * 100_000], "invalid_message", "type", 1008),
        (['{"type": "start", "\\ud800": 1}'], "invalid_message", "type", 1008),
        ([START, '{"type": "text", "text": "\\udc00"}'], "invalid_message", "type", 1008),
        ([START, text("x" * 200_000)], "invalid_message", "type", 1008),
        ([START | {"model": "gpt"}], "model_not_found", "model", 1008),
        ([START | {"speed": 9}], "invalid_value", "speed", 1008),
        ([START | {"input": "hi"}], "unknown_parameter", "input", 1008),
        (
            [START | {"voice": "nobody"}, text("hello my friend."), {"type": "end"}],
            "unknown_voice",
            "voice",
            1008,
        ),
        ([START, {"type": "text"}], "missing_required_parameter", "text", 1008),
        ([START, {"type": "sing"}], "invalid_type", "type", 1008),
        ([START, text("word " * 1000)], "text_too_long", None, 1009),
    ],
)
async def test_bad_messages_are_told_and_end_the_stream(stack, messages, code, param, close):
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(*messages)
        await talk.until("error")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    error = talk.events[-1]["error"]
    assert (error["code"], error["param"], closed.value.rcvd.code) == (code, param, close)


async def test_text_after_the_end_is_refused_while_the_rest_is_spoken(stack):
    stack.tts.hold.clear()
    async with connect(address(stack.gateway)) as socket:
        talk = Talk(socket)
        await talk.say(START, text("Hello."), {"type": "end"}, text("more"))
        await talk.until("error")
    assert talk.events[-1]["error"]["code"] == "text_after_end"
    stack.tts.hold.set()


def test_a_flood_of_pings_is_read_no_faster_than_its_answers(stack, eventually):
    """A client that takes no pong is soon read no further: the gateway would keep all of them in memory."""
    host, port = stack.gateway.url.removeprefix("http://").split(":")
    ping = bytes([0x89, 0x80 | 125]) + bytes(4) + bytes(125)
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(
            b"GET /v1/audio/speech/stream HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " in raw.recv(4096)
        with pytest.raises(TimeoutError):
            for _ in range(64):  # 64 MiB in all
                raw.sendall(ping * 8000)
        raw.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while raw.recv(1 << 20):  # now it reads, and is answered on
                pass
    eventually(lambda: stack.gateway.status()["inFlight"] == 0)


async def test_silence_and_keys(stack, start_gateway, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "one").write_text(f"sha256:{hashlib.sha256(b'secret').hexdigest()}\n")
    gateway = start_gateway(
        {"tts": [stack.tts.url]}, STEPAUDIO_API_KEYS_DIR=str(keys), STEPAUDIO_STREAM_IDLE_S="1"
    )
    with pytest.raises(InvalidStatus) as refused:
        await connect(address(gateway))
    assert refused.value.response.status_code == 401
    async with connect(address(gateway), additional_headers={"Authorization": "Bearer secret"}) as socket:
        talk = Talk(socket)
        await talk.say(START)
        await talk.until("error")
    assert talk.events[-1]["error"]["code"] == "session_idle"


async def logged(gateway, identity):
    """The line of the gateway's log about a request, which comes when it has ended."""
    for _ in range(100):
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if identity in line]
        if lines:
            return lines[-1]
        await asyncio.sleep(0.05)
    raise AssertionError(f"nothing is logged about {identity}")


async def test_a_request_id_is_taken_or_made_and_logged(stack):
    async with connect(address(stack.gateway), additional_headers={"X-Request-Id": "mine-7"}) as socket:
        assert socket.response.headers["X-Request-Id"] == "mine-7"
    async with connect(address(stack.gateway)) as socket:
        assert socket.response.headers["X-Request-Id"].startswith("req_")
    line = await logged(stack.gateway, "mine-7")
    assert {key: line[key] for key in ("message", "status", "route", "bytes")} == {
        "message": "WebSocket /v1/audio/speech/stream 101",
        "status": 101,
        "route": "/v1/audio/speech/stream",
        "bytes": 0,
    }
