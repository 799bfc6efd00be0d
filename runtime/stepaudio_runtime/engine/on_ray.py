"""The data engine on many nodes: samples are made by actors of a Ray cluster, and kept and sealed here.

Ray Data streams the samples' places out and what was made of them back; this process writes it down as it
does what its own processes make. So the data are the same bytes, a run may be begun here and go on there,
and only this machine needs the output folder. What a recipe names by path (models, a speaker's network) has
to lie under that path on every node, and the variable of an API key has to be set there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepaudio_runtime.engine.make import Workshop, speak, to_bytes
from stepaudio_runtime.engine.plan import Plan
from stepaudio_runtime.engine.teachers import open_teacher
from stepaudio_runtime.engine.workers import Fault
from stepaudio_runtime.errors import ConfigError, StepAudioError

_BLOCK = 16
"""Samples that an actor is given at a time; how many blocks wait is bounded by Ray."""


@dataclass(frozen=True)
class OnRay:
    """Makes samples on the cluster at `address`: "auto" for the one that this node belongs to."""

    address: str
    actors: int  # one processor each

    def __call__(
        self, plan: Plan, references: Path, numbers: Sequence[int]
    ) -> Iterator[tuple[int, bytes] | Fault]:
        """Number and bytes of each of the plan's samples `numbers`, in any order; a fault ends them.

        Raises ConfigError without Ray or its cluster.
        """
        # Under `uv run` Ray would make every actor an environment of its own, of the folder that this is in.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        try:
            import ray
            from ray import data
        except ImportError:
            cure = "pip install 'stepaudio-runtime[ray]'"
            raise ConfigError(what="the package ray is not installed", cure=cure) from None
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        try:
            ray.init(self.address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            what = f"no Ray cluster at {self.address}: {error}"
            raise ConfigError(what=what, cure="start one, or correct the address") from None
        data.DataContext.get_current().enable_progress_bars = False
        held = {file.name: file.read_bytes() for file in references.glob("*.wav")}
        try:
            places = data.range(len(numbers), override_num_blocks=-(-len(numbers) // _BLOCK))
            made = places.map_batches(
                _Actor,
                fn_constructor_args=(plan, np.asarray(numbers), held),
                batch_size=None,
                compute=data.ActorPoolStrategy(size=self.actors),
            )
            for row in made.iter_rows():
                if row["reason"]:
                    yield Fault(row["reason"], row["message"], bool(row["for_a_person"]))
                yield int(row["number"]), bytes(row["made"])
        finally:
            ray.shutdown()


class _Actor:
    """The tools of a recipe in one process of the cluster, opened at its first sample."""

    def __init__(self, plan: Plan, numbers: NDArray[np.int64], references: Mapping[str, bytes]) -> None:
        self._plan, self._numbers, self._references = plan, numbers, references
        self._workshop: Workshop | None = None

    def __call__(self, batch: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """What became of the samples at the places `batch["id"]` of the numbers, a row each."""
        numbers = self._numbers[batch["id"]]
        made = [self._try(int(number)) for number in numbers]
        faults = [each if isinstance(each, Fault) else Fault("", "", False) for each in made]
        content = [b"" if isinstance(each, Fault) else each for each in made]
        return {
            "number": numbers,
            "made": np.array(content, dtype=object),
            "reason": np.array([fault.reason for fault in faults], dtype=object),
            "message": np.array([fault.message for fault in faults], dtype=object),
            "for_a_person": np.array([fault.for_a_person for fault in faults]),
        }

    def _try(self, number: int) -> bytes | Fault:
        try:
            if self._workshop is None:
                self._workshop = self._open()
                self._teacher = open_teacher(self._plan.recipe.teacher)
            sample = self._plan[number]
            return to_bytes(self._workshop.make(sample, speak(self._teacher, sample)))
        except StepAudioError as error:
            return Fault.of(error)

    def _open(self) -> Workshop:
        with TemporaryDirectory() as folder:
            for name, content in self._references.items():
                (Path(folder) / name).write_bytes(content)
            return Workshop(self._plan.recipe, Path(folder))
