"""The judge of Chinese: its grammar takes every sentence of the domain and no other, every syllable has
phones of the acoustic model, tones do not count; with that model it tells speech from mismatched speech."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from stepaudio_runtime.cli import main
from stepaudio_runtime.engine.domain.grammar import chinese_jsgf
from stepaudio_runtime.engine.domain.pinyin import READINGS, pronunciations, syllables
from stepaudio_runtime.engine.domain.texts import Language, Split, sentences
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.judge import ChineseJudge, ErrorRate, mismatched, syllable_errors, total
from stepaudio_runtime.engine.speech import SpeechRequest
from stepaudio_runtime.errors import ConfigError

MODEL_ENV = "STEPAUDIO_TEST_MANDARIN"
EVERY = {Split.TRAIN: 5027, Split.UNSEEN: 552}
"""How many different sentences the domain has."""
MODEL_PHONES = set(
    "a ai an ang ao as b c ch d e ei en eng er es f g h i ia ian iang iao ib ie if in ing iong iu "  # noqa: SIM905
    "j k l m n o ong os ou p q r s sh t u ua uai uan uang ui un uo ux uxan uxe uxn uxs w x y z zh".split()
)
"""What tdt_sc_8k's mdef lists, but silence and noises."""


@cache
def grammar() -> re.Pattern[str]:
    """The grammar as an expression over words that each end with a space."""
    rules = dict(re.findall(r"<(\w+)> = (.*);", chinese_jsgf()))

    def expression(rule: str) -> str:
        out = re.sub(r"<(\w+)>", lambda m: f" (?:{rules[m[1]]}) ", rule)
        return out if out == rule else expression(out)

    spelt = expression(rules["sentence"]).replace("[", "(?:").replace("]", ")?")
    return re.compile(re.sub(r"\s+", "", re.sub(r"[a-z]+", lambda m: f"(?:{m[0]}_)", spelt)))


def taken(text: str) -> bool:
    return grammar().fullmatch("".join(f"{syllable}_" for syllable in syllables(text))) is not None


def test_the_grammar_takes_every_sentence_of_the_domain() -> None:
    texts = [s.text for split, n in EVERY.items() for s in sentences(Language.CHINESE, split, n)]
    assert [text for text in texts if len(syllables(text)) != len(text) or not taken(text)] == []
    others = ["打开厨房", "灯的厨房打开", "二十加", "现在二点", "请说一二", "三十加一等于多少"]
    assert [text for text in others if taken(text)] == []


def test_every_syllable_has_phones_of_the_model() -> None:
    spoken = {syllable: pronunciations(syllable) for syllable in READINGS.values()}
    said = [phones for each in spoken.values() for phones in each]
    assert {phone for phones in said for phone in phones} <= MODEL_PHONES
    assert len(set(said)) == len(said), "two syllables that sound alike"
    assert [spoken[s] for s in ("shi", "si", "qi", "yu", "wo", "wu")] == [
        [("sh", "ib")],
        [("s", "if")],
        [("q", "i")],
        [("y", "ux")],
        [("w", "o")],
        [("w", "u"), ("u",)],
    ]


def test_tones_do_not_count_and_what_is_left_out_does() -> None:
    assert syllable_errors("十四", "shi si") == ErrorRate(units=2)
    assert syllable_errors("关上卧室的灯。", "guan shang wo shi deng") == ErrorRate(deleted=1, units=6)


def test_a_folder_that_is_no_acoustic_model_is_refused_with_where_it_comes_from(tmp_path, capsys) -> None:
    with pytest.raises(ConfigError, match=r"has no mdef; .* pocketsphinx 0\.7"):
        ChineseJudge(tmp_path)
    with pytest.raises(SystemExit):
        main(["eval", "speech", "teacher", "--language", "zh", "-o", str(tmp_path)])
    assert "--acoustic-model" in capsys.readouterr().err


@pytest.mark.skipif(
    not os.environ.get(MODEL_ENV),
    reason=f"the Mandarin acoustic model is in no package: {MODEL_ENV} is to name its folder, tdt_sc_8k",
)
def test_the_judge_tells_speech_from_mismatched_speech() -> None:
    judge, teacher = ChineseJudge(Path(os.environ[MODEL_ENV])), Espeak()
    said = [s.text for s in sentences(Language.CHINESE, Split.UNSEEN, 12)]
    heard = [judge.words(teacher.speak(SpeechRequest(text, "cmn+f5"))) for text in said]
    floor = total(syllable_errors(text, words) for text, words in zip(said, heard, strict=True)).rate
    ceiling = total(syllable_errors(said[i], heard[k]) for i, k in enumerate(mismatched(len(said)))).rate
    assert floor < 0.2
    assert ceiling > 0.6
