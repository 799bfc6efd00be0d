"""Where samples are made: in processes of this machine, whose tools are opened at their first sample.

An error crosses processes as a `Fault`: exceptions with arguments of their own do not survive the way.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.folder import Folder
from stepaudio_runtime.engine.make import Workshop, speak, to_bytes
from stepaudio_runtime.engine.plan import Sample
from stepaudio_runtime.engine.recipe import Recipe
from stepaudio_runtime.engine.speech import Teacher
from stepaudio_runtime.engine.teachers import open_teacher
from stepaudio_runtime.errors import ConfigError, DataError, ModelFileError, StepAudioError


@dataclass(frozen=True)
class Kept:
    """A sample's file is written."""

    number: int
    refused: bool


@dataclass(frozen=True)
class Fault:
    """An error that ends the run."""

    reason: str
    message: str
    for_a_person: bool  # waiting does not cure it

    @classmethod
    def of(cls, error: StepAudioError) -> Fault:
        """`error`, made to cross processes."""
        return cls(error.reason, str(error), isinstance(error, ConfigError | ModelFileError))

    def error(self) -> DataError:
        """The error by which the run ends."""
        what = self.message.removeprefix(f"{self.reason}: ")
        cure = "what is made is kept: the same command goes on"
        return DataError(self.reason, what=what, cure=cure, for_a_person=self.for_a_person)


@dataclass
class _Bench:
    """A process's own: made at its first sample, so that its errors are answers."""

    recipe: Recipe
    folder: Folder
    teacher: Teacher | None = None
    workshop: Workshop | None = None


_bench: _Bench | None = None


def start(recipe: Recipe, folder: Folder) -> None:
    """What a process does before its first sample."""
    global _bench  # noqa: PLW0603 - a pool's initializer has no other way to leave something behind
    from stepaudio_runtime.health.tether import end_with_parent

    end_with_parent()
    # A Ctrl-C goes to every process of the terminal; the main one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bench = _Bench(recipe, folder)


def make(sample: Sample, spoken: Wave | StepAudioError | Fault | None) -> Kept | Fault:
    """Make a sample of what was spoken, None where this process has to speak it, and keep it."""
    bench = _bench
    if bench is None:
        raise AssertionError("the pool's initializer ran")
    if isinstance(spoken, Fault):
        return spoken
    try:
        if bench.workshop is None:
            bench.workshop = Workshop(bench.recipe, bench.folder.references)
        if spoken is None:
            bench.teacher = bench.teacher or open_teacher(bench.recipe.teacher)
            spoken = speak(bench.teacher, sample)
        made = bench.workshop.make(sample, spoken)
    except StepAudioError as error:
        return Fault.of(error)
    bench.folder.keep(sample.number, to_bytes(made))
    return Kept(sample.number, made.refused)


def ask(teacher: Teacher, sample: Sample) -> Wave | StepAudioError | Fault:
    """As `speak`, in a thread of the main process; nothing is raised, errors go on to the worker."""
    try:
        return speak(teacher, sample)
    except StepAudioError as error:
        return Fault.of(error)
