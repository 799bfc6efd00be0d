"""`StepAudioDeployment`: what a user writes, with the rules between its fields."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stepaudio_operator import names
from stepaudio_operator.spec.fields import Model, Rule
from stepaudio_operator.spec.gpu import WAYS, gpu_count, has_way
from stepaudio_operator.spec.health import Health, Vram
from stepaudio_operator.spec.models import (
    IMAGE_PATH_CEL,
    IMAGE_PATH_MESSAGE,
    SOURCE_MESSAGE,
    Models,
    image_path_known,
)
from stepaudio_operator.spec.parts import (
    WITH_TTS,
    Chat,
    Gateway,
    PresetName,
    Runtime,
    Tokenizer,
    Tts,
)
from stepaudio_operator.spec.rollout import Rollout
from stepaudio_operator.spec.voices import Voices


def _on(part: Chat | Tts | Tokenizer | Gateway | None) -> bool:
    return part is None or part.enabled


def _needs_gpu(component: str) -> Rule:
    path = f"self.{component}"
    return Rule(
        cel=(
            f"self.preset != 'step-audio' || !has({path}) || !{path}.enabled || !has({path}.gpu)"
            f" || !has({path}.gpu.count) || {path}.gpu.count > 0"
        ),
        message=f"{component} of preset step-audio does not fit a CPU: leave gpu.count out or above 0",
        field=f"{component}.gpu.count",
        holds=lambda s: (
            s.preset != "step-audio"
            or not _on(getattr(s, component))
            or gpu_count(getattr(s, component)) != 0
        ),
    )


def _only_on_gpu(component: str, field: str, attribute: str) -> Rule:
    path = f"self.{component}"
    return Rule(
        cel=(
            f"self.preset != 'nano' || !has({path}) || !has({path}.{field})"
            f" || (has({path}.gpu) && has({path}.gpu.count) && {path}.gpu.count > 0)"
        ),
        message=f"preset nano runs {component} on the CPU: set {component}.gpu.count or remove this field",
        field=f"{component}.{field}",
        holds=lambda s: (
            s.preset != "nano"
            or getattr(s, component) is None
            or getattr(getattr(s, component), attribute) is None
            or (gpu_count(getattr(s, component)) or 0) > 0
        ),
    )


def _gpu_chosen_needs_one(component: str) -> Rule:
    path = f"self.{component}"
    chosen = " || ".join(f"has({path}.gpu.{field})" for field in WAYS)
    return Rule(
        cel=(
            f"self.preset != 'nano' || !has({path}) || !has({path}.gpu) || !({chosen})"
            f" || (has({path}.gpu.count) && {path}.gpu.count > 0)"
        ),
        message=f"preset nano runs {component} on the CPU: set gpu.count, or remove {', '.join(WAYS)}",
        field=f"{component}.gpu",
        holds=lambda s: (
            s.preset != "nano"
            or getattr(s, component) is None
            or not has_way(getattr(s, component).gpu)
            or (gpu_count(getattr(s, component)) or 0) > 0
        ),
    )


class DeploymentSpec(Model):
    """A whole Step-Audio: which models, how many of each, and how they are served."""

    preset: PresetName = Field(description="Models and defaults: nano (small, CPU) or step-audio.")
    runtime: Runtime | None = None
    models: Models | None = Field(default=None, description="Left out, nano uses those in its image.")
    chat: Chat | None = None
    tts: Tts | None = None
    tokenizer: Tokenizer | None = None
    gateway: Gateway | None = None
    voices: Voices | None = Field(default=None, description="Left out, no voices can be created.")
    rollout: Rollout | None = None
    health: Health | None = None
    vram: Vram | None = None
    paused: bool = Field(
        default=False, description="Nothing is changed while it is true; the status says what would be."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.chat) || self.chat.enabled || !has(self.tts) || self.tts.enabled",
            message="nothing is left to serve: enable chat or tts",
            field="chat.enabled",
            holds=lambda s: _on(s.chat) or _on(s.tts),
        ),
        Rule(
            cel=("(has(self.chat) && !self.chat.enabled) || !has(self.tokenizer) || self.tokenizer.enabled"),
            message="chat hears through the tokenizer: enable it, or disable chat too",
            field="tokenizer.enabled",
            holds=lambda s: not _on(s.chat) or _on(s.tokenizer),
        ),
        Rule(
            cel="self.preset != 'step-audio' || has(self.models)",
            message=SOURCE_MESSAGE,
            field="models",
            holds=lambda s: s.preset != "step-audio" or s.models is not None,
        ),
        Rule(
            cel=IMAGE_PATH_CEL,
            message=IMAGE_PATH_MESSAGE,
            field="models.source.image.path",
            holds=lambda s: s.preset != "step-audio" or image_path_known(s.models),
        ),
        Rule(
            cel=(
                f"!has(self.tokenizer) || !has(self.tokenizer.placement) || self.tokenizer.placement !="
                f" '{WITH_TTS}' || !self.tokenizer.enabled || !has(self.tts) || self.tts.enabled"
            ),
            message="there are no TTS pods to put the tokenizer into: enable tts, or remove placement",
            field="tokenizer.placement",
            holds=lambda s: not s.tokenizer_with_tts or _on(s.tts),
        ),
        _needs_gpu("chat"),
        _needs_gpu("tts"),
        *(_gpu_chosen_needs_one(component) for component in names.MODEL_COMPONENTS),
        *(
            _only_on_gpu(component, field, attribute)
            for component in (names.CHAT, names.TTS)
            for field, attribute in (
                ("gpuMemoryUtilization", "gpu_memory_utilization"),
                ("quantization", "quantization"),
            )
        ),
    )

    @property
    def tokenizer_with_tts(self) -> bool:
        """Whether the tokenizer runs in the TTS pods."""
        return self.tokenizer is not None and self.tokenizer.enabled and self.tokenizer.placement == WITH_TTS

    @property
    def enabled(self) -> tuple[str, ...]:
        """The components that there are, in the order of `names.COMPONENTS`."""
        return tuple(c for c in names.COMPONENTS if _on(getattr(self, c)))

    @property
    def components(self) -> tuple[str, ...]:
        """Those that have a pool of their own."""
        return tuple(c for c in self.enabled if c != names.TOKENIZER or not self.tokenizer_with_tts)
