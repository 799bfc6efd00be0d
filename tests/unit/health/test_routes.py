"""The health routes and admission of a pod, over ASGI: bodies, statuses, OpenAI-shaped errors, metrics."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from stepaudio_runtime.errors import InputError, OutputError, Overloaded
from stepaudio_runtime.health.answers import ERROR_HANDLERS
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.routes import Admission, health_routes
from stepaudio_runtime.health.state import PodState


class Pod:
    """A pod whose work streams two chunks, the second one when `go` is set, or raises `error`."""

    def __init__(self) -> None:
        self.state = PodState("tokenizer", "0a0a0a0a", max_in_flight=1)
        self.metrics = PodMetrics(self.state)
        self.go = asyncio.Event()
        self.started = asyncio.Event()
        self.error: Exception | None = None

    def client(self) -> httpx.AsyncClient:
        async def work(_request: Request) -> StreamingResponse:
            if self.error:
                raise self.error

            async def chunks():
                self.started.set()
                yield b"one "
                await self.go.wait()
                yield b"two"

            return StreamingResponse(chunks())

        routes = [*health_routes(self.state, self.metrics), Route("/work", work, methods=["POST"])]
        app = Starlette(routes=routes, exception_handlers=ERROR_HANDLERS)
        admitted = Admission(app, self.state, self.metrics, frozenset({"/work"}))
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(admitted, raise_app_exceptions=False), base_url="http://pod"
        )


@pytest.fixture
async def pod():
    return Pod()


async def test_before_ready_work_is_refused_and_health_is_answered(pod):
    async with pod.client() as http:
        answers = [await http.get(path) for path in ("/healthz", "/readyz", "/status")]
        assert [(a.status_code, a.json()) for a in answers] == [
            (200, {"status": "ok"}),
            (503, {"reason": "Loading", "message": "starting"}),
            (200, pod.state.status()),
        ]
        refusal = await http.post("/work")
        assert (refusal.status_code, refusal.headers["retry-after"], refusal.json()) == (
            503,
            "5",
            {
                "error": {
                    "message": "this pod is not serving: Loading starting",
                    "type": "unavailable_error",
                    "param": None,
                    "code": "unavailable",
                }
            },
        )


async def test_a_request_is_in_flight_until_its_last_byte(pod):
    pod.state.become_ready()
    async with pod.client() as http:
        assert (await http.get("/readyz")).status_code == 200
        first = asyncio.create_task(http.post("/work"))
        await pod.started.wait()
        assert (await http.get("/status")).json()["inFlight"] == 1
        second = await http.post("/work")
        assert (second.status_code, second.headers["retry-after"], second.json()["error"]["type"]) == (
            429,
            "1",
            "rate_limit_error",
        )
        pod.go.set()
        assert (await first).content == b"one two"
        assert (await http.get("/status")).json()["inFlight"] == 0
        text = (await http.get("/metrics")).text
    assert 'stepaudio_requests_total{route="/work",status="200"} 1.0' in text
    assert 'stepaudio_requests_total{route="/work",status="429"} 1.0' in text
    assert 'stepaudio_phase{phase="Ready"} 1.0' in text


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            InputError("input is empty", param="input", code="empty_input"),
            400,
            {
                "message": "input is empty",
                "type": "invalid_request_error",
                "param": "input",
                "code": "empty_input",
            },
        ),
        (
            InputError("no \ud800", param="\udc00"),  # halves of a character, as a client may send them
            400,
            {"message": "no ?", "type": "invalid_request_error", "param": "?", "code": None},
        ),
        (
            OutputError("no audio"),
            502,
            {"message": "no audio", "type": "model_output_error", "param": None, "code": "bad_model_output"},
        ),
        (
            Overloaded("queue full"),
            429,
            {"message": "queue full", "type": "rate_limit_error", "param": None, "code": "overloaded"},
        ),
        (
            ValueError("a secret path"),
            500,
            {"message": "internal error", "type": "internal_error", "param": None, "code": None},
        ),
    ],
)
async def test_errors_have_openais_shape(pod, error, status, body):
    pod.state.become_ready()
    pod.error = error
    async with pod.client() as http:
        answer = await http.post("/work")
    assert (answer.status_code, answer.json()) == (status, {"error": body})
    assert pod.state.in_flight == 0


async def test_unknown_routes_do_not_multiply_series(pod):
    pod.state.become_ready()
    async with pod.client() as http:
        answers = [await http.post(f"/nothing/{i}") for i in range(3)]
        text = (await http.get("/metrics")).text
    assert {a.status_code for a in answers} == {404}
    assert answers[0].json()["error"]["type"] == "invalid_request_error"
    assert 'stepaudio_requests_total{route="other",status="404"} 3.0' in text
    assert "nothing" not in text


async def test_a_websocket_that_is_refused_is_counted_with_its_refusal(pod):
    pod.state.become_ready()
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})

    admitted = Admission(app, pod.state, pod.metrics, frozenset({"/talk"}))
    scope = {
        "type": "websocket",
        "path": "/talk",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }
    await admitted(scope, receive, send)
    with pod.state.admit():
        await admitted(scope, receive, send)
    assert [(message["type"], message.get("status")) for message in sent[:2]] == [
        ("websocket.accept", None),
        ("websocket.http.response.start", 429),
    ]
    text = pod.metrics.text().decode()
    assert 'stepaudio_requests_total{route="/talk",status="101"} 1.0' in text
    assert 'stepaudio_requests_total{route="/talk",status="429"} 1.0' in text
