"""The `autoscaling` part of a component: how many replicas it has, where the operator is to decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from stepaudio_operator.spec.fields import Duration, Int, Model, Rule

Replicas = Annotated[Int, Field(ge=0, le=1000)]
Milliseconds = Annotated[Int, Field(ge=10, le=600000)]


class Autoscaling(Model):
    """Replicas by what the pods say of their work. The largest number that one of the measures asks for."""

    min: Replicas = Field(
        default=1,
        description="Replicas at least; 0: the pool sleeps while nobody asks, and a request wakes it.",
    )
    max: Annotated[Int, Field(ge=1, le=1000)] = Field(description="Replicas at most.")
    in_flight: Annotated[Int, Field(ge=1, le=10000)] | None = Field(
        default=None, description="Requests in flight that one replica is meant for; else the preset's."
    )
    queue_milliseconds: Milliseconds | None = Field(
        default=None,
        description="How long a request may wait in a pod before work on it begins; left out, not looked at.",
    )
    first_audio_milliseconds: Milliseconds | None = Field(
        default=None,
        description="How late the first sound may come; left out, not looked at. Of tts alone.",
    )
    up_window: Duration = Field(
        default="30s", description="More replicas only where more were asked for all this time."
    )
    down_window: Duration = Field(
        default="10m", description="Fewer replicas only where fewer were asked for all this time."
    )
    hold: Duration | None = Field(
        default=None,
        description=(
            "How long a gateway holds a request while the pool wakes; left out, it answers 503 with"
            " Retry-After at once."
        ),
    )

    RULES = (
        Rule(
            cel="self.min <= self.max",
            message="min is above max: lower it, or raise max",
            field="min",
            holds=lambda s: s.min <= s.max,
        ),
        Rule(
            cel="self.min == 0 || !has(self.hold)",
            message="only a pool that may sleep lets requests wait: set min to 0 or remove it",
            field="hold",
            holds=lambda s: s.min == 0 or s.hold is None,
        ),
    )


@dataclass(frozen=True)
class _Limit:
    """What `autoscaling` of some components must not say."""

    components: tuple[str, ...]
    field: str
    cel: str
    holds: Callable[[Autoscaling], bool]
    message: str

    def rule(self, cel: str, concerns: Callable[[Any], bool]) -> Rule:
        return Rule(
            cel=f"{cel}!has(self.autoscaling) || {self.cel}",
            message=self.message,
            field=f"autoscaling.{self.field}",
            holds=lambda s: not concerns(s) or s.autoscaling is None or self.holds(s.autoscaling),
        )


_LIMITS = (
    _Limit(
        components=("chat", "tokenizer", "gateway"),
        field="firstAudioMilliseconds",
        cel="!has(self.autoscaling.firstAudioMilliseconds)",
        holds=lambda a: a.first_audio_milliseconds is None,
        message="only tts speaks: remove it",
    ),
    _Limit(
        components=("tokenizer", "gateway"),
        field="queueMilliseconds",
        cel="!has(self.autoscaling.queueMilliseconds)",
        holds=lambda a: a.queue_milliseconds is None,
        message="only chat and tts say how long requests wait: remove it",
    ),
    _Limit(
        components=("gateway",),
        field="min",
        cel="self.autoscaling.min > 0",
        holds=lambda a: a.min > 0,
        message="nobody would be there to wake a gateway: set min to 1 or more",
    ),
)


def limits_of(component: str) -> tuple[Rule, ...]:
    """Rules of the part of a deployment's spec that is about `component`."""
    return tuple(limit.rule("", lambda s: True) for limit in _LIMITS if component in limit.components)


def _limit_of_pools(limit: _Limit) -> Rule:
    listed = ", ".join(repr(component) for component in limit.components)
    return limit.rule(f"!(self.component in [{listed}]) || ", lambda s: s.component in limit.components)


LIMITS_OF_POOLS = tuple(_limit_of_pools(limit) for limit in _LIMITS)
"""The same rules for a pool, which says itself what it is of."""
