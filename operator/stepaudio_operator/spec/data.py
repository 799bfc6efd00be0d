"""`StepAudioDataJob`: training data by a recipe, made on a volume.

The recipe is the data engine's own (docs/engine.md) and is judged by it, in the version that runs: another
version may know other fields.
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from stepaudio_operator.spec.fields import Int, Model, Name, Native, Quantity, Rule
from stepaudio_operator.spec.models import AccessMode, PvcSource
from stepaudio_operator.spec.parts import Runtime
from stepaudio_operator.spec.pod import PodTemplate

MAX_RECIPE = 100_000
"""Bytes of a recipe as JSON: it goes to the engine as an environment variable, which Linux bounds."""


class DataVolume(Model):
    """A volume that is made for the data, named after the data job. It stays when that is deleted."""

    size: Quantity
    storage_class_name: Name | None = Field(default=None, description="The cluster's default if left out.")
    access_mode: AccessMode = Field(
        default="ReadWriteOnce", description="ReadWriteMany where several nodes read the data at a time."
    )


class DataOutput(Model):
    """Where the data are made: exactly one of its fields."""

    pvc: PvcSource | None = Field(default=None, description="A claim that exists, and a folder on it.")
    volume: DataVolume | None = None

    RULES = (
        Rule(
            cel="has(self.pvc) != has(self.volume)",
            message="set exactly one of pvc and volume",
            field="pvc",
            holds=lambda s: (s.pvc is None) != (s.volume is None),
        ),
    )


class DataJobSpec(Model):
    """Training data: what to make, and where."""

    recipe: Native = Field(
        description="As docs/engine.md says. A folder holds one recipe's data: another needs another."
    )
    output: DataOutput
    workers: Annotated[Int, Field(ge=1, le=256)] = Field(
        default=1, description="Processes that make samples, one a processor."
    )
    runtime: Runtime | None = None
    pod_template: PodTemplate | None = Field(
        default=None,
        description="Here `env` holds a teacher's API key, and `volumes` files of texts or models.",
    )

    @property
    def recipe_json(self) -> str:
        """The recipe as the Job reads it."""
        return json.dumps(self.recipe, ensure_ascii=False, sort_keys=True)
