"""Prompts: strict instruction names, the audio offset, and chat turns as ids."""

import pytest

from stepaudio_runtime.codec.chat_template import Turn, chat_ids, chat_text
from stepaudio_runtime.codec.instructions import instruction_name
from stepaudio_runtime.codec.tts_prompt import HUMMING_PROMPT, RAP_PROMPT, system_prompt, tts_prompt_ids
from stepaudio_runtime.errors import InputError


def letters(text):
    return [1000 + ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("（RAP）文本（注）结尾", "RAP"),
        ("(RAP)文本（注）", "RAP"),
        ("（RAP)混合", "RAP"),
        ("( RAP )有空格", "RAP"),
        ("（外（内）外）x", ""),
        ("((嵌套))x", ""),
        ("(RAP", ""),
        ("RAP)", ""),
        ("()", ""),
        ("", ""),
    ],
)
def test_strict_names_end_at_the_first_closing_bracket(text, name):
    assert instruction_name(text, strict=True) == name


def test_the_strict_reading_finds_an_instruction_that_the_compatible_one_misses():
    text = "（RAP）文本（注）结尾"
    assert system_prompt(text, "", strict=True) == RAP_PROMPT
    assert system_prompt(text, "") != RAP_PROMPT
    assert system_prompt("(RAP)哼唱", "A") == HUMMING_PROMPT


def test_voice_codes_are_shifted_by_the_models_own_offset():
    arguments = {"voice_text": "v", "speaker": "S", "encode": letters}
    near, far = (
        tts_prompt_ids("t", voice_codes=[0, 5119], audio_offset=offset, **arguments)
        for offset in (2880, 65536)
    )
    assert [(a, b) for a, b in zip(near, far, strict=True) if a != b] == [(2880, 65536), (7999, 70655)]
    with pytest.raises(InputError):
        tts_prompt_ids("t", voice_codes=[5120], **arguments)


def test_chat_ids_encode_text_in_runs_and_never_spell_out_audio():
    turns = [
        Turn("system", ("S",)),
        Turn("user", ("hear: ", (7, 5119), " and ", "so")),
        Turn("assistant", None),
    ]
    assert chat_ids(turns, encode=letters, audio_offset=2880) == [
        *(4, *letters("system\nS"), 3),
        *(4, *letters("human\nhear: "), 2887, 7999, *letters(" and so"), 3),
        *(4, *letters("assistant\n")),
    ]
    assert chat_text(turns) == (
        "<|BOT|>system\nS<|EOT|><|BOT|>human\nhear: <audio_7><audio_5119> and so<|EOT|><|BOT|>assistant\n"
    )


def test_an_open_turn_is_added_at_the_end_when_none_is_there():
    assert chat_ids([], encode=letters) == chat_ids([Turn("assistant", None)], encode=letters)
    assert chat_ids([Turn("user", ())], encode=letters) == [
        *(4, *letters("human\n"), 3, 4, *letters("assistant\n")),
    ]
