"""The `health` and `vram` parts of the specs: how pods prove that they work, and what their GPUs hold."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from stepaudio_operator.spec.fields import Duration, Model

ENFORCE: Final = "Enforce"
WARN: Final = "Warn"
Quantization = Literal["FP8", "INT4"]


class CanaryProbe(Model):
    """A known question that a pod asks itself."""

    interval: Duration | None = Field(
        default=None,
        description="How often an idle pod asks; a busy one proves itself by its work. 60s if left out.",
    )


class Health(Model):
    """How a pod proves that it works."""

    canary: CanaryProbe | None = None
    stall_timeout: Duration | None = Field(
        default=None,
        description=(
            "A pod with requests in flight whose engine takes no step for so long is started anew; 120s"
            " where it is left out."
        ),
    )


class Vram(Model):
    """What is done where the declared GPUs cannot hold the models. Only declared sizes are judged."""

    policy: Literal["Enforce", "Warn"] = Field(
        default="Enforce",
        description="Enforce: such a spec is not carried out. Warn: status.vram says so, and it is tried.",
    )
