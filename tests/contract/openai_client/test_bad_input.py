"""Hundreds of broken requests and broken recordings: each gets a result or a 4xx with OpenAI's error body,
never a 5xx, and the gateway serves on.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import struct
from pathlib import Path

import httpx
import pytest

CHAT, SPEECH, TRANSCRIPTIONS = "/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions"
TOKENS = "/v1/audio/tokens"

JUNK = [
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**30,
    1.5,
    -0.0,
    1e400,
    "",
    " ",
    "\u0000",
    "😀" * 50,
    "\u202e\u200b\ufeff",
    "x" * 5000,
    [],
    {},
    [None],
    [[]],
    {"id": None},
    {"type": "text"},
    [{"type": "text", "text": 5}],
    [{"type": "input_audio", "input_audio": {"data": "!!!", "format": "wav"}}],
]

GOOD_CHAT = {
    "model": "step-audio-chat",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "say hello"}]},
    ],
    "modalities": ["text", "audio"],
    "audio": {"voice": "lulu", "format": "wav", "rate": "slow", "speed": 2.0},
    "max_tokens": 8,
    "max_completion_tokens": 8,
    "temperature": 0.5,
    "top_p": 0.5,
    "n": 1,
    "stop": ["zzz"],
    "seed": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "tools": [],
    "response_format": {"type": "text"},
    "prompt_cache_key": "k",
    "metadata": {},
}
GOOD_SPEECH = {
    "model": "step-audio-tts",
    "input": "hello",
    "voice": "lulu",
    "response_format": "wav",
    "speed": 1.0,
    "seed": 1,
    "instructions": "happy",
    "stream_format": "audio",
    "emotion": "sad",
    "style": "rap",
    "volume": 1.0,
}


def places(value, path=()):
    """Every place in a body."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(body, path, value, *, delete=False):
    body = copy.deepcopy(body)
    holder = body
    for key in path[:-1]:
        holder = holder[key]
    if delete:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return body


def mutations(body, rng, junk_each):
    for path in places(body):
        yield changed(body, path, None, delete=True)
        for junk in rng.sample(JUNK, junk_each):
            yield changed(body, path, junk)
    for junk in JUNK:
        yield {**body, "unheard_of": junk}


def check(answer: httpx.Response, what: object) -> None:
    """A result, or a 4xx with OpenAI's error body."""
    assert answer.status_code < 500, (answer.status_code, answer.text[:300], what)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, what
        assert error["message"], what
        assert "Traceback" not in answer.text, what


@pytest.mark.parametrize(("route", "body", "junk_each"), [(CHAT, GOOD_CHAT, 6), (SPEECH, GOOD_SPEECH, 8)])
def test_mutated_bodies_are_served_or_refused(stack, route, body, junk_each):
    count, refused = 0, 0
    with httpx.Client(base_url=stack.gateway.url, timeout=30) as client:
        assert client.post(route, json=body).status_code == 200
        for mutated in mutations(body, random.Random(5), junk_each):
            text = json.dumps(mutated)  # writes 1e400 as Infinity, which is no JSON: that too is a case
            answer = client.post(route, content=text, headers={"Content-Type": "application/json"})
            check(answer, text[:500])
            count, refused = count + 1, refused + (answer.status_code >= 400)
        assert client.post(route, json=body).status_code == 200
    assert count >= 90
    assert count > refused > count // 4


RAW = [
    b"",
    b"null",
    b"[]",
    b"5",
    b'"text"',
    b"{",
    b"{}",
    b'{"model": "step-audio-chat"}',
    b'{"model": "step-audio-chat", "messages": "hello"}',
    b"\xff\xfe\x00",
    b"\x00" * 100,
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\udc00"}]}',
    b'{"model": "step-audio-chat", "messages": [{"role": "user", "content": "\\ud83d"}]}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"model": "step-audio-chat", "model": 5, "messages": [{"role": "user", "content": "hello"}]}',
    b'{"model": "step-audio-chat", "messages": [{"role": "user", "content": ['
    + b"[]," * 2_000_000
    + b"1]}]}",
    b'{"model": "step-audio-tts", "codes": [' + b"1," * 2_000_000 + b"1]}",
    b'{"model": "step-audio-tts", "input": "a", "x": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
    b'{"model": "step-audio-chat", "temperature": NaN, "messages": [{"role": "user", "content": "hello"}]}',
]


def test_raw_bytes_as_bodies_are_refused(stack):
    held = memory_kb(stack.gateway)
    for route in (CHAT, SPEECH, TRANSCRIPTIONS, TOKENS):
        for content in RAW:
            answer = httpx.post(f"{stack.gateway.url}{route}", content=content, timeout=30)
            check(answer, (route, content[:80]))
            assert answer.status_code >= 400
    assert memory_kb(stack.gateway) - held < 100_000  # two million empty lists are 130 MB


def memory_kb(gateway):
    """The most memory that the gateway ever held."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=x; charset=no-such-charset",
        "multipart/form-data; boundary=x; charset=utf-7",
        "multipart/form-data; boundary=" + "y" * 5000,
        "multipart/mixed; boundary=x",
        "text/plain",
        "",
    ],
)
def test_broken_forms_are_refused(stack, content_type):
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n'
    for content in (
        b"",
        b"--x",
        b"--x--\r\n",
        part,
        part + b"--x--\r\n",
        b"--x\r\n\r\n\r\n--x--",
        b"\xff" * 99,
    ):
        for route in (TRANSCRIPTIONS, TOKENS):
            answer = httpx.post(
                f"{stack.gateway.url}{route}", content=content, headers={"Content-Type": content_type}
            )
            check(answer, content)
            assert answer.status_code >= 400


@pytest.mark.parametrize(("charset", "code"), [("utf-7", "invalid_form"), ("UTF-8", "model_not_found")])
def test_a_form_is_in_utf8(stack, charset, code):
    """In UTF-7 `+2AA-` is half of a character, which no answer could name."""
    part = b"--x\r\nContent-Disposition: form-data; name="
    content = part + b'"model"\r\n\r\nx+2AA-\r\n' + part + b'"file"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = httpx.post(f"{stack.gateway.url}{TRANSCRIPTIONS}", content=content, headers=headers)
    check(answer, charset)
    assert answer.json()["error"]["code"] == code


def wav(rate=16000, channels=1, bits=16, samples=b"\x01\x02" * 4000, kind=1, claimed=None):
    claimed = len(samples) if claimed is None else claimed
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, (rate * width) & 0xFFFFFFFF, width & 0xFFFF, bits)
    return (
        b"RIFF" + struct.pack("<I", (36 + claimed) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", claimed & 0xFFFFFFFF) + samples
    )  # fmt: skip


def blobs(tone, rng):
    """Recordings of every sort of wrong."""
    good = [
        tone(0.5, 16000),
        tone(0.5, 44100, kind="FLAC"),
        tone(0.5, 48000, kind="OGG"),
        tone(0.5, 22050, kind="MP3"),
        tone(0.5, 11025, kind="AIFF"),
    ]
    yield from good
    for rate in (0, 1, 4000, 7999, 8000, 11025, 96000, 192000, 192001, 2**31, 2**32 - 1):
        yield wav(rate)
    for channels in (0, 1, 2, 3, 8, 9, 255, 65535):
        yield wav(channels=channels)
    for bits in (0, 1, 7, 8, 16, 24, 32, 64, 65535):
        yield wav(bits=bits)
    for kind in (0, 1, 2, 3, 6, 7, 17, 80, 0xFFFE, 65535):
        yield wav(kind=kind, bits=32)
    for claimed in (0, 1, 7, 2**31, 2**32 - 1):
        yield wav(claimed=claimed)
    for pattern in (float("nan"), float("inf"), -float("inf"), 1e38, 1e-45):
        yield wav(bits=32, kind=3, samples=struct.pack("<f", pattern) * 8000)
    for size in (0, 1, 2, 3, 4, 12, 43, 44, 45, 46, 1000):
        yield wav()[:size]
    yield from (
        wav(samples=b""),
        wav(samples=b"\x00" * 32000),
        b"\x00" * 50_000,
        b"#EXTM3U\nhttp://127.0.0.1/x\n",
    )
    yield from (b"ffconcat version 1.0\nfile /etc/passwd\n", b"<svg/>", b"%PDF-1.7", b"ID3" + b"\xff" * 500)
    for recording in good:
        for _ in range(18):
            broken = bytearray(recording)
            for _ in range(rng.randint(1, 40)):
                broken[rng.randrange(min(len(broken), rng.choice([60, 600, 60000])))] = rng.randrange(256)
            yield bytes(broken)
        for _ in range(4):
            yield recording[: rng.randrange(len(recording))]
            yield recording[rng.randrange(len(recording)) :]
    for _ in range(12):
        yield rng.randbytes(rng.randint(1, 3000))


def test_broken_recordings_are_heard_or_refused(stack, tone):
    rng = random.Random(7)
    count, heard, refused = 0, 0, 0
    with httpx.Client(base_url=stack.gateway.url, timeout=30) as client:
        for blob in blobs(tone, rng):
            if count % 3 == 0:
                answer = client.post(TOKENS, files={"file": ("a.wav", blob)})
            elif count % 3 == 1:
                part = {"data": base64.b64encode(blob).decode(), "format": "wav"}
                content = [{"type": "input_audio", "input_audio": part}]
                body = {"model": "step-audio-chat", "messages": [{"role": "user", "content": content}]}
                answer = client.post(CHAT, json=body)
            else:
                files = {"file": ("a.wav", blob)}
                answer = client.post(TRANSCRIPTIONS, files=files, data={"model": "step-audio-chat"})
            check(answer, blob[:80])
            count += 1
            heard, refused = heard + (answer.status_code == 200), refused + (answer.status_code >= 400)
    assert count >= 200
    assert heard >= 20
    assert refused >= 60
