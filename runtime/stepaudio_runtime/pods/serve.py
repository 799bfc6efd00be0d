"""`stepaudio serve COMPONENT`: settings to service, application and process, one function a pod.

torch and vLLM are imported inside, by the pods that compute with them.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health.canary import CanaryPlan, Record
from stepaudio_runtime.health.nvml import Nvml, watch_gpus
from stepaudio_runtime.health.process import (
    Listen,
    Service,
    exit_status,
    last_words,
    leave_last_words,
    run_pod,
)
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.settings import (
    ENV_TERMINATION_LOG,
    EngineSettings,
    PodSettings,
    TokenizerSettings,
    TtsSettings,
)

if TYPE_CHECKING:
    from stepaudio_runtime.tokenizer.service import TokenizerService

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve_pod(component: Component, env: Mapping[str, str]) -> int:
    """Serve until SIGTERM or failure; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    for chatty in ("httpx", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = PodSettings.from_env(env, component)
        return asyncio.run(PODS[component](settings, env))
    except StepAudioError as error:
        default = PodSettings.termination_log
        leave_last_words(last_words(error), Path(env.get(ENV_TERMINATION_LOG) or default))
        return exit_status(error)


async def _tokenizer(settings: PodSettings, env: Mapping[str, str]) -> int:
    from stepaudio_runtime.tokenizer.service import tokenizer_app

    engine = EngineSettings.from_env(env)
    state = _state(settings)
    service = _tokenizer_service(settings, engine, env, state, state)
    return await _run(settings, tokenizer_app(service), state, service)


def _tokenizer_service(
    settings: PodSettings, engine: EngineSettings, env: Mapping[str, str], state: PodState, pod: PodState
) -> "TokenizerService":
    """The service at `state`; how far it has loaded is told to `pod`."""
    from stepaudio_runtime.pods.loading import load_tokenizer
    from stepaudio_runtime.tokenizer.service import TokenizerService

    return TokenizerService(
        state,
        lambda _state: load_tokenizer(settings, engine, pod),
        TokenizerSettings.from_env(env),
        _canary(settings, engine, Component.TOKENIZER),
    )


async def _chat(settings: PodSettings, env: Mapping[str, str]) -> int:
    from stepaudio_runtime.pods.chat import ChatService, chat_app
    from stepaudio_runtime.pods.follower import Follower, follower_app
    from stepaudio_runtime.pods.loading import verify_chat
    from stepaudio_runtime.service.engine import (
        child_environment,
        cpu_threads,
        engine_environment,
        server_command,
    )

    engine = EngineSettings.from_env(env)
    state = _state(settings)
    variables = child_environment(
        env, engine_environment(engine, settings.run_dir, cpu_threads(settings.threads))
    )
    if engine.group is not None and engine.group.rank > 0:
        follower = Follower(
            state,
            engine.group,
            verify=lambda: verify_chat(settings, engine),
            command=lambda model: server_command(model.folder, model.info, None, engine),
            env=variables,
            drain_timeout_s=settings.drain_timeout_s,
        )
        return await _run(settings, follower_app(follower), state, follower)
    service = ChatService(
        state,
        verify=lambda: verify_chat(settings, engine),
        command=lambda model, socket: server_command(model.folder, model.info, socket, engine),
        env=variables,
        run_dir=settings.run_dir,
        canary=_canary(settings, engine),
    )
    return await _run(settings, chat_app(service), state, service)


async def _tts(settings: PodSettings, env: Mapping[str, str]) -> int:
    from stepaudio_runtime.pods.loading import load_speaker
    from stepaudio_runtime.service.engine import cpu_threads, engine_environment
    from stepaudio_runtime.tts.service import TtsService, tts_app

    engine = EngineSettings.from_env(env)
    bounds = TtsSettings.from_env(env)
    # Before vLLM is imported: it reads its variables then, and its processes inherit them.
    os.environ.update(engine_environment(engine, settings.run_dir, cpu_threads(settings.threads)))
    state = _state(settings)
    service = TtsService(
        state,
        lambda metrics: load_speaker(settings, engine, bounds, state, metrics),
        bounds,
        _canary(settings, engine),
    )
    app = tts_app(service)
    if not bounds.with_tokenizer:
        return await _run(settings, app, state, service)
    from stepaudio_runtime.pods.together import Together, one_app
    from stepaudio_runtime.tokenizer.service import tokenizer_app

    tokenizer = _tokenizer_service(settings, engine, env, _state(settings), state)
    hearing = tokenizer_app(tokenizer, service.metrics)
    return await _run(settings, one_app(app, hearing), state, Together(service, tokenizer))


PODS: Mapping[Component, Callable[[PodSettings, Mapping[str, str]], Coroutine[Any, Any, int]]] = {
    Component.TOKENIZER: _tokenizer,
    Component.CHAT: _chat,
    Component.TTS: _tts,
}


def _state(settings: PodSettings) -> PodState:
    return PodState(
        settings.component.value,
        settings.revision,
        max_in_flight=settings.max_in_flight,
        stall_timeout_s=settings.stall_timeout_s,
    )


def _canary(settings: PodSettings, engine: EngineSettings, component: Component | None = None) -> CanaryPlan:
    """The answer is kept by component, revision and device, where the container's restarts leave it."""
    name = (
        f"canary-{(component or settings.component).value}-{settings.revision or 'none'}-{engine.device}.json"
    )
    return CanaryPlan(Record(settings.run_dir / name), settings.canary_interval_s, settings.stall_timeout_s)


async def _run(settings: PodSettings, app: ASGIApp, state: PodState, service: Service) -> int:
    listen = Listen(
        settings.host,
        settings.port,
        settings.drain_timeout_s,
        settings.termination_log,
        settings.load_stall_timeout_s,
    )
    nvml = Nvml.open()
    watching = asyncio.create_task(watch_gpus(state, nvml, service.failed)) if nvml is not None else None
    try:
        return await run_pod(app, state, service, listen)
    finally:
        if watching is not None:
            watching.cancel()
