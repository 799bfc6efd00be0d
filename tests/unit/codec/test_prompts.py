"""Prompts: which system prompt a text gets, the audio offset, and chat turns as ids."""

import pytest

from stepaudio_runtime.codec.chat_template import Turn, chat_ids, chat_text
from stepaudio_runtime.codec.tts_prompt import (
    HUMMING_PROMPT,
    RAP_PROMPT,
    system_prompt,
    tts_prompt_ids,
    voice_actor_prompt,
)
from stepaudio_runtime.errors import InputError


def letters(text):
    return [1000 + ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("text", "strict", "as_the_reference"),
    [
        ("（RAP）文本（注）结尾", RAP_PROMPT, None),  # the reference's name runs to the last bracket
        ("(高兴1)(RAP)词", RAP_PROMPT, None),  # ... and only the first bracket counts
        ("(RAP)哼唱", RAP_PROMPT, HUMMING_PROMPT),  # ... and a word of the text hums
        ("(哼唱)RAP", HUMMING_PROMPT, HUMMING_PROMPT),
        ("RAP", None, None),
    ],
)
def test_tags_choose_the_system_prompt(text, strict, as_the_reference):
    assert system_prompt(text, "A", strict=True) == (strict or voice_actor_prompt("A"))
    assert system_prompt(text, "A") == (as_the_reference or voice_actor_prompt("A"))


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
