"""What may be asked of the TTS pod, and that every wrong body is a 400 that names its field."""

import pytest

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.settings import TtsSettings
from stepaudio_runtime.tts.request import Speech, parse_speech

SETTINGS = TtsSettings(max_codes=4, max_input_chars=10)


@pytest.mark.parametrize(
    ("body", "speech"),
    [
        ({"input": "你好"}, Speech("你好", (), None, None)),
        ({"input": "(高兴1)hi", "voice": "a", "seed": 0}, Speech("(高兴1)hi", (), "a", 0)),
        ({"input": "\ufeff(RAP) hi\x00"}, Speech("(RAP) hi", (), None, None)),
        ({"codes": [0, 5119], "voice": None}, Speech("", (0, 5119), None, None)),
        ({"codes": [1], "input": None, "more": 1}, Speech("", (1,), None, None)),
    ],
)
def test_good_bodies(body, speech):
    assert parse_speech(body, SETTINGS) == speech


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "input_or_codes"),
        ({"input": "a", "codes": [1]}, "input", "input_or_codes"),
        ({"input": ["a"]}, "input", "invalid_type"),
        ({"input": " \n"}, "input", "empty_input"),
        ({"input": "😀\u200b"}, "input", "empty_input"),
        ({"input": "a" * 11}, "input", "input_too_long"),
        ({"codes": "1"}, "codes", "invalid_type"),
        ({"codes": [True]}, "codes", "invalid_type"),
        ({"codes": [1.0]}, "codes", "invalid_type"),
        ({"codes": []}, "codes", "empty_codes"),
        ({"codes": [1] * 5}, "codes", "codes_too_long"),
        ({"codes": [5120]}, "codes", "codes_out_of_range"),
        ({"codes": [-1]}, "codes", "codes_out_of_range"),
        ({"input": "a", "voice": 1}, "voice", "invalid_type"),
        ({"input": "a", "seed": -1}, "seed", "invalid_seed"),
        ({"input": "a", "seed": 1 << 63}, "seed", "invalid_seed"),
        ({"input": "a", "seed": True}, "seed", "invalid_seed"),
    ],
)
def test_bad_bodies(body, param, code):
    with pytest.raises(InputError) as error:
        parse_speech(body, SETTINGS)
    assert (error.value.param, error.value.code) == (param, code)
