"""Texts are the same every time, unseen ones share nothing with training, and the judge knows every word."""

from __future__ import annotations

import hashlib

import pytest

from stepaudio_runtime.engine.domain.texts import Language, Role, Split, exchanges, sentences
from stepaudio_runtime.engine.espeak import OWN_VOICES, Espeak
from stepaudio_runtime.engine.judge import EnglishJudge, mismatched, total, word_errors
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest
from stepaudio_runtime.errors import InputError


@pytest.mark.parametrize("language", list(Language))
def test_no_text_is_in_both_splits(language: Language) -> None:
    train = {sentence.text for sentence in sentences(language, Split.TRAIN, 1500)}
    unseen = {sentence.text for sentence in sentences(language, Split.UNSEEN, 150)}
    assert (len(train), len(unseen)) == (1500, 150)
    assert not train & unseen


def test_unseen_sentences_have_no_words_that_training_lacks() -> None:
    train = {w for s in sentences(Language.ENGLISH, Split.TRAIN, 2000) for w in s.text.split()}
    assert {w for s in sentences(Language.ENGLISH, Split.UNSEEN, 300) for w in s.text.split()} <= train


def test_fewer_sentences_are_the_first_of_more() -> None:
    assert sentences(Language.ENGLISH, Split.TRAIN, 50) == sentences(Language.ENGLISH, Split.TRAIN, 90)[:50]
    assert sentences(Language.ENGLISH, Split.TRAIN, 50, seed=1) != sentences(
        Language.ENGLISH, Split.TRAIN, 50
    )


def test_too_many_sentences_are_refused() -> None:
    with pytest.raises(InputError, match="ask for fewer"):
        sentences(Language.CHINESE, Split.UNSEEN, 100_000)


def test_a_request_to_switch_calls_the_tool() -> None:
    found = [e for e in exchanges(Language.ENGLISH, Split.TRAIN, 50) if e.topic == "switch"]
    assert found
    for exchange in found:
        assert exchange.tool is not None
        assert exchange.tool.arguments["state"] in exchange.request.split()
        assert exchange.reply.endswith(str(exchange.tool.arguments["state"]))


def test_speech_is_the_same_in_any_order_and_styles_change_its_length() -> None:
    teacher = Espeak()

    def digest(text: str) -> str:
        return hashlib.sha256(teacher.speak(SpeechRequest(text, "en-us+f2")).samples.tobytes()).hexdigest()

    assert [digest("one"), digest("two")] == [digest("two"), digest("one")][::-1]
    length = {
        tag: teacher.speak(SpeechRequest("turn on the light", "deep", STYLES[tag])).duration_s
        for tag in STYLES
    }
    assert length["慢速2"] > length["慢速1"] > length[""] > length["快速1"] > length["快速2"]
    assert length["慢速2"] > 1.25 * length["快速2"]
    with pytest.raises(InputError, match=OWN_VOICES[0]):
        teacher.speak(SpeechRequest("one", "nobody"))


def test_the_judge_tells_speech_from_mismatched_speech() -> None:
    judge, teacher = EnglishJudge(), Espeak()
    said = [s.text for s in sentences(Language.ENGLISH, Split.UNSEEN, 10) if s.role in Role]
    heard = [judge.words(teacher.speak(SpeechRequest(text, "en-us+f2"))) for text in said]
    floor = total(word_errors(text, words) for text, words in zip(said, heard, strict=True)).rate
    ceiling = total(word_errors(said[i], heard[k]) for i, k in enumerate(mismatched(len(said)))).rate
    assert floor < 0.15
    assert ceiling > 0.6
