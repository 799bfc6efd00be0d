"""The models of a deployment by name, and the names of voices."""

from collections.abc import Mapping
from typing import Any

from stepaudio_runtime.contract import Component
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.engine import Engine
from stepaudio_runtime.gateway.errors import model_not_found
from stepaudio_runtime.gateway.routing import Balancer
from stepaudio_runtime.gateway.schemas import VoiceId, VoiceName
from stepaudio_runtime.gateway.settings import MODELS
from stepaudio_runtime.voices.record import normal_name
from stepaudio_runtime.voices.store import VoiceStore

OPENAI_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)
"""OpenAI's built-in voices. Its clients must name one, so where no alias says otherwise these stand for the
pod's default voice."""


class Catalogue:
    """What can be asked for by name. `created` is a Unix time in seconds.

    `model_aliases` and `voice_aliases` are other names, by setting: a client that asks for `tts-1` and
    `alloy` gets what whoever runs this deployment wants it to get, and both names are listed.
    """

    def __init__(
        self,
        balancer: Balancer,
        engine: Engine,
        created: int,
        *,
        model_aliases: Mapping[str, str],
        voice_aliases: Mapping[str, str],
        store: VoiceStore | None = None,
    ) -> None:
        self._balancer = balancer
        self._engine = engine
        self._created = created
        self._model_aliases = model_aliases
        self._voice_aliases = {normal_name(name): normal_name(own) for name, own in voice_aliases.items()}
        self._store = store

    def models(self) -> list[dict[str, Any]]:
        """The models whose pools the deployment has, as OpenAI lists them; `root` says what a name means."""
        names = {name: name for name in MODELS} | dict(self._model_aliases)
        return [
            {"id": name, "object": "model", "created": self._created, "owned_by": "stepfun", "root": root}
            for name, root in names.items()
            if self._balancer.has(MODELS[root])
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
        own = latest.info["model"] if latest is not None and pool is Component.CHAT else None
        is_pools = MODELS.get(self._model_aliases.get(name, name)) is pool or name == own
        if not (is_pools and self._balancer.has(pool)):
            raise model_not_found(name)

    def has(self, pool: Component) -> bool:
        """Whether the deployment has `pool`."""
        return self._balancer.has(pool)

    def require_pool(self, pool: Component, param: str) -> None:
        """Raise InputError naming `param` unless the deployment has `pool`."""
        if not self.has(pool):
            raise InputError(
                f"this deployment has no {pool} pool", param=param, code="unsupported_by_deployment"
            )

    def voice(self, voice: VoiceName | None) -> str | None:
        """The name of a voice behind its aliases, in its normal form; None for the pod's default."""
        if voice is None:
            return None
        name = normal_name(voice.id if isinstance(voice, VoiceId) else voice)
        if name in self._voice_aliases:
            return self._voice_aliases[name]
        return None if name in OPENAI_VOICES else name

    async def voices(self) -> list[dict[str, Any]]:
        """The voices that can be asked for: the pods' own, those of the store, and other names of both."""
        own: list[dict[str, Any]] = [*await self._engine.voices()] if self.has(Component.TTS) else []
        if self._store is not None:
            own += [
                {"id": record.name, "name": record.name, "created_at": record.created_at}
                for record in await self._store.all()
            ]
        known = {voice["name"] for voice in own}
        aliases = [
            {"id": name, "name": name, "alias_of": target}
            for name, target in self._voice_aliases.items()
            if target in known
        ]
        return own + aliases

    async def fixed_voices(self) -> frozenset[str]:
        """Names that no created voice may have: the pods' own, the aliases, and OpenAI's."""
        own = await self._engine.voices() if self.has(Component.TTS) else []
        return frozenset(voice["name"] for voice in own) | frozenset(self._voice_aliases) | OPENAI_VOICES
