"""Distances of waves: nothing to itself, little to the same words at another pace, much to other words."""

import math

import numpy as np

from stepaudio_runtime.audio.wave import Wave
from stepaudio_runtime.engine.espeak import Espeak
from stepaudio_runtime.engine.speech import STYLES, SpeechRequest
from stepaudio_runtime.evaluate.distances import mel_distance_db, similarity

SAID = "turn on the kitchen light"


def say(text: str, tag: str = "", voice: str = "en-us+f2") -> Wave:
    return Espeak().speak(SpeechRequest(text, voice, STYLES[tag]))


def test_the_same_words_are_nearer_than_others_whatever_their_pace_and_level():
    plain, slow, other = say(SAID), say(SAID, "慢速2"), say("what is nine times eight")
    quiet = Wave(plain.samples * np.float32(0.1), plain.rate)
    assert mel_distance_db(plain, plain) == 0
    assert mel_distance_db(plain, quiet) < 0.5
    assert mel_distance_db(plain, slow) < 0.6 * mel_distance_db(plain, other)
    assert math.isclose(mel_distance_db(plain, slow), mel_distance_db(slow, plain), rel_tol=1e-9)


def test_too_short_for_a_frame_is_no_number():
    assert math.isnan(mel_distance_db(say(SAID), Wave(np.zeros(300, np.float32), 22_050)))


def test_similarity_is_of_the_direction():
    one = np.array([1, 2, 3], np.float32)
    assert math.isclose(similarity(one, 5 * one), 1, abs_tol=1e-6)
    assert math.isclose(similarity(one, np.array([-3, 0, 1], np.float32)), 0, abs_tol=1e-6)
    assert similarity(one, 0 * one) == 0
