"""A run: samples are made in any order and kept one by one; shards are sealed in order.

    OUT/recipe.yaml          the recipe, as it was given
    OUT/journal.jsonl        which shards are sealed
    OUT/work/00000042.made   a sample that is made but not sealed yet
    OUT/references/          the voices' reference waves, where the recipe filters by speaker
    OUT/shard-00000.*        sealed
    OUT/manifest.json        written last: the folder is finished

Killed at any point, the same command goes on: what is under `work` is whole or is made again, and a shard
without its line in the journal is written again from the same samples. So nothing is asked of a teacher
twice but what was in flight, and with a deterministic teacher the shards are the same to the last byte.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

from stepaudio_runtime.audio.wave import to_pcm16
from stepaudio_runtime.engine import journal
from stepaudio_runtime.engine.duplicates import NearAudio
from stepaudio_runtime.engine.folder import Folder
from stepaudio_runtime.engine.make import Made, check_judgeable, from_bytes, reference_file, speak
from stepaudio_runtime.engine.manifest import finish, model_sums, versions
from stepaudio_runtime.engine.plan import Plan, Sample, plan
from stepaudio_runtime.engine.progress import Progress
from stepaudio_runtime.engine.recipe import EspeakTeacher, Recipe, read_recipe, recipe_hash
from stepaudio_runtime.engine.shards import read_records, write_atomically, write_shard
from stepaudio_runtime.engine.speech import Teacher
from stepaudio_runtime.engine.teachers import described, open_teacher
from stepaudio_runtime.engine.workers import Fault, Kept, ask, make
from stepaudio_runtime.engine.workers import start as start_worker
from stepaudio_runtime.errors import ConfigError, DataError, StepAudioError, Unavailable

_AHEAD = 4
"""Samples in flight, waiting ones included, for each process."""
_PROGRESS_EVERY_S = 5.0


Elsewhere = Callable[[Plan, Path, Sequence[int]], Iterator[tuple[int, bytes] | Fault]]
"""Makes samples of a plan by number, with the voices' references; each comes as `make.to_bytes` gives it."""


def run(
    recipe_file: Path,
    out: Path,
    *,
    workers: int,
    say: Callable[[Progress], None],
    clock: Callable[[], float] = time.monotonic,
    processes: BaseContext | None = None,
    elsewhere: Elsewhere | None = None,
) -> Path:
    """Make what the recipe says in `out`, or go on where an earlier run was ended; returns the manifest.

    `say` gets the progress: at the start, now and then, and at the end. `processes` starts the workers: by
    default fresh interpreters, so that what this process has loaded is not copied and threads do not break a
    fork; with `elsewhere` there are none. Raises ConfigError where `out` holds another recipe or another run
    is at it, ModelFileError where a model that it names is not there, DataError where the run ends early: the
    same command goes on later.
    """
    recipe = read_recipe(recipe_file)
    check_judgeable(recipe)
    todo = plan(recipe)
    folder = Folder(out)
    folder.work.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        state = _open_journal(folder, recipe)
        write_atomically(folder.path / "recipe.yaml", recipe_file.read_bytes())
        if len(state.sealed) < todo.shards:
            context = processes or get_context("spawn")
            _Executor(recipe, todo, folder, state, workers, say, clock, context, elsewhere).run()
            state = journal.replay(folder.journal.read_bytes()).state
        return finish(folder.path, recipe, state)


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """Hold the folder against a second run; the kernel lets go however this process ends."""
    with (folder.path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(what=f"another run is at work in {folder.path}", cure="wait for it") from None
        yield


def _open_journal(folder: Folder, recipe: Recipe) -> journal.State:
    """The folder's state, its torn end cut off; a new journal where there is none."""
    here = journal.Run(recipe_hash(recipe), described(recipe.teacher), versions(recipe), model_sums(recipe))
    data = folder.journal.read_bytes() if folder.journal.exists() else b""
    replayed = journal.replay(data)
    if replayed.state.run is None:
        write_atomically(folder.journal, journal.begin(here))
        return journal.State(here)
    if replayed.length < len(data):
        write_atomically(folder.journal, data[: replayed.length])
    there = replayed.state.run
    if there.recipe != here.recipe:
        what = f"{folder.path} holds the data of another recipe (or its texts have changed)"
        raise ConfigError(what=what, cure="give another folder")
    if there.models != here.models:
        changed = ", ".join(
            sorted(name for name, sum_ in here.models.items() if there.models.get(name) != sum_)
        )
        what = f"{folder.path} was begun with another content of {changed}"
        raise ConfigError(what=what, cure="use those files, or give another folder")
    if there != here:
        what = f"{folder.path} was begun with {there.teacher}, {there.versions}; here are {here.teacher}, "
        raise ConfigError(what=f"{what}{here.versions}", cure="use those versions, or another folder")
    return replayed.state


@dataclass
class _Executor:
    recipe: Recipe
    plan: Plan
    folder: Folder
    state: journal.State
    workers: int
    say: Callable[[Progress], None]
    clock: Callable[[], float]
    processes: BaseContext
    elsewhere: Elsewhere | None
    _made: set[int] = field(default_factory=set)  # not sealed yet
    _near: NearAudio | None = None

    def run(self) -> None:
        """Make and seal all that is left."""
        sealed = len(self.state.sealed)
        first = self.plan.numbers(sealed).start
        self._made = self._kept(first)
        self._progress = Progress(len(self.plan), self.clock(), done=first + len(self._made))
        self._spoken_at = self.clock()
        if self.recipe.filters.audio_bits is not None:
            self._near = NearAudio(self.recipe.filters.audio_bits)
            for record in read_records(self.folder.path):
                if int(record["key"]) < first and record["refused"] is None:
                    self._near.add(int(record["fingerprint"], 16))
        self.say(self._progress)
        todo = (number for number in range(first, len(self.plan)) if number not in self._made)
        results = self._results(todo) if self.elsewhere is None else self._from_elsewhere(list(todo))
        for number in results:
            if number is not None:
                self._made.add(number)
            while sealed < self.plan.shards and self._made.issuperset(self.plan.numbers(sealed)):
                self._seal(sealed)
                sealed += 1
        self.say(self._progress)

    def _kept(self, first: int) -> set[int]:
        """Numbers of the samples that an earlier run made; what is torn or sealed already is removed."""
        kept = set()
        for file in self.folder.work.iterdir():
            number = int(file.stem) if file.suffix == ".made" and file.stem.isdecimal() else -1
            if number >= first and from_bytes(file.read_bytes()) is not None:
                kept.add(number)
            else:
                file.unlink()
        return kept

    def _results(self, todo: Iterator[int]) -> Iterator[int | None]:
        """Make the samples of `todo`, giving each number once it is kept; None first, for what is there."""
        yield None
        numbers = iter(todo)
        stop = threading.Event()
        teacher = open_teacher(self.recipe.teacher, sleep=lambda seconds: _sleep(stop, seconds))
        self._speak_references(teacher)
        remote = not isinstance(self.recipe.teacher, EspeakTeacher)
        callers = getattr(self.recipe.teacher, "concurrency", 1)
        pool = ProcessPoolExecutor(self.workers, self.processes, start_worker, (self.recipe, self.folder))
        threads = ThreadPoolExecutor(callers)
        flying: set[Future[Kept | Fault]] = set()

        def start(number: int) -> Future[Kept | Fault]:
            sample = self.plan[number]
            if not remote:
                return pool.submit(make, sample, None)
            return threads.submit(lambda: pool.submit(make, sample, ask(teacher, sample)).result())

        try:
            while True:
                while len(flying) < self.workers * _AHEAD + callers and (n := next(numbers, -1)) >= 0:
                    flying.add(start(n))
                if not flying:
                    return
                done, flying = wait(flying, timeout=_PROGRESS_EVERY_S, return_when=FIRST_COMPLETED)
                for future in done:
                    answer = future.result()
                    if isinstance(answer, Fault):
                        raise answer.error()
                    self._progress.made(refused=answer.refused)
                    yield answer.number
                self._say_now_and_then()
        except BrokenProcessPool:
            what = "a process of the engine was killed, perhaps for want of memory"
            cure = "run the same command again, with fewer --workers"
            raise DataError("WorkerKilled", what=what, cure=cure, for_a_person=False) from None
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(wait=True, cancel_futures=True)

    def _from_elsewhere(self, numbers: Sequence[int]) -> Iterator[int | None]:
        """As `_results`, of samples that others make and this process keeps."""
        yield None
        if not numbers or self.elsewhere is None:
            return
        self._speak_references(open_teacher(self.recipe.teacher))
        for answer in self.elsewhere(self.plan, self.folder.references, numbers):
            if isinstance(answer, Fault):
                raise answer.error()
            number, content = answer
            made = from_bytes(content)
            if made is None:
                cure = "run the same command again"
                what = f"sample {number} arrived torn"
                raise DataError("SampleDamaged", what=what, cure=cure, for_a_person=False)
            self.folder.keep(number, content)
            self._progress.made(refused=made.refused)
            yield number
            self._say_now_and_then()

    def _say_now_and_then(self) -> None:
        if self.clock() - self._spoken_at >= _PROGRESS_EVERY_S:
            self._spoken_at = self.clock()
            self.say(self._progress)

    def _speak_references(self, teacher: Teacher) -> None:
        """For the speaker filter: the first text in each voice, plainly, once in a run."""
        if self.recipe.filters.speaker is None:
            return
        from stepaudio_runtime.pods.sound_file import write_mono

        self.folder.references.mkdir(exist_ok=True)
        text = self.plan.texts[0]
        for number, voice in enumerate(self.recipe.voices):
            path = reference_file(self.folder.references, number)
            if path.exists():
                continue
            spoken = speak(teacher, Sample(0, text.text, text.language, "", voice, "", self.recipe.seed + 1))
            if isinstance(spoken, StepAudioError):
                raise ConfigError(what=f"voices.{number}: {spoken}", cure="correct the voice")
            new = path.with_suffix(".new")
            write_mono(new, to_pcm16(spoken.samples), spoken.rate)
            new.replace(path)

    def _seal(self, shard: int) -> None:
        numbers = self.plan.numbers(shard)
        samples = (self._without_repeats(self._read(number)) for number in numbers)
        sealed = write_shard(self.folder.path, shard, samples, self.recipe.output.audio)
        with self.folder.journal.open("ab") as file:
            file.write(journal.seal(sealed))
            file.flush()
            os.fsync(file.fileno())
        for number in numbers:
            self.folder.made(number).unlink()
        self._made.difference_update(numbers)

    def _read(self, number: int) -> Made:
        made = from_bytes(self.folder.made(number).read_bytes())
        if made is None:
            what = f"{self.folder.made(number)} was changed while the run went on"
            cure = "run the same command again, it is made anew"
            raise DataError("SampleDamaged", what=what, cure=cure, for_a_person=False)
        return made

    def _without_repeats(self, made: Made) -> Made:
        """The sample, refused if one before it sounds the same: decided here, in the samples' order."""
        if self._near is None or made.refused or self._near.add(int(made.record["fingerprint"], 16)):
            return made
        record = {**made.record, "refused": ["duplicate", "it sounds like a sample before it"]}
        return Made(made.number, record, (), b"")


def _sleep(stop: threading.Event, seconds: float) -> None:
    """Wait, but not on for a run that has ended."""
    if stop.wait(seconds):
        raise Unavailable("the run has ended")
