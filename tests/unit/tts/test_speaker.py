"""From text to codes and sound: groups in order from the same voice, loops taken back and tried with another
seed, silence tried again, a slow listener waited for, a leaver's model stopped. The model is a script."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import torch
from prometheus_client import CollectorRegistry

from stepaudio_runtime.contract import LINGUISTIC_CODES
from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.tts.decoder import Prompt
from stepaudio_runtime.tts.hops import HopPlan
from stepaudio_runtime.tts.loops import WINDOW
from stepaudio_runtime.tts.metrics import SpeechMetrics
from stepaudio_runtime.tts.request import Speech
from stepaudio_runtime.tts.scheduler import Scheduler
from stepaudio_runtime.tts.shelf import Shelf
from stepaudio_runtime.tts.speaker import RETRIES, Speaker
from stepaudio_runtime.tts.text import clean
from stepaudio_runtime.tts.utterance import AHEAD_S
from stepaudio_runtime.tts.voices import VoicePrompt, Voices
from tests.unit.tts.fakes import PLAN, SAMPLES, FakeDecoder, InlineWorker

OFFSET = 10_000
PIECE = 7  # codes that come at a time
HANGS_S = 60
TWO_GROUPS = "这是一个很长的句子里面，" * 3 + "这是第一个句子的结尾。" + "再见。"


@dataclass
class ScriptedLm:
    """Answers number 0, 1, ... are what `script` says; every call is noted, and whether it was left early."""

    script: Callable[[int], list[int]]
    audio_offset: int = OFFSET
    prompts: list[list[int]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    bounds: list[int] = field(default_factory=list)
    left: int = 0

    async def stream(self, prompt, *, max_codes: int, seed: int):
        number = len(self.prompts)
        self.prompts.append(list(prompt))
        self.seeds.append(seed)
        self.bounds.append(max_codes)
        answer = self.script(number)[:max_codes]
        done = False
        try:
            for start in range(0, len(answer), PIECE):
                await asyncio.sleep(0)
                yield answer[start : start + PIECE]
            done = True
        finally:
            self.left += not done


def encode(text: str) -> list[int]:
    return [100 + ord(char) % 9000 for char in text]


VOICES = Voices([VoicePrompt("lulu", "好", Prompt((1, 2, 3), torch.zeros(1, 7, 80), torch.zeros(1, 192)))])


@asynccontextmanager
async def speaking(lm, decoder=None, *, plan: HopPlan = PLAN):
    metrics = SpeechMetrics(CollectorRegistry())
    scheduler = Scheduler(InlineWorker(), bound=4, batch=4, clock=lambda: 0.0, metrics=metrics)
    running = asyncio.create_task(scheduler.run())
    decoders = {None: decoder or FakeDecoder()}
    plans = {"plan": plan, "next_plan": plan}
    speaker = Speaker(lm, encode, Shelf(VOICES), decoders, scheduler, metrics, max_codes=8192, **plans)
    async with asyncio.timeout(HANGS_S):
        yield speaker, metrics
    running.cancel()


async def heard(speaker: Speaker, text: str, seed: int | None = 5) -> list[int]:
    codes: list[int] = []
    async for wave in speaker.speak(Speech(clean(text), (), None, seed)):
        codes += wave[::SAMPLES].astype(int).tolist()
    return codes


def loops(metrics: SpeechMetrics, outcome: str) -> float:
    return metrics.loops.labels(outcome)._value.get()


def fresh(count: int, seed: int) -> list[int]:
    """Linguistic codes that never repeat themselves."""
    return random.Random(seed).sample(range(1, LINGUISTIC_CODES), count)


async def test_groups_are_spoken_in_order_each_from_the_voice_anew():
    lm = ScriptedLm(lambda number: fresh(40, number))
    async with speaking(lm) as (speaker, metrics):
        assert await heard(speaker, TWO_GROUPS) == fresh(40, 0) + fresh(40, 1)
    assert len(lm.prompts) == 2
    shared = next(i for i, (a, b) in enumerate(zip(*lm.prompts, strict=False)) if a != b)
    assert OFFSET + 3 in lm.prompts[0][:shared], "the voice's codes are a common prefix"
    assert all(OFFSET + code not in lm.prompts[1] for code in fresh(40, 0))
    assert lm.seeds[0] == 5
    assert lm.seeds[1] != 5
    assert loops(metrics, "retried") == loops(metrics, "cut") == 0


async def test_a_seed_repeats_all_of_it_and_none_draws_one():
    seeds = []
    for seed in (5, 5, 6, None, None):
        lm = ScriptedLm(lambda number: fresh(40, number))
        async with speaking(lm) as (speaker, _):
            await heard(speaker, TWO_GROUPS, seed)
        seeds.append(lm.seeds)
    assert seeds[0] == seeds[1]
    assert len({tuple(each) for each in seeds}) == 4


async def test_numbers_reach_the_model_as_words():
    lm = ScriptedLm(lambda number: fresh(10, number))
    async with speaking(lm) as (speaker, _):
        await heard(speaker, "(高兴1)有3个。")
    prompt = lm.prompts[0]
    spelt = encode("(高兴1)有三个。")
    assert any(prompt[at : at + len(spelt)] == spelt for at in range(len(prompt)))


async def test_a_loop_is_taken_back_and_continued_with_another_seed():
    good, phrase, rest = fresh(50, 1), fresh(20, 2), fresh(30, 3)
    lm = ScriptedLm(lambda number: (good + phrase * 12, rest)[number])
    async with speaking(lm, plan=HopPlan.whole()) as (speaker, metrics):
        assert await heard(speaker, "字" * 40) == good + phrase + rest
    assert lm.left == 1, "the looping answer was left, not heard out"
    assert lm.prompts[1] == lm.prompts[0] + [OFFSET + code for code in good + phrase]
    assert lm.bounds[1] == lm.bounds[0] - len(good + phrase)
    assert lm.seeds[0] != lm.seeds[1]
    assert (loops(metrics, "retried"), loops(metrics, "cut")) == (1, 0)


async def test_a_model_that_always_loops_is_cut():
    phrase = fresh(20, 2)
    lm = ScriptedLm(lambda _number: phrase * 30)
    async with speaking(lm) as (speaker, metrics):
        codes = await heard(speaker, "字" * 40)
    assert len(lm.prompts) == lm.left == 1 + RETRIES
    assert codes[:20] == phrase
    assert len(codes) < (1 + RETRIES) * WINDOW
    assert (loops(metrics, "retried"), loops(metrics, "cut")) == (RETRIES, 1)


async def test_silence_is_tried_again_and_then_an_error_or_left_out():
    lm = ScriptedLm(lambda number: [] if number < RETRIES else fresh(20, 1))
    async with speaking(lm) as (speaker, _):
        assert await heard(speaker, "你好。") == fresh(20, 1)
    lm = ScriptedLm(lambda _number: [])
    async with speaking(lm) as (speaker, _):
        with pytest.raises(OutputError, match="without any audio"):
            await heard(speaker, "你好。")
        assert speaker.scheduler.speaking == 0
    lm = ScriptedLm(lambda number: [] if number else fresh(20, 1))
    async with speaking(lm) as (speaker, _):
        assert await heard(speaker, TWO_GROUPS) == fresh(20, 1)
    assert len(lm.prompts) == 2 + RETRIES


@pytest.mark.parametrize("text", ["😀🎉", "\x00\x01\u200b", "（高兴1）...", "\ud800"])
async def test_nothing_to_speak_is_refused_before_anything_is_opened(text):
    lm = ScriptedLm(lambda _number: fresh(20, 1))
    async with speaking(lm) as (speaker, _):
        with pytest.raises(InputError):
            await heard(speaker, text)
        assert (speaker.scheduler.speaking, lm.prompts) == (0, [])


async def test_a_slow_listener_is_waited_for_and_a_leaver_stops_the_model():
    lm = ScriptedLm(lambda number: fresh(400, number))
    decoder = FakeDecoder()
    async with speaking(lm, decoder) as (speaker, _):
        async with aclosing(speaker.speak(Speech("这是一个很长的句子里面有字。" * 60, (), None, 1))) as waves:
            await anext(waves)
            for _ in range(3000):
                await asyncio.sleep(0)
            begun = len(lm.prompts)
            assert begun <= AHEAD_S * 42 // 400 + 2, "groups are not begun far ahead of the listener"
            async for _ in waves:
                if len(lm.prompts) > begun:
                    break
        assert speaker.scheduler.speaking == 0
        called, steps = len(lm.prompts), len(decoder.steps)
        for _ in range(300):
            await asyncio.sleep(0)
        assert (len(lm.prompts), len(decoder.steps)) == (called, steps)
        assert lm.left <= 1
