"""The models of a deployment by name, and the names of voices."""

from collections.abc import Mapping
from typing import Any

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.errors import model_not_found
from stepaudio_runtime.gateway.routing import Balancer
from stepaudio_runtime.gateway.schemas import VoiceId, VoiceName

CHAT_MODEL = "step-audio-chat"
TTS_MODEL = "step-audio-tts"

MODELS: Mapping[str, Component] = {CHAT_MODEL: Component.CHAT, TTS_MODEL: Component.TTS}

OPENAI_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)
"""OpenAI's built-in voices. Its clients must name one, so these stand for the pod's default voice."""


class Catalogue:
    """What can be asked for by name. `created` is a Unix time in seconds."""

    def __init__(self, balancer: Balancer, engine: Engine, created: int) -> None:
        self._balancer = balancer
        self._engine = engine
        self._created = created

    def models(self) -> list[dict[str, Any]]:
        """The models whose pools the deployment has, as OpenAI lists them."""
        return [
            {"id": name, "object": "model", "created": self._created, "owned_by": "stepfun"}
            for name, pool in MODELS.items()
            if self._balancer.has(pool)
        ]

    def model(self, name: str) -> dict[str, Any]:
        """One model. Raises ApiError 404."""
        for model in self.models():
            if model["id"] == name:
                return model
        raise model_not_found(name)

    def require(self, name: str, pool: Component) -> None:
        """Raise ApiError 404 unless `name` is the model of `pool` and the deployment has it.

        The chat model also answers to the name that its pods give it.
        """
        latest = self._engine.models.latest
        own = latest.info["model"] if latest is not None and pool is Component.CHAT else name
        if not self._balancer.has(pool) or (MODELS.get(name) is not pool and (latest is None or name != own)):
            raise model_not_found(name)

    def require_pool(self, pool: Component, param: str) -> None:
        """Raise InputError naming `param` unless the deployment has `pool`."""
        if not self._balancer.has(pool):
            raise InputError(
                f"this deployment has no {pool} pool", param=param, code="unsupported_by_deployment"
            )


def voice_name(voice: VoiceName | None) -> str | None:
    """The pod's name of a voice; None for its default."""
    name = voice.id if isinstance(voice, VoiceId) else voice
    return None if name is None or name in OPENAI_VOICES else name
