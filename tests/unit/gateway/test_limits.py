"""A body is read within bounds and handed on whole, in pieces between which other work has its turn; an
answer that runs out of time says so.
"""

import asyncio
import contextlib
import json

import pytest
from starlette.requests import Request
from starlette.responses import Response

from stepaudio_runtime.gateway.limits import LAST_WORD_S, Bounds, Limits
from stepaudio_runtime.gateway.stream import Stream, sse, sse_error
from stepaudio_runtime.pieces import PIECE

BOUNDS = Bounds(body=1 << 25, all_bodies=1 << 26, request_s=60)


async def served(limits: Limits, parts: list[dict], content_type: str = "text/plain") -> list[dict]:
    """What is sent to a client from whom `parts` come, and then nothing."""
    coming, sent = iter(parts), []

    async def receive():
        return next(coming, None) or await asyncio.Future()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-type", content_type.encode())],
    }
    await limits(scope, receive, send)
    return sent


def part(body: bytes, *, more: bool = False) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


async def echo(scope, receive, send):
    await Response(await Request(scope, receive).body())(scope, receive, send)


def refusal(sent: list[dict]) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["message"]


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_the_body_is_the_one_that_came(size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    start, answer = await served(Limits(echo, BOUNDS), [part(body[:9], more=True), part(body[9:])])
    assert (start["status"], answer["body"]) == (200, body)


async def test_a_body_that_does_not_come_in_time_is_a_408():
    limits = Limits(echo, Bounds(body=100, all_bodies=100, request_s=60, body_s=0.05))
    status, message = refusal(await served(limits, [part(b"{", more=True)]))
    assert (status, message) == (408, "the request's body did not arrive within 0.05 s")


async def test_bodies_share_a_budget_that_each_gives_back_however_it_ends():
    limits = Limits(echo, Bounds(body=100, all_bodies=150, request_s=60, body_s=0.05))
    full = [part(b"x" * 100)]
    slow = asyncio.create_task(served(limits, [part(b"x" * 90, more=True)]))
    await asyncio.sleep(0)
    assert refusal(await served(limits, full)) == (429, "too many large requests at a time")
    assert (await slow)[0]["status"] == 408
    assert (await served(limits, [part(b"x" * 101)]))[0]["status"] == 413
    assert await served(limits, [part(b"x" * 90, more=True), {"type": "http.disconnect"}]) == []
    assert (await served(limits, full))[0]["status"] == 200


async def test_others_have_their_turn_between_the_pieces():
    """A form is taken apart as it comes, on the event loop: it must not come all at once."""
    turns = 0

    async def neighbour():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def app(scope, receive, send):
        seen = [(turns, len(piece)) async for piece in Request(scope, receive).stream() if piece]
        assert max(size for _, size in seen) == PIECE
        assert len({turn for turn, _ in seen}) == len(seen)
        await Response(b"done")(scope, receive, send)

    other = asyncio.create_task(neighbour())
    sent = await served(Limits(app, BOUNDS), [part(bytes(20 * PIECE))], "multipart/form-data; boundary=x")
    assert sent[1]["body"] == b"done"
    other.cancel()


async def endless(scope, receive, send):
    async def events():
        while True:
            yield sse({"type": "delta"})
            await asyncio.sleep(0.01)

    await Stream(events, "text/event-stream", sse_error)(scope, receive, send)


async def silent(scope, receive, send):
    await asyncio.sleep(60)


async def stuck(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(60)


START = {"type": "http.response.start", "status": 500, "headers": []}
SOON = Bounds(body=100, all_bodies=100, request_s=0.1)
LATE = {
    "message": "the request took longer than 0.1 s",
    "type": "server_error",
    "param": None,
    "code": "timeout",
}


async def test_a_stream_that_runs_out_of_time_ends_with_an_error_event():
    sent = await served(Limits(endless, SOON), [part(b"")])
    assert sent[0]["status"] == 200
    *events, error, end = [message["body"] for message in sent[1:]]
    assert set(events) == {sse({"type": "delta"})}
    assert json.loads(error.removeprefix(b"data: ")) == {"error": LATE}
    assert (end, sent[-1].get("more_body", False)) == (b"", False)


async def test_an_answer_that_has_not_begun_in_time_is_a_504():
    sent = await served(Limits(silent, SOON), [part(b"")])
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (504, {"error": LATE})


async def test_an_answer_that_does_not_end_by_itself_is_broken_off_a_moment_later():
    async with asyncio.timeout(LAST_WORD_S + 5):
        assert [message["type"] for message in await served(Limits(stuck, SOON), [part(b"")])] == [
            "http.response.start"
        ]


@pytest.mark.parametrize(
    ("sent_first", "logged"),
    [
        ([], []),
        ([START], ["an answer was broken off: of its own"]),
        ([START, {"type": "http.response.body", "body": b"told"}], []),
    ],
)
async def test_a_fault_of_the_application_is_no_slow_body(caplog, sent_first, logged):
    """Nothing sent: it is raised. A part: all that is left is a line in the log. All: it has been told."""

    async def app(scope, receive, send):
        for message in sent_first:
            await send(message)
        raise TimeoutError("of its own")

    expected = contextlib.nullcontext() if sent_first else pytest.raises(TimeoutError, match="of its own")
    with expected:
        assert await served(Limits(app, BOUNDS), [part(b"")]) == sent_first
    assert [record.getMessage() for record in caplog.records] == logged
